//! Token shards: llm.c's format (header and 16-bit tokens) and nanoGPT's headerless files, read.
//!
//! An open [`Shard`] is proof that every token in it is one of GPT-2's, so nothing downstream needs to check again.
//! Writing is `shard_writer.rs`. Which shards belong together, and in what order windows of them are trained on, is
//! decided elsewhere.
//!
//! The format, all little-endian: 256 × i32, of which `[0]` is the magic number, `[1]` the version, `[2]` the token
//! count and the rest zero; then that many u16. The file is exactly `1024 + 2 * tokens` bytes.

use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::DataError;
use crate::tokenizer::VOCAB_SIZE;

#[cfg(target_endian = "big")]
compile_error!("shards are mapped into memory as little-endian 16-bit tokens");

/// The first number of a shard (llm.c, `dataloader.h`).
pub const SHARD_MAGIC: i32 = 20_240_520;
/// The only version of it.
pub const SHARD_VERSION: i32 = 1;
/// The first number of llm.c's Llama 3 shards, whose tokens have 32 bits. They are recognised to be refused.
pub const LLAMA3_MAGIC: i32 = 20_240_801;
/// Size of the header.
pub const HEADER_BYTES: usize = 256 * 4;
/// The most tokens a shard can hold: the header counts in an i32.
pub const MAX_SHARD_TOKENS: u64 = i32::MAX as u64;

/// Other files of llm.c that also end in `.bin`, so that a mix-up is named.
const OTHER_MAGICS: [(i32, &str); 4] = [
    (20_240_522, "multiple-choice questions of llm.c"),
    (20_240_326, "a model of llm.c"),
    (20_240_327, "a debug state of llm.c"),
    (20_240_328, "a tokenizer of llm.c"),
];

/// A token file, mapped into memory and checked.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    map: Mmap,
    /// Where the tokens begin: 1024, or 0 in a headerless file.
    offset: usize,
}

impl Shard {
    /// Maps a token file and checks all of it: the header if it has one, the size, and that each token is GPT-2's.
    ///
    /// The check reads the whole file once. That is the price for refusing a bad shard before training instead of
    /// in the middle of it, and it brings the file into the page cache.
    ///
    /// # Errors
    /// If the file cannot be read, is empty, truncated or of odd size, has a foreign header, or holds a token that
    /// GPT-2 does not have.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DataError> {
        let path = path.into();
        let file = File::open(&path).map_err(DataError::io("open", &path))?;
        let bytes = file.metadata().map_err(DataError::io("read", &path))?.len();
        if bytes == 0 {
            return Err(DataError::EmptyShard { path });
        }
        // SAFETY: the map is only read. Nothing in this project writes to a shard after its rename; another process
        // that shortens the file while we train would end us with SIGBUS, as it would any program that maps files.
        let map = unsafe { Mmap::map(&file) }.map_err(DataError::io("map", &path))?;

        let offset = if has_header(&path, &map)? { HEADER_BYTES } else { 0 };
        let shard = Self { path, map, offset };
        shard.check_tokens()?;
        Ok(shard)
    }

    /// The tokens.
    pub fn tokens(&self) -> &[u16] {
        // A map is aligned to a page and the header is 1024 bytes; `open` refused an odd size.
        bytemuck::cast_slice(&self.map[self.offset..])
    }

    /// How many tokens there are, at least one.
    #[expect(clippy::len_without_is_empty, reason = "an open shard is never empty")]
    pub fn len(&self) -> usize {
        (self.map.len() - self.offset) / 2
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check_tokens(&self) -> Result<(), DataError> {
        let Some((position, token)) = first_out_of_range(self.tokens()) else {
            return Ok(());
        };
        let path = self.path.clone();
        Err(if self.offset == 0 {
            DataError::NotATokenFile {
                path,
                found_magic: int(&self.map, 0).unwrap_or_default(),
                position,
                token,
            }
        } else {
            DataError::TokenOutOfRange { path, position, token }
        })
    }
}

/// Tells a shard from a headerless file, and refuses what is neither.
///
/// A headerless file can begin with anything, so "no magic number" alone proves nothing. What gives a foreign header
/// away is a magic number that we know, or the zeros that llm.c's headers are filled up with, which in a headerless
/// file would be 506 exclamation marks. All else is taken for tokens; [`Shard::open`] then looks at each of them.
fn has_header(path: &Path, map: &[u8]) -> Result<bool, DataError> {
    let magic = int(map, 0);
    let path = path.to_path_buf();
    match magic {
        Some(SHARD_MAGIC) => {
            check_header(path, map)?;
            return Ok(true);
        }
        Some(LLAMA3_MAGIC) => return Err(DataError::Llama3Shard { path }),
        _ => {}
    }
    if let Some(&(found, what)) = OTHER_MAGICS.iter().find(|(known, _)| Some(*known) == magic) {
        return Err(DataError::WrongMagic { path, found, what });
    }
    if map.len() >= HEADER_BYTES && map[12..HEADER_BYTES].iter().all(|&byte| byte == 0) {
        return Err(DataError::WrongMagic {
            path,
            found: magic.unwrap_or_default(),
            what: "unknown",
        });
    }
    if !map.len().is_multiple_of(2) {
        return Err(DataError::OddSize {
            path,
            bytes: map.len() as u64,
        });
    }
    Ok(false)
}

/// Checks a header that begins with our magic number against the file's size.
fn check_header(path: PathBuf, map: &[u8]) -> Result<(), DataError> {
    let found = map.len() as u64;
    let (Some(version), Some(count)) = (int(map, 1), int(map, 2)) else {
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

/// The first token that GPT-2 does not have. The maximum of a block is a loop that the compiler vectorises, which a
/// search with early exit is not; so the search is left to the one block that needs it.
pub(crate) fn first_out_of_range(tokens: &[u16]) -> Option<(usize, u16)> {
    const BLOCK: usize = 1 << 14;
    let out_of_range = |token: u16| usize::from(token) >= VOCAB_SIZE;
    tokens.chunks(BLOCK).enumerate().find_map(|(block, chunk)| {
        let maximum = chunk.iter().fold(0, |maximum, &token| maximum.max(token));
        if !out_of_range(maximum) {
            return None;
        }
        let position = chunk.iter().position(|&token| out_of_range(token))?;
        Some((block * BLOCK + position, chunk[position]))
    })
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
        std::fs::write(file.path(), bytes).map_err(DataError::io("write", file.path()))?;
        Shard::open(file.path()).map(|shard| shard.tokens().to_vec())
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
    fn messages_name_the_file_and_the_mend() {
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
    fn the_first_bad_token_is_found_in_any_block() {
        let mut tokens = vec![5u16; 100_000];
        assert_eq!(first_out_of_range(&tokens), None);
        tokens[70_001] = 60_000;
        tokens[99_999] = 50_257;
        assert_eq!(first_out_of_range(&tokens), Some((70_001, 60_000)));
    }

    proptest! {

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..3_000), magic in any::<bool>()) {
            let mut bytes = bytes;
            if magic && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&SHARD_MAGIC.to_le_bytes());
            }
            if let Ok(tokens) = open_bytes(&bytes) {
                prop_assert!(tokens.iter().all(|&token| usize::from(token) < VOCAB_SIZE));
            }
        }
    }
}
