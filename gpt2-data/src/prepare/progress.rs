//! What a preparation has finished, so that it can be continued after a kill.
//!
//! The progress file is written at the beginning and whenever a shard is complete. It says how far the input was used up by
//! the finished shards; all that came after is done again, and since the tokens are a function of the input, done the
//! same.

use std::fs;
use std::path::Path;

use gpt2_base::fs::TEMPORARY_SUFFIX;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::pipeline::Position;
use super::val_limit::ValLimit;
use crate::error::DataError;
use crate::format::{LOCK_FILE, PROGRESS_FILE, Split};
use crate::manifest::{Manifest, ShardManifest, read_json, sha256_file, write_json};

/// The state between two shards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Progress {
    /// Sources, options, and the finished shards.
    pub manifest: Manifest,
    /// Where to read on.
    pub position: Position,
    /// Tokens from there on that the finished shards hold already.
    pub skip_tokens: u64,
    /// What is still to be held out, `None` once validation is complete or if there is none.
    pub val_limit: Option<ValLimit>,
    /// Nothing is left to do: this was read from a manifest.
    #[serde(skip)]
    complete: bool,
}

impl Progress {
    /// The state before the first token.
    pub(super) fn new(manifest: Manifest, val_limit: Option<ValLimit>) -> Self {
        Self {
            manifest,
            position: Position::default(),
            skip_tokens: 0,
            val_limit,
            complete: false,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Tokens in the finished shards.
    pub(super) fn tokens(&self) -> u64 {
        Split::ALL.iter().map(|&split| self.manifest.split(split).tokens).sum()
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), DataError> {
        write_json(&dir.join(PROGRESS_FILE), self)
    }

    /// Ends the preparation: writes the manifest, then removes the progress file.
    pub(super) fn complete(&self, dir: &Path) -> Result<Manifest, DataError> {
        if !self.complete {
            self.manifest.write(dir)?;
        }
        remove_progress(dir)?;
        Ok(self.manifest.clone())
    }

    /// Removes the finished shards and the progress file, when the whole preparation turns out to be of no use.
    pub(super) fn delete_output(&self, dir: &Path) -> Result<(), DataError> {
        self.shards()
            .try_for_each(|shard| remove_if_there(&dir.join(&shard.file)))?;
        remove_progress(dir)
    }

    /// Nothing was finished yet.
    pub(super) fn is_empty(&self) -> bool {
        self.shards().next().is_none()
    }

    /// Checks that a preparation with these sources and options is what was begun, and that its shards are intact.
    pub(super) fn check_continues(&self, dir: &Path, now: &Manifest) -> Result<(), DataError> {
        let begun = &self.manifest;
        for key in begun.options.keys().chain(now.options.keys()) {
            let (before, after) = (begun.options.get(key), now.options.get(key));
            if before != after {
                let show = |value: Option<&String>| value.map_or("absent".to_owned(), Clone::clone);
                let difference = format!("`{key}` was {}, is {}", show(before), show(after));
                return Err(DataError::OptionsDiffer {
                    path: dir.to_path_buf(),
                    difference,
                });
            }
        }
        let sources_differ = |difference| DataError::SourcesDiffer {
            path: dir.to_path_buf(),
            difference,
        };
        if begun.sources.len() != now.sources.len() {
            let difference = format!("{} files then, {} now", begun.sources.len(), now.sources.len());
            return Err(sources_differ(difference));
        }
        // Wherever they lie now.
        if let Some((before, after)) = begun
            .sources
            .iter()
            .zip(&now.sources)
            .find(|(before, after)| before.sha256 != after.sha256)
        {
            let difference = if before.path == after.path {
                format!("{} has other content", after.path.display())
            } else {
                format!("{} is where {} was", after.path.display(), before.path.display())
            };
            return Err(sources_differ(difference));
        }
        let shards: Vec<_> = self.shards().collect();
        shards.par_iter().try_for_each(|shard| {
            let path = dir.join(&shard.file);
            match sha256_file(&path) {
                Ok(sha256) if sha256 == shard.sha256 => Ok(()),
                _ => Err(DataError::FinishedShardChanged { path }),
            }
        })
    }

    fn shards(&self) -> impl Iterator<Item = &ShardManifest> {
        Split::ALL
            .into_iter()
            .flat_map(|split| &self.manifest.split(split).shards)
    }
}

/// What an earlier run left in the output directory, if it may be continued; `None` if there is nothing.
pub(super) fn find_begun(dir: &Path, resume: bool) -> Result<Option<Progress>, DataError> {
    if resume {
        if let Some(manifest) = Manifest::read(dir)? {
            return Ok(Some(Progress {
                complete: true,
                ..Progress::new(manifest, None)
            }));
        }
        if let Some(progress) = read_json(&dir.join(PROGRESS_FILE))? {
            return Ok(Some(progress));
        }
    }
    for entry in fs::read_dir(dir).map_err(DataError::io("list", dir))? {
        let name = entry
            .map_err(DataError::io("list", dir))?
            .file_name()
            .to_string_lossy()
            .into_owned();
        // Half a file is worth nothing. A process that was killed while it wrote its first progress file leaves one.
        if !name.ends_with(TEMPORARY_SUFFIX) && name != LOCK_FILE {
            let found = if name == PROGRESS_FILE {
                "an unfinished preparation".to_owned()
            } else {
                name
            };
            return Err(DataError::OutputNotEmpty {
                path: dir.to_path_buf(),
                found,
            });
        }
    }
    Ok(None)
}

/// Removes the progress file.
pub(super) fn remove_progress(dir: &Path) -> Result<(), DataError> {
    remove_if_there(&dir.join(PROGRESS_FILE))
}

fn remove_if_there(path: &Path) -> Result<(), DataError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DataError::io("remove", path)(error)),
        _ => Ok(()),
    }
}
