//! What a data set is, wherever it lies.

use std::fmt::Write;
use std::path::Path;

use gpt2_base::fs::sha256;
use serde::{Deserialize, Serialize};

use crate::dataset::shard_names;
use crate::error::DataError;
use crate::format::Split;
use crate::manifest::Manifest;
use crate::shard::Shard;

/// Tokens read at each end of a shard that no manifest describes.
const END_TOKENS: usize = 1 << 15;

/// Tells whether two directories hold the same tokens in the same order: two equal identities mean the same training.
///
/// It depends on the content of the shards and their order alone, neither on the directory's path nor on when and by
/// which version it was prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataIdentity {
    /// Tokens to train on.
    pub train_tokens: u64,
    /// Tokens to validate on; 0 if there are none.
    pub val_tokens: u64,
    /// SHA-256, in hexadecimal, of the description of all shards.
    pub sha256: String,
}

impl DataIdentity {
    /// The identity of the data in `dir`. With a manifest it is made of the hashes in it. Without one, as shards of
    /// llm.c and nanoGPT are, it is made of the size of each shard and its first and last 32,768 tokens: enough to tell
    /// data sets apart, not to find a changed token.
    ///
    /// # Errors
    /// If there is no manifest and no training shard, or if the manifest or a shard cannot be read.
    pub fn of(dir: impl AsRef<Path>) -> Result<Self, DataError> {
        let dir = dir.as_ref();
        let manifest = Manifest::read(dir)?;
        let mut description = String::new();
        let mut totals = [0; 2];
        for (split, total) in Split::ALL.into_iter().zip(&mut totals) {
            let shards = match &manifest {
                Some(manifest) => listed_shards(manifest, split),
                None => found_shards(dir, split)?,
            };
            for (tokens, hash) in shards {
                *total += tokens;
                // Writing to a string cannot fail.
                let _ = writeln!(description, "{split} {tokens} {hash}");
            }
        }
        let [train_tokens, val_tokens] = totals;
        Ok(Self {
            train_tokens,
            val_tokens,
            sha256: sha256(description.as_bytes()),
        })
    }
}

/// Token counts and hashes of a split's shards by the manifest, in the order of the stream.
fn listed_shards(manifest: &Manifest, split: Split) -> Vec<(u64, String)> {
    let mut shards: Vec<_> = manifest.split(split).shards.iter().collect();
    shards.sort_by(|a, b| a.file.cmp(&b.file));
    shards
        .into_iter()
        .map(|shard| (shard.tokens, shard.sha256.clone()))
        .collect()
}

/// Token counts and hashes of the ends of the shards that lie in `dir`, in the order of the stream.
fn found_shards(dir: &Path, split: Split) -> Result<Vec<(u64, String)>, DataError> {
    let names = match shard_names(dir, split) {
        // Validation data may be absent.
        Err(DataError::NoShards { .. }) if split == Split::Val => Vec::new(),
        names => names?,
    };
    names.iter().map(|name| ends_of(&dir.join(name))).collect()
}

fn ends_of(path: &Path) -> Result<(u64, String), DataError> {
    let shard = Shard::open_header(path)?;
    let mut ends = vec![0; 2 * shard.len().min(END_TOKENS)];
    let (first, last) = ends.split_at_mut(shard.len().min(END_TOKENS));
    shard.read(0, first)?;
    shard.read(shard.len() - last.len(), last)?;
    Ok((shard.len() as u64, sha256(bytemuck::cast_slice(&ends))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ShardManifest;
    use crate::shard_writer::ShardWriter;
    use std::fs;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn tokens(count: u16) -> Vec<u16> {
        (0..count).map(|n| n.wrapping_mul(17) % 50_000).collect()
    }

    /// A directory of shards, with or without a manifest.
    fn data(shards: &[(&str, &[u16])], listed: bool) -> Result<tempfile::TempDir, Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let mut manifest = Manifest::new();
        for (name, tokens) in shards {
            let path = dir.path().join(name);
            let mut writer = ShardWriter::create(&path)?;
            writer.extend(tokens)?;
            let count = writer.finish()?;
            let split = Split::of_file_name(name).ok_or("no split")?;
            let entry = manifest.split_mut(split);
            entry.shards.push(ShardManifest::of_file(&path, count)?);
        }
        if listed {
            manifest.write(dir.path())?;
        }
        Ok(dir)
    }

    #[test]
    fn the_same_content_is_the_same_wherever_it_lies() -> Outcome {
        let long = tokens(60_000);
        for listed in [true, false] {
            let shards: [(&str, &[u16]); 3] = [
                ("a_train_0.bin", &[1, 2]),
                ("a_train_1.bin", &long),
                ("a_val_0.bin", &[3]),
            ];
            let one = data(&shards, listed)?;
            let identity = DataIdentity::of(one.path())?;
            assert_eq!((identity.train_tokens, identity.val_tokens), (60_002, 1));

            let moved = tempfile::tempdir()?;
            fs::rename(one.path(), moved.path().join("elsewhere"))?;
            assert_eq!(DataIdentity::of(moved.path().join("elsewhere"))?, identity);

            // Order, content, a shard more, another split.
            let mut changed = long.clone();
            changed[59_000] += 1;
            let others: [&[(&str, &[u16])]; 5] = [
                &[
                    ("a_train_0.bin", &long),
                    ("a_train_1.bin", &[1, 2]),
                    ("a_val_0.bin", &[3]),
                ],
                &[
                    ("a_train_0.bin", &[1, 2]),
                    ("a_train_1.bin", &changed),
                    ("a_val_0.bin", &[3]),
                ],
                &[
                    ("a_train_0.bin", &[1, 2]),
                    ("a_train_1.bin", &long),
                    ("a_val_0.bin", &[4]),
                ],
                &[("a_train_0.bin", &[1, 2]), ("a_train_1.bin", &long)],
                &[
                    ("a_train_0.bin", &[1, 2]),
                    ("a_train_1.bin", &long),
                    ("a_train_2.bin", &[3]),
                ],
            ];
            for other in others {
                assert_ne!(DataIdentity::of(data(other, listed)?.path())?, identity, "{listed}");
            }
        }
        Ok(())
    }

    #[test]
    fn it_survives_the_way_to_json_and_back() -> Outcome {
        let identity = DataIdentity::of(data(&[("train.bin", &[1, 2])], false)?.path())?;
        assert_eq!(identity.val_tokens, 0);
        assert_eq!(
            serde_json::from_str::<DataIdentity>(&serde_json::to_string(&identity)?)?,
            identity
        );
        Ok(())
    }

    #[test]
    fn without_training_data_there_is_none() -> Outcome {
        let dir = data(&[("val.bin", &[1, 2])], false)?;
        assert!(matches!(DataIdentity::of(dir.path()), Err(DataError::NoShards { .. })));
        Ok(())
    }
}
