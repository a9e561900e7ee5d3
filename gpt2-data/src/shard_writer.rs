//! Writing llm.c's token shards. The format is described, and read, in `shard.rs`.

use std::io::{BufWriter, IntoInnerError, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use gpt2_base::fs::NewFile;

use crate::error::DataError;
use crate::format::{HEADER_BYTES, MAX_SHARD_TOKENS, SHARD_MAGIC, SHARD_VERSION, first_out_of_range};

/// Writes a shard token by token. It appears under its name only by [`ShardWriter::finish`]; a writer that is dropped
/// before that removes what it wrote.
#[derive(Debug)]
pub struct ShardWriter {
    path: PathBuf,
    file: BufWriter<NewFile>,
    tokens: u64,
}

impl ShardWriter {
    /// Begins a shard that will be named `path`.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, DataError> {
        let path = path.into();
        let file = NewFile::create(&path).map_err(DataError::io("create", &path))?;
        let mut file = BufWriter::with_capacity(1 << 18, file);
        // Room for the header, which is written last because it holds the count.
        file.write_all(&[0; HEADER_BYTES])
            .map_err(DataError::io("write", &path))?;
        Ok(Self { path, file, tokens: 0 })
    }

    /// Appends tokens.
    ///
    /// # Errors
    /// If a token is not one of GPT-2's, the shard grows past [`MAX_SHARD_TOKENS`], or the disk is full.
    pub fn extend(&mut self, tokens: &[u16]) -> Result<(), DataError> {
        if let Some((position, token)) = first_out_of_range(tokens) {
            let position = self.tokens as usize + position;
            return Err(DataError::TokenOutOfRange {
                path: self.path.clone(),
                position,
                token,
            });
        }
        let total = self.tokens + tokens.len() as u64;
        if total > MAX_SHARD_TOKENS {
            return Err(DataError::ShardTooLong {
                path: self.path.clone(),
                tokens: total,
                limit: MAX_SHARD_TOKENS,
            });
        }
        self.file
            .write_all(bytemuck::cast_slice(tokens))
            .map_err(DataError::io("write", &self.path))?;
        self.tokens = total;
        Ok(())
    }

    /// Appends one token.
    ///
    /// # Errors
    /// As for [`ShardWriter::extend`].
    pub fn push(&mut self, token: u16) -> Result<(), DataError> {
        self.extend(&[token])
    }

    /// How many tokens were appended so far.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The name that the shard will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the header, makes the file durable and gives it its name. Returns the number of tokens.
    ///
    /// # Errors
    /// If there are no tokens, or the disk is full.
    pub fn finish(mut self) -> Result<u64, DataError> {
        if self.tokens == 0 {
            return Err(DataError::EmptyShard {
                path: self.path.clone(),
            });
        }
        // `extend` keeps the count within an i32.
        let count = self.tokens as i32;
        let mut header = [0; HEADER_BYTES];
        for (slot, value) in header.chunks_exact_mut(4).zip([SHARD_MAGIC, SHARD_VERSION, count]) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        let write = DataError::io("write", &self.path);
        let written = self
            .file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.write_all(&header))
            .and_then(|()| self.file.into_inner().map_err(IntoInnerError::into_error))
            .and_then(NewFile::commit);
        written.map_err(write)?;
        Ok(self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Shard;
    use proptest::prelude::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn the_header_is_llm_cs() -> Outcome {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a.bin");
        let mut writer = ShardWriter::create(&path)?;
        writer.extend(&[50256, 1])?;
        writer.push(2)?;
        assert!(!path.exists(), "the shard must not appear before it is finished");
        assert_eq!(writer.finish()?, 3);
        let mut expected = [20_240_520i32, 1, 3].map(i32::to_le_bytes).concat();
        expected.resize(1024, 0);
        expected.extend([0x50, 0xC4, 1, 0, 2, 0]);
        assert_eq!(std::fs::read(&path)?, expected);
        assert_eq!(Shard::open(&path)?.len(), 3);
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn a_dropped_writer_leaves_nothing() -> Outcome {
        let dir = tempfile::tempdir()?;
        let mut writer = ShardWriter::create(dir.path().join("a.bin"))?;
        writer.push(1)?;
        drop(writer);
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 0);
        Ok(())
    }

    #[test]
    fn a_writer_refuses_foreign_tokens_too_many_and_none() -> Outcome {
        let dir = tempfile::tempdir()?;
        let mut writer = ShardWriter::create(dir.path().join("a.bin"))?;
        writer.push(7)?;
        let error = writer.extend(&[1, 50_257]).unwrap_err();
        assert!(
            matches!(
                error,
                DataError::TokenOutOfRange {
                    position: 2,
                    token: 50_257,
                    ..
                }
            ),
            "{error}"
        );
        writer.tokens = MAX_SHARD_TOKENS;
        assert!(matches!(writer.push(1), Err(DataError::ShardTooLong { .. })));
        let empty = ShardWriter::create(dir.path().join("b.bin"))?;
        assert!(matches!(empty.finish(), Err(DataError::EmptyShard { .. })));
        Ok(())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(tokens in prop::collection::vec(0u16..50_257, 1..2_000), cut in 0usize..2_000) {
            let dir = tempfile::tempdir()?;
            let path = dir.path().join("a.bin");
            let mut writer = ShardWriter::create(&path)?;
            let (head, tail) = tokens.split_at(cut.min(tokens.len()));
            writer.extend(head)?;
            writer.extend(tail)?;
            writer.finish()?;
            let shard = Shard::open(&path)?;
            prop_assert_eq!(shard.tokens()?, tokens);
        }
    }
}
