//! llm.c's file of multiple choice (`dev/data/data_common.py`, `write_evalfile`), little-endian:
//!
//! - a header of 256 `i32`: 20240522, version 1, examples, the longest example in bytes; the others are 0;
//! - for each example, `u16`: 65535, the example's size in bytes (these two numbers included), its index, the label,
//!   the number of endings, then the context and each ending, all as a count and so many tokens.
//!
//! The tokens are those of the model: text is encoded before. llm.c itself reads files of four endings only.

use crate::error::EvalError;
use crate::tasks::multiple_choice::ChoiceExample;
use std::fs;
use std::path::Path;

/// The first number of a file.
pub const MAGIC: i32 = 20_240_522;
/// The only version of it.
pub const VERSION: i32 = 1;
/// Endings of each example that is written.
pub const ENDINGS: usize = 4;

/// The first number of llm.c's token shards, which are easily taken for these files.
const SHARD_MAGIC: i32 = gpt2_data::SHARD_MAGIC;

const HEADER_NUMBERS: usize = 256;
const HEADER_BYTES: usize = HEADER_NUMBERS * 4;
/// Before each example.
const START: u16 = u16::MAX;
/// Start, size, index, label, number of endings.
const EXAMPLE_HEADER_BYTES: usize = 5 * 2;

/// The examples of a file, in its order.
///
/// # Errors
/// [`EvalError::Io`]; [`EvalError::Damaged`] with the byte at which the file is not as it should be;
/// [`EvalError::NoExamples`].
pub fn read(path: &Path) -> Result<Vec<ChoiceExample>, EvalError> {
    let bytes = fs::read(path).map_err(EvalError::io("read", path))?;
    let examples = parse(&bytes).map_err(|damage| EvalError::Damaged {
        path: path.to_path_buf(),
        offset: damage.offset,
        found: damage.found,
        expected: damage.expected,
    })?;
    if examples.is_empty() {
        return Err(EvalError::NoExamples {
            path: path.to_path_buf(),
        });
    }
    Ok(examples)
}

/// Writes the examples, each with its index.
///
/// # Errors
/// [`EvalError::DoesNotFit`] or [`EvalError::TooManyExamples`] where the format has no room, [`EvalError::Io`]. The old
/// content of the file stays then.
pub fn write(path: &Path, examples: &[ChoiceExample]) -> Result<(), EvalError> {
    let bytes = to_bytes(examples)?;
    gpt2_base::fs::write(path, &bytes).map_err(EvalError::io("write", path))
}

/// Where a file is not as it should be.
#[derive(Debug, PartialEq, Eq)]
struct Damage {
    offset: usize,
    found: String,
    expected: String,
}

impl Damage {
    fn new(offset: usize, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            offset,
            found: found.into(),
            expected: expected.into(),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<ChoiceExample>, Damage> {
    let [magic, version, count, longest] = header(bytes)?;
    if magic != MAGIC {
        let what = if magic == SHARD_MAGIC {
            format!("is the magic number {magic} of a token shard")
        } else {
            format!("is the magic number {magic}")
        };
        return Err(Damage::new(0, what, MAGIC.to_string()));
    }
    if version != VERSION {
        return Err(Damage::new(4, format!("is version {version}"), VERSION.to_string()));
    }
    let mut reader = Reader {
        bytes,
        offset: HEADER_BYTES,
    };
    // Not allocated by the count, which may be anything.
    let mut examples = Vec::new();
    let mut longest_found = 0;
    while reader.offset < bytes.len() {
        let start = reader.offset;
        examples.push(example(&mut reader)?);
        longest_found = longest_found.max(reader.offset - start);
    }
    if usize::try_from(count) != Ok(examples.len()) {
        let found = format!("is a count of {count} examples");
        return Err(Damage::new(
            8,
            found,
            format!("{}, which the file holds", examples.len()),
        ));
    }
    if usize::try_from(longest) != Ok(longest_found) {
        let found = format!("is {longest} as the longest example's bytes");
        return Err(Damage::new(12, found, format!("{longest_found}, as in the file")));
    }
    Ok(examples)
}

/// The numbers of the header that mean something.
fn header(bytes: &[u8]) -> Result<[i32; 4], Damage> {
    let Some(header) = bytes.get(..HEADER_BYTES) else {
        return Err(Damage::new(
            bytes.len(),
            "is the end of the file",
            format!("a header of {HEADER_BYTES} bytes"),
        ));
    };
    let (numbers, _) = header.as_chunks::<4>();
    let mut values = [0; 4];
    for (value, number) in values.iter_mut().zip(numbers) {
        *value = i32::from_le_bytes(*number);
    }
    Ok(values)
}

fn example(reader: &mut Reader<'_>) -> Result<ChoiceExample, Damage> {
    let start = reader.offset;
    reader.expect(START, "the mark of an example")?;
    let size_at = reader.offset;
    let size = usize::from(reader.number("the size of the example in bytes")?);
    let left = reader.bytes.len() - start;
    if size < EXAMPLE_HEADER_BYTES || size > left {
        return Err(Damage::new(
            size_at,
            format!("is {size} as the example's bytes"),
            format!("{EXAMPLE_HEADER_BYTES} to {left}, which are left of the file"),
        ));
    }
    let mut inner = Reader {
        bytes: &reader.bytes[..start + size],
        offset: reader.offset,
    };
    let index = usize::from(inner.number("the index of the example")?);
    let label_at = inner.offset;
    let label = usize::from(inner.number("the label")?);
    let endings_at = inner.offset;
    let count = inner.number("the number of endings")?;
    if count < 2 {
        return Err(Damage::new(
            endings_at,
            format!("is {count} as the number of endings"),
            "at least 2",
        ));
    }
    if label >= usize::from(count) {
        let expected = format!("one below {count}, the number of endings");
        return Err(Damage::new(label_at, format!("is the label {label}"), expected));
    }
    let context = inner.tokens("context")?;
    let endings = (0..count)
        .map(|_| inner.tokens("ending"))
        .collect::<Result<Vec<_>, _>>()?;
    if inner.offset != start + size {
        return Err(Damage::new(
            size_at,
            format!("is {size} as the example's bytes"),
            format!("{}, which it takes", inner.offset - start),
        ));
    }
    reader.offset = inner.offset;
    Ok(ChoiceExample {
        index,
        context,
        endings,
        label,
    })
}

/// Reads numbers from the front.
struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl Reader<'_> {
    fn number(&mut self, what: &str) -> Result<u16, Damage> {
        let number = self.bytes.get(self.offset..).and_then(<[u8]>::first_chunk::<2>);
        let Some(number) = number else {
            return Err(Damage::new(
                self.offset,
                "is the end of the file or of the example",
                what,
            ));
        };
        self.offset += 2;
        Ok(u16::from_le_bytes(*number))
    }

    fn expect(&mut self, expected: u16, what: &str) -> Result<(), Damage> {
        let at = self.offset;
        match self.number(what)? {
            number if number == expected => Ok(()),
            number => Err(Damage::new(at, format!("is {number}"), format!("{expected}, {what}"))),
        }
    }

    /// A count and so many tokens, at least one.
    fn tokens(&mut self, of: &str) -> Result<Vec<u16>, Damage> {
        let count_at = self.offset;
        let count = usize::from(self.number(&format!("the number of tokens of the {of}"))?);
        let left = (self.bytes.len() - self.offset) / 2;
        if count == 0 || count > left {
            return Err(Damage::new(
                count_at,
                format!("is {count} as the number of tokens of the {of}"),
                format!("1 to {left}, for which the example has room"),
            ));
        }
        let tokens_at = self.offset;
        let (numbers, _) = self.bytes[tokens_at..tokens_at + 2 * count].as_chunks::<2>();
        self.offset += 2 * count;
        let tokens: Vec<u16> = numbers.iter().map(|number| u16::from_le_bytes(*number)).collect();
        match tokens.iter().position(|&token| token == START) {
            Some(position) => Err(Damage::new(
                tokens_at + 2 * position,
                format!("is {START} within the {of}"),
                "a token below it: it is the mark of an example",
            )),
            None => Ok(tokens),
        }
    }
}

fn to_bytes(examples: &[ChoiceExample]) -> Result<Vec<u8>, EvalError> {
    /// llm.c's own limit: an index has 16 bits.
    const LIMIT: usize = u16::MAX as usize;
    if examples.len() > LIMIT {
        return Err(EvalError::TooManyExamples {
            examples: examples.len(),
            limit: LIMIT,
        });
    }
    let mut body = Vec::new();
    let mut longest = 0;
    for (place, example) in examples.iter().enumerate() {
        let numbers = numbers_of(example).map_err(|(found, expected)| EvalError::DoesNotFit {
            example: place,
            found,
            expected,
        })?;
        longest = longest.max(2 * numbers.len());
        body.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    }
    let mut header = [0_i32; HEADER_NUMBERS];
    // Both are at most 65,535.
    header[..4].copy_from_slice(&[MAGIC, VERSION, examples.len() as i32, longest as i32]);
    let mut bytes: Vec<u8> = header.into_iter().flat_map(i32::to_le_bytes).collect();
    bytes.extend(body);
    Ok(bytes)
}

/// The numbers of an example, or what it has and what was expected.
fn numbers_of(example: &ChoiceExample) -> Result<Vec<u16>, (String, &'static str)> {
    let ChoiceExample {
        index,
        context,
        endings,
        label,
    } = example;
    if endings.len() != ENDINGS {
        return Err((format!("{} endings", endings.len()), "4"));
    }
    if *label >= ENDINGS {
        return Err((format!("the label {label}"), "one from 0 to 3"));
    }
    let index = u16::try_from(*index).map_err(|_| (format!("the index {index}"), "at most 65535"))?;
    let mut numbers = vec![START, 0, index, *label as u16, ENDINGS as u16];
    for tokens in std::iter::once(context).chain(endings) {
        if tokens.is_empty() {
            return Err(("an empty context or ending".to_owned(), "at least 1 token in each"));
        }
        if tokens.contains(&START) {
            return Err((format!("the token {START}"), "tokens below it"));
        }
        let count = u16::try_from(tokens.len()).map_err(|_| too_long(2 * tokens.len()))?;
        numbers.push(count);
        numbers.extend(tokens);
    }
    let size = 2 * numbers.len();
    numbers[1] = u16::try_from(size).map_err(|_| too_long(size))?;
    Ok(numbers)
}

fn too_long(bytes: usize) -> (String, &'static str) {
    (format!("{bytes} bytes of tokens and counts"), "at most 65535")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt2_data::SplitMix64;

    fn examples() -> Vec<ChoiceExample> {
        vec![
            ChoiceExample {
                index: 0,
                context: vec![7, 8, 9],
                endings: vec![vec![1], vec![2, 3], vec![4, 5, 6], vec![50_256]],
                label: 2,
            },
            ChoiceExample {
                index: 1,
                context: vec![0],
                endings: vec![vec![11, 12], vec![13], vec![14], vec![15, 16]],
                label: 0,
            },
        ]
    }

    /// The same examples as llm.c lays them out, number by number.
    fn file() -> Vec<u8> {
        let mut header = [0_i32; 256];
        header[..4].copy_from_slice(&[20_240_522, 1, 2, 40]);
        let body: [u16; 37] = [
            65_535, 40, 0, 2, 4, 3, 7, 8, 9, 1, 1, 2, 2, 3, 3, 4, 5, 6, 1, 50_256, // 20 numbers
            65_535, 34, 1, 0, 4, 1, 0, 2, 11, 12, 1, 13, 1, 14, 2, 15, 16, // 17 numbers
        ];
        let header = header.into_iter().flat_map(i32::to_le_bytes);
        header.chain(body.into_iter().flat_map(u16::to_le_bytes)).collect()
    }

    fn damage(change: impl FnOnce(&mut Vec<u8>)) -> Damage {
        let mut bytes = file();
        change(&mut bytes);
        parse(&bytes).unwrap_err()
    }

    fn set(bytes: &mut [u8], offset: usize, number: u16) {
        bytes[offset..offset + 2].copy_from_slice(&number.to_le_bytes());
    }

    #[test]
    fn a_file_is_as_llm_c_lays_it_out() {
        assert_eq!(to_bytes(&examples()).unwrap(), file());
        assert_eq!(parse(&file()).unwrap(), examples());
    }

    #[test]
    fn a_file_is_written_and_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        write(&path, &examples()).unwrap();
        assert_eq!(read(&path).unwrap(), examples());
        write(&path, &[]).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(
            message.ends_with("a.bin holds no example, expected at least 1"),
            "{message}"
        );
        let message = read(&dir.path().join("b.bin")).unwrap_err().to_string();
        assert!(
            message.starts_with("cannot read ") && message.contains("b.bin: "),
            "{message}"
        );
    }

    #[test]
    fn damage_is_named_with_its_byte() {
        let found = |damage: Damage| (damage.offset, damage.found, damage.expected);
        let is = |offset, found: &str, expected: &str| (offset, found.to_owned(), expected.to_owned());
        assert_eq!(
            found(damage(|bytes| bytes[..4].copy_from_slice(&SHARD_MAGIC.to_le_bytes()))),
            is(0, "is the magic number 20240520 of a token shard", "20240522")
        );
        assert_eq!(found(damage(|bytes| bytes[4] = 2)), is(4, "is version 2", "1"));
        assert_eq!(
            found(damage(|bytes| bytes[8..12].copy_from_slice(&(-1_i32).to_le_bytes()))),
            is(8, "is a count of -1 examples", "2, which the file holds")
        );
        assert_eq!(
            found(damage(|bytes| bytes[12] = 41)),
            is(12, "is 41 as the longest example's bytes", "40, as in the file")
        );
        assert_eq!(
            found(damage(|bytes| set(bytes, 1024, 3))),
            is(1024, "is 3", "65535, the mark of an example")
        );
        assert_eq!(
            found(damage(|bytes| set(bytes, 1026, 42))),
            is(1026, "is 42 as the example's bytes", "40, which it takes")
        );
        assert_eq!(
            found(damage(|bytes| set(bytes, 1026, 76))),
            is(
                1026,
                "is 76 as the example's bytes",
                "10 to 74, which are left of the file"
            )
        );
        assert_eq!(
            found(damage(|bytes| set(bytes, 1030, 4))),
            is(1030, "is the label 4", "one below 4, the number of endings")
        );
        assert_eq!(
            found(damage(|bytes| set(bytes, 1032, 1))),
            is(1032, "is 1 as the number of endings", "at least 2")
        );
        assert_eq!(
            found(damage(|bytes| set(bytes, 1034, 15))),
            is(
                1034,
                "is 15 as the number of tokens of the context",
                "1 to 14, for which the example has room"
            )
        );
        assert_eq!(
            found(damage(|bytes| set(bytes, 1038, 65_535))),
            is(
                1038,
                "is 65535 within the context",
                "a token below it: it is the mark of an example"
            )
        );
        assert_eq!(
            found(damage(|bytes| bytes.truncate(1000))),
            is(1000, "is the end of the file", "a header of 1024 bytes")
        );
    }

    #[test]
    fn a_file_that_is_cut_anywhere_is_refused() {
        let bytes = file();
        for length in 0..bytes.len() {
            assert!(parse(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn mutated_files_are_refused_or_read_but_never_panic() {
        let mut rng = SplitMix64::new(1);
        let mut read = 0;
        for _ in 0..20_000 {
            let mut bytes = file();
            for _ in 0..=rng.next_u64() % 4 {
                let at = rng.next_u64() as usize % bytes.len();
                bytes[at] = rng.next_u64() as u8;
            }
            if rng.next_u64().is_multiple_of(4) {
                bytes.truncate(rng.next_u64() as usize % (bytes.len() + 1));
            }
            // What is read can be written again, where it has four endings.
            if let Ok(examples) = parse(&bytes) {
                read += 1;
                if examples.iter().all(|example| example.endings.len() == ENDINGS) {
                    assert_eq!(parse(&to_bytes(&examples).unwrap()).unwrap(), examples);
                }
            }
        }
        assert!(read > 100, "{read}");
    }

    #[test]
    fn what_the_format_has_no_room_for_is_refused() {
        let refused = |change: fn(&mut ChoiceExample)| {
            let mut examples = examples();
            change(&mut examples[1]);
            to_bytes(&examples).unwrap_err().to_string()
        };
        let of = |what: &str| format!("example 1 does not fit llm.c's file: it has {what}; leave it out");
        assert_eq!(
            refused(|example| drop(example.endings.pop())),
            of("3 endings, expected 4")
        );
        assert_eq!(
            refused(|example| example.label = 4),
            of("the label 4, expected one from 0 to 3")
        );
        assert_eq!(
            refused(|example| example.context.clear()),
            of("an empty context or ending, expected at least 1 token in each")
        );
        assert_eq!(
            refused(|example| example.endings[0] = vec![65_535]),
            of("the token 65535, expected tokens below it")
        );
        assert_eq!(
            refused(|example| example.context = vec![1; 40_000]),
            of("80032 bytes of tokens and counts, expected at most 65535")
        );
        let many = vec![examples().remove(0); 65_536];
        assert_eq!(
            to_bytes(&many).unwrap_err().to_string(),
            "65536 examples do not fit llm.c's file, expected at most 65535; split them among several"
        );
    }
}
