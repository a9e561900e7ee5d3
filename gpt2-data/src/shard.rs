//! Token shards: llm.c's format (header and 16-bit tokens) and nanoGPT's headerless files, read.
//!
//! An open [`Shard`] is proof that every token in it was one of GPT-2's when it was opened, and what is read later is
//! checked again, for the file may have changed. Files are read by position, not mapped into memory: if one is cut
//! short or a network disk goes away, that is an error here, where a mapped file would end the process by SIGBUS.
//! Writing is `shard_writer.rs`. Which shards belong together, and in what order windows of them are trained on, is
//! decided elsewhere.
//!
//! The format, all little-endian: 256 × i32, of which `[0]` is the magic number, `[1]` the version, `[2]` the token
//! count and the rest zero; then that many u16. The file is exactly `1024 + 2 * tokens` bytes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::format::{
    CHARACTER_VOCABULARY_FILE, HEADER_BYTES, LLAMA3_MAGIC, SHARD_MAGIC, SHARD_VERSION, first_out_of_range,
};

#[cfg(target_endian = "big")]
compile_error!("shards are read as little-endian 16-bit tokens");

/// Other files of llm.c that also end in `.bin`, so that a mix-up is named.
const OTHER_MAGICS: [(i32, &str); 4] = [
    (20_240_522, "multiple-choice questions of llm.c"),
    (20_240_326, "a model of llm.c"),
    (20_240_327, "a debug state of llm.c"),
    (20_240_328, "a tokenizer of llm.c"),
];

/// The beginning of NumPy's `.npy` files.
const NUMPY_MAGIC: &[u8] = b"\x93NUMPY";

/// Tokens read at a time when all are.
const BLOCK_TOKENS: usize = 1 << 19;

/// A token file, checked.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    /// `None` where too many files would be open at once; such a shard is opened for each read.
    file: Option<File>,
    /// Size of the file when it was opened.
    bytes: u64,
    /// Where the tokens begin: 1024, or 0 in a headerless file.
    offset: u64,
}

impl Shard {
    /// Opens a token file and checks all of it: the header if it has one, the size, and that each token is GPT-2's.
    ///
    /// The check reads the whole file once. That is the price for refusing a bad shard before training instead of
    /// in the middle of it, and it brings the file into the page cache.
    ///
    /// # Errors
    /// If the file cannot be read, is empty, truncated or of odd size, has a foreign header, holds a token that
    /// GPT-2 does not have, or has no header and looks like something else than 16-bit tokens of GPT-2.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DataError> {
        let shard = Self::open_header(path)?;
        if shard.offset == 0 {
            shard.check_headerless()?;
        } else {
            shard.for_each_block(|_| {})?;
        }
        Ok(shard)
    }

    /// Opens a token file and checks its header and size, not its tokens.
    pub(crate) fn open_header(path: impl Into<PathBuf>) -> Result<Self, DataError> {
        let path = path.into();
        // To open a pipe would be to wait for its writer.
        let metadata = fs::metadata(&path).map_err(DataError::io("open", &path))?;
        if !metadata.is_file() {
            return Err(DataError::NotAFile { path });
        }
        let file = File::open(&path).map_err(DataError::io("open", &path))?;
        let bytes = metadata.len();
        if bytes == 0 {
            return Err(DataError::EmptyShard { path });
        }
        let mut head = vec![0; HEADER_BYTES.min(bytes as usize)];
        read_exact_at(&file, &mut head, 0).map_err(DataError::io("read", &path))?;
        let offset = if has_header(&path, &head, bytes)? {
            HEADER_BYTES
        } else {
            0
        };
        Ok(Self {
            path,
            file: Some(file),
            bytes,
            offset: offset as u64,
        })
    }

    /// Gives the file handle back to the system; every read opens the file again.
    pub(crate) fn release_handle(&mut self) {
        self.file = None;
    }

    /// How many tokens there are, at least one.
    #[expect(clippy::len_without_is_empty, reason = "an open shard is never empty")]
    pub fn len(&self) -> usize {
        ((self.bytes - self.offset) / 2) as usize
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the tokens from `position` on into `out`.
    ///
    /// # Errors
    /// [`DataError::ShardChanged`] if the file has become shorter, [`DataError::TokenOutOfRange`] if it has other
    /// content, [`DataError::Io`] if it cannot be read.
    ///
    /// # Panics
    /// If the shard ends before `out` is full.
    pub fn read(&self, position: usize, out: &mut [u16]) -> Result<(), DataError> {
        self.read_unchecked(position, out)?;
        match first_out_of_range(out) {
            None => Ok(()),
            Some((index, token)) => Err(DataError::TokenOutOfRange {
                path: self.path.clone(),
                position: position + index,
                token,
            }),
        }
    }

    /// All tokens.
    ///
    /// # Errors
    /// As for [`Shard::read`].
    pub fn tokens(&self) -> Result<Vec<u16>, DataError> {
        let mut tokens = vec![0; self.len()];
        self.read(0, &mut tokens)?;
        Ok(tokens)
    }

    /// All tokens, block after block. Every block but the last has an even length.
    pub(crate) fn for_each_block(&self, mut look_at: impl FnMut(&[u16])) -> Result<(), DataError> {
        let mut buffer = vec![0; BLOCK_TOKENS.min(self.len())];
        for start in (0..self.len()).step_by(BLOCK_TOKENS) {
            let block = &mut buffer[..BLOCK_TOKENS.min(self.len() - start)];
            self.read(start, block)?;
            look_at(block);
        }
        Ok(())
    }

    fn read_unchecked(&self, position: usize, out: &mut [u16]) -> Result<(), DataError> {
        assert!(
            position + out.len() <= self.len(),
            "{} tokens from {position}",
            out.len()
        );
        let offset = self.offset + 2 * position as u64;
        let bytes = bytemuck::cast_slice_mut(out);
        let read = match &self.file {
            Some(file) => read_exact_at(file, bytes, offset),
            None => File::open(&self.path).and_then(|file| read_exact_at(&file, bytes, offset)),
        };
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => DataError::ShardChanged {
                path: self.path.clone(),
                expected: self.bytes,
            },
            _ => DataError::io("read", &self.path)(error),
        })
    }

    /// Refuses a headerless file that holds anything but 16-bit tokens of GPT-2, as far as that shows.
    fn check_headerless(&self) -> Result<(), DataError> {
        /// Fewer 32-bit numbers than these are no sign of anything.
        const NUMBERS: usize = 16;
        /// Vocabularies end below four times 65,536.
        const HIGH_HALF: u16 = 3;
        let mut first_two = [0; 2];
        let mut foreign = None;
        let mut buffer = vec![0; BLOCK_TOKENS.min(self.len())];
        let mut largest_high_half = 0;
        let mut low_halves = 0;
        for start in (0..self.len()).step_by(BLOCK_TOKENS) {
            let block = &mut buffer[..BLOCK_TOKENS.min(self.len() - start)];
            self.read_unchecked(start, block)?;
            let (pairs, _) = block.as_chunks::<2>();
            if let (0, Some(&pair)) = (start, pairs.first()) {
                first_two = pair;
            }
            largest_high_half = pairs.iter().fold(largest_high_half, |most, pair| most.max(pair[1]));
            low_halves += pairs.iter().filter(|pair| pair[0] != 0).count();
            if foreign.is_none() {
                foreign = first_out_of_range(block).map(|(index, token)| (start + index, token));
            }
        }
        let path = || self.path.clone();
        let numbers = self.len() / 2;
        let is_wide = numbers >= NUMBERS && self.len().is_multiple_of(2) && largest_high_half <= HIGH_HALF;
        // 64-bit numbers have a half that is not 0 in every other pair.
        if is_wide && 4 * low_halves >= numbers {
            return Err(DataError::WideTokens { path: path() });
        }
        if let Some((position, token)) = foreign {
            return Err(DataError::NotATokenFile {
                path: path(),
                found_magic: i32::from(first_two[0]) | i32::from(first_two[1]) << 16,
                position,
                token,
            });
        }
        let vocabulary = self.path.with_file_name(CHARACTER_VOCABULARY_FILE);
        if vocabulary.exists() {
            return Err(DataError::OtherVocabulary {
                path: path(),
                vocabulary,
            });
        }
        Ok(())
    }
}

/// Fills `buffer` from the bytes at `offset`, whatever other threads read of the same file.
#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

/// Fills `buffer` from the bytes at `offset`, whatever other threads read of the same file.
#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !buffer.is_empty() {
        match file.seek_read(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                buffer = &mut buffer[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Tells a shard from a headerless file, and refuses what is neither. `head` is the beginning of a file of `bytes` bytes.
///
/// A headerless file can begin with anything, so "no magic number" alone proves nothing. What gives a foreign header
/// away is a magic number that we know, or the zeros that llm.c's headers are filled up with, which in a headerless
/// file would be 506 exclamation marks. All else is taken for tokens; [`Shard::open`] then looks at each of them.
fn has_header(path: &Path, head: &[u8], bytes: u64) -> Result<bool, DataError> {
    let magic = int(head, 0);
    let path = path.to_path_buf();
    match magic {
        Some(SHARD_MAGIC) => {
            check_header(path, head, bytes)?;
            return Ok(true);
        }
        Some(LLAMA3_MAGIC) => return Err(DataError::Llama3Shard { path }),
        _ => {}
    }
    if let Some(&(found, what)) = OTHER_MAGICS.iter().find(|(known, _)| Some(*known) == magic) {
        return Err(DataError::WrongMagic { path, found, what });
    }
    if head.starts_with(NUMPY_MAGIC) {
        return Err(DataError::NumpyFile { path });
    }
    if head.len() >= HEADER_BYTES && head[12..].iter().all(|&byte| byte == 0) {
        return Err(DataError::WrongMagic {
            path,
            found: magic.unwrap_or_default(),
            what: "unknown",
        });
    }
    if !bytes.is_multiple_of(2) {
        return Err(DataError::OddSize { path, bytes });
    }
    Ok(false)
}

/// Checks a header that begins with our magic number against the file's size.
fn check_header(path: PathBuf, head: &[u8], found: u64) -> Result<(), DataError> {
    let (Some(version), Some(count)) = (int(head, 1), int(head, 2)) else {
        return Err(DataError::ShardSize {
            path,
            tokens: 0,
            expected: HEADER_BYTES as u64,
            found,
        });
    };
    if version != SHARD_VERSION {
        return Err(DataError::ShardVersion { path, found: version });
    }
    // A negative count promises nothing that a file could keep; read as unsigned it fails the test of the size.
    let tokens = u64::from(count.cast_unsigned());
    let expected = HEADER_BYTES as u64 + 2 * tokens;
    if found != expected {
        return Err(DataError::ShardSize {
            path,
            tokens,
            expected,
            found,
        });
    }
    if tokens == 0 {
        return Err(DataError::EmptyShard { path });
    }
    Ok(())
}

/// The `index`th i32 of the file, if it is that long.
fn int(bytes: &[u8], index: usize) -> Option<i32> {
    let word = bytes.get(index * 4..index * 4 + 4)?;
    word.try_into().ok().map(i32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn header(values: &[i32]) -> Vec<u8> {
        let mut bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    fn open_bytes(bytes: &[u8]) -> Result<Vec<u16>, DataError> {
        let file = tempfile::NamedTempFile::new().map_err(DataError::io("create", Path::new("test")))?;
        fs::write(file.path(), bytes).map_err(DataError::io("write", file.path()))?;
        Shard::open(file.path())?.tokens()
    }

    fn error_of(bytes: &[u8]) -> DataError {
        open_bytes(bytes).expect_err("the file must be refused")
    }

    #[test]
    fn headerless_files_are_read() -> Outcome {
        assert_eq!(open_bytes(&[1, 0, 2, 0, 0x50, 0xC4])?, [1, 2, 50_256]);
        assert_eq!(open_bytes(&[9, 0])?, [9]);
        // 512 tokens of zero but for one look like no header.
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[1000] = 1;
        assert_eq!(open_bytes(&bytes)?.len(), 512);
        Ok(())
    }

    #[test]
    fn every_way_to_be_wrong_has_its_error() {
        let with = |values: &[i32], tail: &[u8]| error_of(&[header(values).as_slice(), tail].concat());
        assert!(matches!(error_of(&[]), DataError::EmptyShard { .. }));
        assert!(matches!(with(&[SHARD_MAGIC, 1, 0], &[]), DataError::EmptyShard { .. }));
        assert!(matches!(error_of(&[1, 0, 2]), DataError::OddSize { bytes: 3, .. }));
        assert!(matches!(
            with(&[SHARD_MAGIC, 1, 2], &[1, 0]),
            DataError::ShardSize {
                expected: 1028,
                found: 1026,
                ..
            }
        ));
        assert!(matches!(
            with(&[SHARD_MAGIC, 1, 1], &[1, 0, 2]),
            DataError::ShardSize { found: 1027, .. }
        ));
        assert!(matches!(with(&[SHARD_MAGIC, 1, -1], &[]), DataError::ShardSize { .. }));
        assert!(matches!(
            error_of(&SHARD_MAGIC.to_le_bytes()),
            DataError::ShardSize { found: 4, .. }
        ));
        assert!(matches!(
            with(&[SHARD_MAGIC, 2, 1], &[1, 0]),
            DataError::ShardVersion { found: 2, .. }
        ));
        assert!(matches!(
            with(&[LLAMA3_MAGIC, 7, 1], &[0; 4]),
            DataError::Llama3Shard { .. }
        ));
        assert!(matches!(
            with(&[20_240_326, 3, 1024, 5], &[]),
            DataError::WrongMagic { found: 20_240_326, .. }
        ));
        assert!(matches!(
            with(&[42, 1, 1], &[1, 0]),
            DataError::WrongMagic {
                found: 42,
                what: "unknown",
                ..
            }
        ));
        assert!(matches!(
            with(&[SHARD_MAGIC, 1, 2], &[1, 0, 0x51, 0xC4]),
            DataError::TokenOutOfRange {
                position: 1,
                token: 50_257,
                ..
            }
        ));
        assert!(matches!(
            error_of(b"\x01\x00PK\xff\xff"),
            DataError::NotATokenFile {
                position: 2,
                token: 65_535,
                ..
            }
        ));
        assert!(matches!(Shard::open("no-such-shard.bin"), Err(DataError::Io { .. })));
    }

    #[test]
    fn messages_name_the_file_and_the_fix() {
        let truncated = with_tokens_cut();
        let message = truncated.to_string();
        assert!(
            message.contains("truncated") && message.contains("copy it again"),
            "{message}"
        );
        assert!(!message.contains('\n'), "{message}");
    }

    fn with_tokens_cut() -> DataError {
        error_of(&header(&[SHARD_MAGIC, 1, 10]))
    }

    #[test]
    fn what_headerless_files_look_like_is_said() -> Outcome {
        let tokens: Vec<u32> = (0..400).map(|n| n * 97 % 50_257).collect();
        let wide: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        assert!(matches!(error_of(&wide), DataError::WideTokens { .. }));
        // With a vocabulary of 200,000 the upper halves are not all 0, and lower ones exceed GPT-2's.
        let wider: Vec<u8> = tokens.iter().flat_map(|token| (token * 4).to_le_bytes()).collect();
        assert!(matches!(error_of(&wider), DataError::WideTokens { .. }));
        let widest: Vec<u8> = tokens
            .iter()
            .flat_map(|&token| u64::from(token).to_le_bytes())
            .collect();
        assert!(matches!(error_of(&widest), DataError::WideTokens { .. }));
        let narrow: Vec<u8> = tokens.iter().flat_map(|&token| (token as u16).to_le_bytes()).collect();
        assert_eq!(open_bytes(&narrow)?.len(), 400);

        let numpy = [
            NUMPY_MAGIC,
            b"\x01\x00v\x00{'descr': '<u2', 'fortran_order': False, 'shape': (400,), }",
            &narrow,
        ]
        .concat();
        let message = error_of(&numpy).to_string();
        assert!(message.contains("is a NumPy array with a header"), "{message}");

        let dir = tempfile::tempdir()?;
        let characters: Vec<u8> = (0..400_u16).flat_map(|n| (n % 65).to_le_bytes()).collect();
        fs::write(dir.path().join("train.bin"), &characters)?;
        assert_eq!(Shard::open(dir.path().join("train.bin"))?.len(), 400);
        fs::write(dir.path().join("meta.pkl"), b"\x80\x04}")?;
        let error = Shard::open(dir.path().join("train.bin")).unwrap_err();
        assert!(matches!(error, DataError::OtherVocabulary { .. }), "{error}");
        Ok(())
    }

    #[test]
    fn a_file_that_changes_later_is_an_error() -> Outcome {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a.bin");
        let tokens: Vec<u8> = (0..1000_u16).flat_map(u16::to_le_bytes).collect();
        for released in [false, true] {
            fs::write(&path, &tokens)?;
            let mut shard = Shard::open(&path)?;
            if released {
                shard.release_handle();
            }
            let mut out = [0; 10];
            shard.read(500, &mut out)?;
            assert_eq!(out[..], (500..510).collect::<Vec<u16>>());
            fs::write(&path, [&tokens[..1000], &[0xFF; 1000]].concat())?;
            assert!(matches!(
                shard.read(499, &mut out),
                Err(DataError::TokenOutOfRange {
                    position: 500,
                    token: 65_535,
                    ..
                })
            ));
            for length in [1010, 0] {
                fs::write(&path, &tokens[..length])?;
                let error = shard.read(500, &mut out).unwrap_err();
                assert!(
                    matches!(&error, DataError::ShardChanged { path: named, expected: 2000 } if *named == path),
                    "{error}"
                );
            }
        }
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.bin");
        assert!(
            std::process::Command::new("mkfifo")
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        assert!(matches!(Shard::open(&path), Err(DataError::NotAFile { .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..3_000), magic in any::<bool>()) {
            let mut bytes = bytes;
            if magic && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&SHARD_MAGIC.to_le_bytes());
            }
            if let Ok(tokens) = open_bytes(&bytes) {
                prop_assert!(tokens.iter().all(|&token| usize::from(token) < crate::format::VOCAB_SIZE));
            }
        }
    }
}
