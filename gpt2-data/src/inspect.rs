//! A look into a directory of shards: what there is, a sample of the text, and all the damage there is.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use gpt2_base::fs::TEMPORARY_SUFFIX;
use rayon::prelude::*;

use crate::error::DataError;
use crate::format::{PROGRESS_FILE, Split, documents};
use crate::manifest::{Manifest, ShardManifest, sha256_file};
use crate::shard::Shard;
use crate::tokenizer::Tokenizer;

/// How many tokens of each split are decoded for a sample.
const SAMPLE_TOKENS: usize = 100;

/// What a directory holds.
#[derive(Debug)]
pub struct Inspection {
    /// The directory.
    pub dir: PathBuf,
    /// Its manifest; shards of other programs have none.
    pub manifest: Option<Manifest>,
    /// The splits that have readable shards.
    pub splits: Vec<SplitInspection>,
    /// All that is wrong, empty if the data can be trusted.
    pub damage: Vec<Damage>,
}

/// The readable shards of one split.
#[derive(Debug)]
pub struct SplitInspection {
    /// Which split.
    pub split: Split,
    /// Documents in all shards, counted by `<|endoftext|>`.
    pub documents: u64,
    /// Tokens in all shards.
    pub tokens: u64,
    /// The shards in the order of their names.
    pub shards: Vec<ShardInspection>,
    /// The beginning of the first shard as text.
    pub sample: String,
}

/// One readable shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardInspection {
    /// File name.
    pub file: String,
    /// Documents that begin in it.
    pub documents: u64,
    /// Tokens in it.
    pub tokens: u64,
}

/// One thing that is wrong with a directory.
#[derive(Debug)]
pub enum Damage {
    /// A file is no readable shard.
    Unreadable(DataError),
    /// The manifest names a shard that is not there.
    Missing {
        /// The shard.
        file: String,
    },
    /// There is a shard that the manifest does not name.
    Unlisted {
        /// The shard.
        file: String,
    },
    /// A `.bin` file whose name does not tell the split.
    NoSplit {
        /// The file.
        file: String,
    },
    /// A shard has another token count than the manifest says.
    TokenCount {
        /// The shard.
        file: String,
        /// The count in the manifest.
        expected: u64,
        /// The count in the file.
        found: u64,
    },
    /// A shard's content is not what was written.
    Hash {
        /// The shard.
        file: String,
    },
    /// The counts of a split in the manifest do not add up.
    SplitCount {
        /// The split.
        split: Split,
        /// What is counted: tokens or documents.
        what: &'static str,
        /// The count in the manifest.
        expected: u64,
        /// The count in the shards.
        found: u64,
    },
    /// A preparation was interrupted.
    Unfinished,
    /// Half a file, left by a program that was killed.
    Leftover {
        /// The file.
        file: String,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => error.fmt(f),
            Self::Missing { file } => write!(f, "{file} is missing, but the manifest lists it"),
            Self::Unlisted { file } => write!(f, "{file} is not listed in the manifest"),
            Self::NoSplit { file } => write!(
                f,
                "{file} is no shard of a split: its name has neither `train` nor `val`"
            ),
            Self::TokenCount { file, expected, found } => {
                write!(f, "{file} has {found} tokens, but {expected} in the manifest")
            }
            Self::Hash { file } => write!(
                f,
                "{file} was changed since it was written: its hash is not the manifest's"
            ),
            Self::SplitCount {
                split,
                what,
                expected,
                found,
            } => {
                write!(f, "split {split} has {found} {what}, but {expected} in the manifest")
            }
            Self::Unfinished => f.write_str("the preparation was interrupted and can be resumed"),
            Self::Leftover { file } => write!(f, "{file} is half a file, left by an interrupted run"),
        }
    }
}

/// Reads all shards of a directory and compares them with its manifest, if it has one.
///
/// # Errors
/// If the directory cannot be listed, holds no shards at all, or has a manifest that does not parse. Whatever is wrong
/// with single shards is found in [`Inspection::damage`].
pub fn inspect(dir: &Path) -> Result<Inspection, DataError> {
    let names = file_names(dir)?;
    let manifest = Manifest::read(dir)?;
    let mut damage = Vec::new();
    if names.contains(PROGRESS_FILE) && manifest.is_none() {
        damage.push(Damage::Unfinished);
    }
    for file in names.iter().filter(|name| name.ends_with(TEMPORARY_SUFFIX)) {
        damage.push(Damage::Leftover { file: file.clone() });
    }

    let shards: BTreeSet<&String> = names
        .iter()
        .filter(|name| Path::new(name).extension().is_some_and(|it| it == "bin"))
        .collect();
    if shards.is_empty() && manifest.is_none() && damage.is_empty() {
        return Err(DataError::NothingPrepared {
            path: dir.to_path_buf(),
        });
    }
    let mut splits = Vec::new();
    for split in Split::ALL {
        let files: Vec<&String> = shards
            .iter()
            .copied()
            .filter(|name| Split::of_file_name(name) == Some(split))
            .collect();
        splits.extend(inspect_split(dir, split, &files, manifest.as_ref(), &mut damage));
    }
    for file in shards.into_iter().filter(|name| Split::of_file_name(name).is_none()) {
        damage.push(Damage::NoSplit { file: file.clone() });
    }
    Ok(Inspection {
        dir: dir.to_path_buf(),
        manifest,
        splits,
        damage,
    })
}

fn file_names(dir: &Path) -> Result<BTreeSet<String>, DataError> {
    let entries = fs::read_dir(dir).map_err(DataError::io("list", dir))?;
    entries
        .map(|entry| {
            let entry = entry.map_err(DataError::io("list", dir))?;
            Ok(entry.file_name().to_string_lossy().into_owned())
        })
        .collect()
}

fn inspect_split(
    dir: &Path,
    split: Split,
    files: &[&String],
    manifest: Option<&Manifest>,
    damage: &mut Vec<Damage>,
) -> Option<SplitInspection> {
    let looked_at: Vec<_> = files
        .par_iter()
        .map(|&file| {
            look_at(
                dir,
                file,
                manifest.map(|manifest| manifest.split(split).shards.as_slice()),
            )
        })
        .collect();
    let mut shards = Vec::new();
    let mut sample = String::new();
    let mut unreadable = false;
    for (look, found) in looked_at {
        damage.extend(found);
        unreadable |= look.is_none();
        if let Some((shard, beginning)) = look {
            if shards.is_empty() {
                sample = beginning;
            }
            shards.push(shard);
        }
    }
    let documents = shards.iter().map(|shard: &ShardInspection| shard.documents).sum();
    let tokens = shards.iter().map(|shard| shard.tokens).sum();

    if let Some(manifest) = manifest {
        let listed = manifest.split(split);
        let there: BTreeSet<&str> = files.iter().map(|file| file.as_str()).collect();
        let missing: Vec<_> = listed
            .shards
            .iter()
            .filter(|shard| !there.contains(shard.file.as_str()))
            .collect();
        // Counts that differ because a shard is gone or unreadable would tell the same once more.
        if missing.is_empty() && !unreadable {
            for (what, expected, found) in [
                ("tokens", listed.tokens, tokens),
                ("documents", listed.documents, documents),
            ] {
                if expected != found {
                    damage.push(Damage::SplitCount {
                        split,
                        what,
                        expected,
                        found,
                    });
                }
            }
        }
        damage.extend(missing.into_iter().map(|shard| Damage::Missing {
            file: shard.file.clone(),
        }));
    }
    (!shards.is_empty()).then_some(SplitInspection {
        split,
        documents,
        tokens,
        shards,
        sample,
    })
}

/// Opens one shard and compares it with its entry. Returns what it holds and the beginning of its text, unless it is
/// unreadable.
fn look_at(
    dir: &Path,
    file: &str,
    listed: Option<&[ShardManifest]>,
) -> (Option<(ShardInspection, String)>, Vec<Damage>) {
    let path = dir.join(file);
    let shard = match Shard::open(&path) {
        Ok(shard) => shard,
        Err(error) => return (None, vec![Damage::Unreadable(error)]),
    };
    let mut damage = Vec::new();
    let tokens = shard.len() as u64;
    if let Some(listed) = listed {
        match listed.iter().find(|entry| entry.file == file) {
            None => damage.push(Damage::Unlisted { file: file.to_owned() }),
            Some(entry) if entry.tokens != tokens => {
                damage.push(Damage::TokenCount {
                    file: file.to_owned(),
                    expected: entry.tokens,
                    found: tokens,
                });
            }
            Some(entry) => match sha256_file(&path) {
                Ok(sha256) if sha256 == entry.sha256 => {}
                Ok(_) => damage.push(Damage::Hash { file: file.to_owned() }),
                Err(error) => damage.push(Damage::Unreadable(error)),
            },
        }
    }
    let mut beginning = vec![0; shard.len().min(SAMPLE_TOKENS)];
    let mut count = 0;
    let read = shard
        .read(0, &mut beginning)
        .and_then(|()| shard.for_each_block(|tokens| count += documents(tokens)));
    if let Err(error) = read {
        return (None, vec![Damage::Unreadable(error)]);
    }
    let inspection = ShardInspection {
        file: file.to_owned(),
        documents: count,
        tokens,
    };
    (Some((inspection, Tokenizer::gpt2().decode(&beginning))), damage)
}
