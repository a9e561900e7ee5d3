//! One split of a data directory as one long stream of tokens. How it is cut into windows is `order.rs`, and reading those
//! in the background is `loader.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use gpt2_base::Invalid;
use rayon::prelude::*;
use serde::Deserialize;

use crate::error::DataError;
use crate::format::{PROGRESS_FILE, Split};
use crate::manifest::{Manifest, read_json};
use crate::order::Windows;
use crate::shard::Shard;

/// So many shards are kept open; systems allow a process some 1000 files. Those beyond are opened for each read.
const OPEN_SHARDS: usize = 256;

/// All shards of a split, in the order of their names, as one stream.
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
    /// If `dir` cannot be listed or holds no shard of the split, if its preparation is not finished, if its shards are not
    /// those of its manifest, or if a shard is damaged.
    pub fn open(dir: impl AsRef<Path>, split: Split) -> Result<Self, DataError> {
        let dir = dir.as_ref();
        let names = shard_names(dir, split)?;
        let manifest = Manifest::read(dir)?;
        check_finished(dir, manifest.as_ref())?;
        if let Some(manifest) = &manifest {
            check_names(dir, manifest)?;
        }
        let shards = names
            .par_iter()
            .enumerate()
            .map(|(index, name)| {
                let mut shard = Shard::open(dir.join(name))?;
                if index >= OPEN_SHARDS {
                    shard.release_handle();
                }
                check_tokens(&shard, name, split, manifest.as_ref())?;
                Ok(shard)
            })
            .collect::<Result<Vec<_>, DataError>>()?;
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
    /// [`DataError::StreamTooShort`] if not one fits, [`DataError::Invalid`] if `seq` is 0.
    pub fn windows(&self, seq: usize) -> Result<Windows, DataError> {
        if seq == 0 {
            return Err(Invalid::new("seq", &0, "at least 1").into());
        }
        Windows::new(self.len(), seq as u64).ok_or_else(|| DataError::StreamTooShort {
            path: self.dir.clone(),
            split: self.split,
            tokens: self.len(),
            seq,
        })
    }

    /// Reads the tokens from position `start` on into `out`, across as many shards as it takes.
    ///
    /// # Errors
    /// As for [`Shard::read`].
    ///
    /// # Panics
    /// If the stream ends before `out` is full.
    pub fn read(&self, start: u64, out: &mut [u16]) -> Result<(), DataError> {
        let mut index = self.ends.partition_point(|&end| end <= start);
        let before = if index == 0 { 0 } else { self.ends[index - 1] };
        let mut offset = (start - before) as usize;
        let mut filled = 0;
        while filled < out.len() {
            let shard = &self.shards[index];
            let count = (shard.len() - offset).min(out.len() - filled);
            shard.read(offset, &mut out[filled..filled + count])?;
            filled += count;
            index += 1;
            offset = 0;
        }
        Ok(())
    }
}

/// The names in a directory, sorted.
fn file_names(dir: &Path) -> Result<Vec<String>, DataError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(DataError::io("list", dir))? {
        let name = entry.map_err(DataError::io("list", dir))?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

/// The names of a split's shards, sorted.
pub(crate) fn shard_names(dir: &Path, split: Split) -> Result<Vec<String>, DataError> {
    if !dir.is_dir() {
        return Err(DataError::MissingDataDirectory {
            path: dir.to_path_buf(),
        });
    }
    let names = file_names(dir)?;
    let shards: Vec<String> = names
        .iter()
        .filter(|name| Split::of_file_name(name) == Some(split))
        .cloned()
        .collect();
    if shards.is_empty() {
        // Before the first shard is finished there is none either.
        check_finished(dir, Manifest::read(dir)?.as_ref())?;
        return Err(DataError::NoShards {
            path: dir.to_path_buf(),
            split,
            found: names,
        });
    }
    Ok(shards)
}

/// Refuses a directory whose preparation was interrupted or still goes on: some of its text is missing.
fn check_finished(dir: &Path, manifest: Option<&Manifest>) -> Result<(), DataError> {
    #[derive(Deserialize)]
    struct Begun {
        manifest: Manifest,
    }
    if manifest.is_some() {
        return Ok(());
    }
    match read_json::<Begun>(&dir.join(PROGRESS_FILE))? {
        None => Ok(()),
        Some(Begun { manifest }) => Err(DataError::Unfinished {
            path: dir.to_path_buf(),
            sources: manifest.sources.into_iter().map(|source| source.path).collect(),
            options: manifest.options,
        }),
    }
}

/// Compares the names in the directory with those in its manifest, of both splits: a shard that went missing, or one
/// that was put there, would change the order of all windows without a word.
fn check_names(dir: &Path, manifest: &Manifest) -> Result<(), DataError> {
    let names = file_names(dir)?;
    let listed = |name: &str| {
        Split::ALL
            .iter()
            .flat_map(|&split| &manifest.split(split).shards)
            .any(|shard| shard.file == name)
    };
    for shard in Split::ALL.iter().flat_map(|&split| &manifest.split(split).shards) {
        if !names.contains(&shard.file) {
            return Err(DataError::ShardMissing {
                path: dir.join(&shard.file),
            });
        }
    }
    let is_shard = |name: &str| Path::new(name).extension().is_some_and(|extension| extension == "bin");
    match names.iter().find(|name| is_shard(name) && !listed(name)) {
        None => Ok(()),
        Some(name) => Err(DataError::ShardUnlisted { path: dir.join(name) }),
    }
}

fn check_tokens(shard: &Shard, name: &str, split: Split, manifest: Option<&Manifest>) -> Result<(), DataError> {
    let found = shard.len() as u64;
    let listed = manifest.and_then(|manifest| manifest.split(split).shards.iter().find(|listed| listed.file == name));
    match listed {
        Some(listed) if listed.tokens != found => Err(DataError::ShardTokens {
            path: shard.path().to_path_buf(),
            expected: listed.tokens,
            found,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::ShardManifest;
    use crate::shard_writer::ShardWriter;

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
        stream.read(0, &mut all)?;
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
    fn only_what_the_manifest_lists_is_read() -> Outcome {
        let dir = tempfile::tempdir()?;
        shard(dir.path(), "x_train_000000.bin", &[1, 2])?;
        shard(dir.path(), "x_val_000000.bin", &[3])?;
        let listed = |file: &str, tokens| ShardManifest::of_file(&dir.path().join(file), tokens);
        let mut manifest = Manifest::new();
        manifest.train.shards.push(listed("x_train_000000.bin", 2)?);
        manifest.val.shards.push(listed("x_val_000000.bin", 1)?);
        manifest.write(dir.path())?;
        assert_eq!(TokenStream::open(dir.path(), Split::Train)?.len(), 2);

        // In either split, and with a name that tells none.
        for stray in ["y_train_000000.bin", "x_val_000001.bin", "stray.bin"] {
            shard(dir.path(), stray, &[4])?;
            let error = TokenStream::open(dir.path(), Split::Train).unwrap_err();
            assert!(
                matches!(&error, DataError::ShardUnlisted { path } if path.ends_with(stray)),
                "{error}"
            );
            fs::remove_file(dir.path().join(stray))?;
        }

        shard(dir.path(), "x_train_000000.bin", &[1, 2, 3])?;
        let error = TokenStream::open(dir.path(), Split::Train).unwrap_err();
        assert!(
            matches!(
                error,
                DataError::ShardTokens {
                    expected: 2,
                    found: 3,
                    ..
                }
            ),
            "{error}"
        );
        Ok(())
    }

    #[test]
    fn more_shards_than_files_may_be_open_are_read() -> Outcome {
        let dir = tempfile::tempdir()?;
        let count = OPEN_SHARDS as u16 + 3;
        for number in 0..count {
            fs::write(
                dir.path().join(format!("x_train_{number:06}.bin")),
                number.to_le_bytes(),
            )?;
        }
        let stream = TokenStream::open(dir.path(), Split::Train)?;
        let mut all = vec![0; usize::from(count)];
        stream.read(0, &mut all)?;
        assert_eq!(all, (0..count).collect::<Vec<_>>());
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
            Err(DataError::Invalid(Invalid { key, .. })) if key == "seq"
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
            TokenStream::open(dir.path(), Split::Train).unwrap().read(from as u64, &mut read).unwrap();
            prop_assert_eq!(&read, &all[from..from + count]);
        }
    }
}
