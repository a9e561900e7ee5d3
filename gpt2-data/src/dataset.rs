//! One split of a data directory as one long stream of tokens. How it is cut into windows is `order.rs`, and reading those
//! in the background is `loader.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::manifest::{Manifest, Split};
use crate::order::Windows;
use crate::{DataError, Shard};

/// All shards of a split, in the order of their names, as one stream. They stay mapped while it lives.
#[derive(Debug)]
pub struct TokenStream {
    dir: PathBuf,
    split: Split,
    shards: Vec<Shard>,
    /// Position in the stream after each shard's last token.
    ends: Vec<u64>,
}

impl TokenStream {
    /// Opens the shards of `split` in `dir`: files whose name has the split as a word, such as `fineweb_train_000001.bin`
    /// or `val.bin`. Every token is checked here, so that a bad one is refused before training starts.
    ///
    /// # Errors
    /// If `dir` cannot be listed, holds no shard of the split or lacks one that its manifest names, or if a shard is
    /// damaged.
    pub fn open(dir: impl AsRef<Path>, split: Split) -> Result<Self, DataError> {
        let dir = dir.as_ref();
        let names = shard_names(dir, split)?;
        let shards = names
            .par_iter()
            .map(|name| Shard::open(dir.join(name)))
            .collect::<Result<Vec<_>, _>>()?;
        let ends = shards
            .iter()
            .scan(0, |end, shard| {
                *end += shard.len() as u64;
                Some(*end)
            })
            .collect();
        Ok(Self {
            dir: dir.to_path_buf(),
            split,
            shards,
            ends,
        })
    }

    /// N, the tokens of all shards together.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a stream has at least one shard, and no shard is empty"
    )]
    pub fn len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The shards in the order of the stream.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Which part of the data this is.
    pub fn split(&self) -> Split {
        self.split
    }

    /// The training windows of `seq` inputs in this stream.
    ///
    /// # Errors
    /// [`DataError::StreamTooShort`] if not one fits, [`DataError::InvalidOption`] if `seq` is 0.
    pub fn windows(&self, seq: usize) -> Result<Windows, DataError> {
        if seq == 0 {
            return Err(DataError::InvalidOption {
                option: "--seq",
                value: "0".to_owned(),
                expected: "at least 1",
            });
        }
        Windows::new(self.len(), seq as u64).ok_or_else(|| DataError::StreamTooShort {
            path: self.dir.clone(),
            split: self.split,
            tokens: self.len(),
            seq,
        })
    }

    /// Copies the tokens from position `start` on into `out`, across as many shards as it takes.
    ///
    /// # Panics
    /// If the stream ends before `out` is full.
    pub fn read(&self, start: u64, out: &mut [u16]) {
        let mut index = self.ends.partition_point(|&end| end <= start);
        let before = if index == 0 { 0 } else { self.ends[index - 1] };
        let mut offset = (start - before) as usize;
        let mut filled = 0;
        while filled < out.len() {
            let tokens = &self.shards[index].tokens()[offset..];
            let count = tokens.len().min(out.len() - filled);
            out[filled..filled + count].copy_from_slice(&tokens[..count]);
            filled += count;
            index += 1;
            offset = 0;
        }
    }
}

/// The names of a split's shards, sorted.
fn shard_names(dir: &Path, split: Split) -> Result<Vec<String>, DataError> {
    if !dir.is_dir() {
        return Err(DataError::MissingDataDirectory {
            path: dir.to_path_buf(),
        });
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(DataError::io("list", dir))? {
        let name = entry.map_err(DataError::io("list", dir))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort_unstable();
    let shards: Vec<String> = names
        .iter()
        .filter(|name| Split::of_file_name(name) == Some(split))
        .cloned()
        .collect();
    if shards.is_empty() {
        return Err(DataError::NoShards {
            path: dir.to_path_buf(),
            split,
            found: names,
        });
    }
    // A shard that went missing would change the order of all windows without a word.
    if let Some(manifest) = Manifest::read(dir)? {
        for listed in &manifest.split(split).shards {
            if !shards.contains(&listed.file) {
                return Err(DataError::ShardMissing {
                    path: dir.join(&listed.file),
                });
            }
        }
    }
    Ok(shards)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ShardManifest, ShardWriter};

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn shard(dir: &Path, name: &str, tokens: &[u16]) -> Result<(), DataError> {
        let mut writer = ShardWriter::create(dir.join(name))?;
        writer.extend(tokens)?;
        writer.finish().map(|_| ())
    }

    #[test]
    fn shards_join_in_the_order_of_their_names() -> Outcome {
        let dir = tempfile::tempdir()?;
        shard(dir.path(), "fineweb_train_000002.bin", &[5, 6])?;
        shard(dir.path(), "fineweb_train_000001.bin", &[1, 2, 3, 4])?;
        shard(dir.path(), "fineweb_val_000000.bin", &[9])?;
        // nanoGPT's: no header.
        fs::write(dir.path().join("train.bin"), [7, 0, 8, 0])?;
        fs::write(dir.path().join("notes.txt"), "not tokens")?;
        let stream = TokenStream::open(dir.path(), Split::Train)?;
        assert_eq!(
            (stream.len(), stream.shards().len(), stream.split()),
            (8, 3, Split::Train)
        );
        let mut all = [0; 8];
        stream.read(0, &mut all);
        assert_eq!(all, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(TokenStream::open(dir.path(), Split::Val)?.len(), 1);
        Ok(())
    }

    #[test]
    fn what_is_missing_is_named() -> Outcome {
        let dir = tempfile::tempdir()?;
        let error = TokenStream::open(dir.path().join("nowhere"), Split::Train).unwrap_err();
        assert!(matches!(error, DataError::MissingDataDirectory { .. }), "{error}");

        let error = TokenStream::open(dir.path(), Split::Train).unwrap_err();
        assert!(error.to_string().contains("the directory is empty"), "{error}");

        shard(dir.path(), "val.bin", &[1, 2])?;
        let error = TokenStream::open(dir.path(), Split::Train).unwrap_err();
        assert!(
            matches!(&error, DataError::NoShards { found, .. } if found == &["val.bin"]),
            "{error}"
        );
        assert!(error.to_string().contains("val.bin"), "{error}");

        let mut manifest = Manifest::new();
        let listed = ShardManifest {
            file: "x_val_000001.bin".to_owned(),
            tokens: 1,
            sha256: String::new(),
        };
        manifest.val.shards.push(listed);
        manifest.write(dir.path())?;
        let error = TokenStream::open(dir.path(), Split::Val).unwrap_err();
        assert!(
            matches!(&error, DataError::ShardMissing { path } if path.ends_with("x_val_000001.bin")),
            "{error}"
        );
        Ok(())
    }

    #[test]
    fn a_stream_shorter_than_a_window_is_refused() -> Outcome {
        let dir = tempfile::tempdir()?;
        shard(dir.path(), "train.bin", &[1, 2, 3])?;
        let stream = TokenStream::open(dir.path(), Split::Train)?;
        let error = stream.windows(3).unwrap_err();
        assert!(
            matches!(error, DataError::StreamTooShort { tokens: 3, seq: 3, .. }),
            "{error}"
        );
        assert!(matches!(
            stream.windows(0),
            Err(DataError::InvalidOption { option: "--seq", .. })
        ));
        assert_eq!(stream.windows(2)?.count(), 1);
        Ok(())
    }

    #[test]
    fn a_token_out_of_range_is_refused_when_the_stream_opens() -> Outcome {
        let dir = tempfile::tempdir()?;
        shard(dir.path(), "a_train.bin", &[1, 2, 3])?;
        let path = dir.path().join("a_train.bin");
        let mut bytes = fs::read(&path)?;
        let end = bytes.len();
        bytes[end - 2..].copy_from_slice(&50_257_u16.to_le_bytes());
        fs::write(&path, bytes)?;
        let error = TokenStream::open(dir.path(), Split::Train).unwrap_err();
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
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn reading_anywhere_equals_the_joined_tokens(
            lengths in prop::collection::vec(1_usize..9, 1..5), from in 0_usize..40, count in 0_usize..40,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let total: usize = lengths.iter().sum();
            let all: Vec<u16> = (0..total).map(|t| t as u16).collect();
            let mut rest = all.as_slice();
            for (index, &length) in lengths.iter().enumerate() {
                let (tokens, after) = rest.split_at(length);
                shard(dir.path(), &format!("s_train_{index:06}.bin"), tokens).unwrap();
                rest = after;
            }
            let from = from.min(total);
            let count = count.min(total - from);
            let mut read = vec![0; count];
            TokenStream::open(dir.path(), Split::Train).unwrap().read(from as u64, &mut read);
            prop_assert_eq!(&read, &all[from..from + count]);
        }
    }
}
