//! Checkpoints: one directory a step, whole or not there at all.
//!
//! ```text
//! checkpoints/step-00000300/
//!   config.json, model.safetensors   the weights, as transformers opens them
//!   tokenizer.json and the like      the tokenizer, likewise
//!   optimizer.safetensors            AdamW's moments
//!   state.json                       step, tokens, losses: what else the run goes on from
//!   manifest.json                    size and SHA-256 of each of the others
//! ```
//!
//! A checkpoint is written under another name, flushed to the disk file by file, and renamed last.

use crate::error::TrainError;
use crate::optimizer::AdamW;
use burn::tensor::backend::AutodiffBackend;
use gpt2_base::fs::{NewDirectory, remove_leftovers, sha256_file};
use gpt2_data::{DataIdentity, Tokenizer};
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::weights::NamedTensor;
use gpt2_model::{Gpt2, Gpt2Config, weights};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

const PREFIX: &str = "step-";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const STATE_FILE: &str = "state.json";
const MANIFEST_FILE: &str = "manifest.json";

/// What a run goes on from, beside the weights and the moments. The data's position and every seed follow from the step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Optimizer steps taken.
    pub step: u64,
    /// Training tokens seen.
    pub tokens: u64,
    /// Seconds of training behind it, over all its sessions.
    pub elapsed_sec: f64,
    /// Validation loss of these very weights, in nats a token; none if they were not evaluated.
    pub val_loss: Option<f64>,
    /// The lowest validation loss of all checkpoints of the run, this one included.
    pub best: Option<BestLoss>,
    /// Seed of the run, from which data order, dropout and samples follow.
    pub seed: u64,
    /// Place of the next sequence in the order of the data.
    pub next_sequence: u64,
    /// What the run was trained on; none in a run of an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataIdentity>,
}

impl RunState {
    /// Takes the loss of these weights for the best, if it is.
    pub(crate) fn note_best(&mut self) {
        let Self {
            step, val_loss, best, ..
        } = *self;
        if let Some(val_loss) = val_loss
            && best.is_none_or(|best| val_loss < best.val_loss)
        {
            self.best = Some(BestLoss { step, val_loss });
        }
    }
}

/// The lowest validation loss of a run's checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BestLoss {
    /// The step of the checkpoint.
    pub step: u64,
    /// The loss, in nats a token.
    pub val_loss: f64,
}

/// Size and hash of each file of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    files: BTreeMap<String, FileEntry>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct FileEntry {
    bytes: u64,
    sha256: String,
}

/// A run at a step, on the host.
#[derive(Debug)]
pub struct Snapshot {
    config: Gpt2Config,
    parameters: Vec<NamedTensor>,
    moments: Vec<NamedTensor>,
    state: RunState,
}

impl Snapshot {
    /// Copies `model` from its device; `moments` are as [`AdamW::export`] gives them.
    pub fn new<B: AutodiffBackend + Gpt2Backend>(model: &Gpt2<B>, moments: Vec<NamedTensor>, state: RunState) -> Self {
        Self {
            config: model.config.clone(),
            parameters: weights::parameters(model),
            moments,
            state,
        }
    }
}

/// The checkpoints of a run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    dir: PathBuf,
}

impl Checkpoints {
    /// Those in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, TrainError> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(|source| TrainError::io("create", &dir, source))?;
        Ok(Self { dir })
    }

    /// Saves a checkpoint and returns its directory. What is there already for this step is replaced only if it is not whole.
    ///
    /// # Errors
    /// [`TrainError::Io`] or [`TrainError::DiskFull`]; what was half-written is removed again.
    pub fn save(&self, snapshot: &Snapshot) -> Result<PathBuf, TrainError> {
        let target = self.path(snapshot.state.step);
        if target.exists() {
            if verify(&target).is_ok() {
                return Ok(target);
            }
            remove_dir(&target)?;
        }
        remove_leftovers(&self.dir).map_err(|source| TrainError::io("clear", &self.dir, source))?;
        let write = |source| TrainError::io("write", &target, source);
        let new = NewDirectory::create(&target).map_err(write)?;
        write_files(new.path(), snapshot)?;
        new.commit().map_err(write)?;
        Ok(target)
    }

    /// The directory of the checkpoint of `step`, whether or not it is there.
    pub fn path(&self, step: u64) -> PathBuf {
        self.dir.join(format!("{PREFIX}{step:08}"))
    }

    /// The steps that have a checkpoint, in order. Whether it is whole is not looked at.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn steps(&self) -> Result<Vec<u64>, TrainError> {
        let read = |source| TrainError::io("read", &self.dir, source);
        let mut steps = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(read)? {
            let name = entry.map_err(read)?.file_name();
            steps.extend(
                name.to_str()
                    .and_then(|name| name.strip_prefix(PREFIX))
                    .and_then(|step| step.parse::<u64>().ok()),
            );
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// The newest checkpoint that is whole, and what is wrong with those after it.
    ///
    /// # Errors
    /// [`TrainError::NoCheckpoint`] if none is whole.
    pub fn newest(&self) -> Result<(Checkpoint, Vec<TrainError>), TrainError> {
        let mut damaged = Vec::new();
        for step in self.steps()?.into_iter().rev() {
            match Checkpoint::open(self.path(step)) {
                Ok(checkpoint) => return Ok((checkpoint, damaged)),
                Err(error) => damaged.push(error),
            }
        }
        Err(damaged
            .pop()
            .unwrap_or_else(|| TrainError::NoCheckpoint { path: self.dir.clone() }))
    }

    /// Removes all but the newest `keep` checkpoints and the one whose weights have the lowest validation loss.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn prune(&self, keep: usize) -> Result<(), TrainError> {
        let steps = self.steps()?;
        let best = steps
            .iter()
            .filter_map(|&step| Some((read_state(&self.path(step)).ok()?.val_loss?, step)))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, step)| step);
        let newest = steps.len().saturating_sub(keep.max(1));
        for &step in &steps[..newest] {
            if Some(step) != best {
                remove_dir(&self.path(step))?;
            }
        }
        Ok(())
    }
}

/// A checkpoint whose files have been checked against its manifest.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    /// What the run goes on from.
    pub state: RunState,
}

impl Checkpoint {
    /// Opens and checks a checkpoint's directory.
    ///
    /// # Errors
    /// [`TrainError::CheckpointIncomplete`] or [`TrainError::CheckpointDamaged`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, TrainError> {
        let path = path.into();
        verify(&path)?;
        let state = read_state(&path)?;
        Ok(Self { path, state })
    }

    /// Opens a checkpoint that has been checked already.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`], as far as they are noticed.
    pub(crate) fn checked(path: PathBuf) -> Result<Self, TrainError> {
        let state = read_state(&path)?;
        Ok(Self { path, state })
    }

    /// Its directory, which transformers can open too.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills `optimizer` with the moments of this checkpoint.
    ///
    /// # Errors
    /// [`TrainError::Model`] if they do not fit the model.
    pub fn restore_optimizer<B: AutodiffBackend>(
        &self,
        model: &Gpt2<B>,
        optimizer: &AdamW<B>,
    ) -> Result<(), TrainError> {
        let path = self.path.join(OPTIMIZER_FILE);
        optimizer.import(model, self.state.step, weights::read_tensors(&path)?, &path)
    }
}

fn write_files(dir: &Path, snapshot: &Snapshot) -> Result<(), TrainError> {
    let Snapshot {
        config,
        parameters,
        moments,
        state,
    } = snapshot;
    weights::save_hf_parameters(config, parameters, dir)?;
    // With another vocabulary the tokens are not GPT-2's text.
    if config.has_gpt2_vocabulary() {
        Tokenizer::gpt2().write_hf_files(dir, config.block_size)?;
    }
    weights::write_tensors(&dir.join(OPTIMIZER_FILE), moments)?;
    write_json(&dir.join(STATE_FILE), state)?;
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(|source| TrainError::io("read", dir, source))? {
        let path = entry.map_err(|source| TrainError::io("read", dir, source))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.insert(name, describe(&path)?);
    }
    write_json(&dir.join(MANIFEST_FILE), &Manifest { files })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let json = serde_json::to_string_pretty(value).map_err(io::Error::from);
    json.and_then(|json| fs::write(path, json + "\n"))
        .map_err(|source| TrainError::io("write", path, source))
}

fn read_state(dir: &Path) -> Result<RunState, TrainError> {
    read_json(dir, STATE_FILE)
}

fn read_json<T: serde::de::DeserializeOwned>(dir: &Path, name: &str) -> Result<T, TrainError> {
    let path = dir.join(name);
    let text = fs::read_to_string(&path).map_err(|_| TrainError::CheckpointIncomplete {
        path: dir.to_owned(),
        missing: name.to_owned(),
    })?;
    serde_json::from_str(&text).map_err(|error| TrainError::CheckpointDamaged {
        path,
        expected: "what `gpt2 train` writes".to_owned(),
        found: error.to_string(),
    })
}

/// Compares every file with the manifest.
fn verify(dir: &Path) -> Result<(), TrainError> {
    let manifest: Manifest = read_json(dir, MANIFEST_FILE)?;
    for (name, expected) in &manifest.files {
        let path = dir.join(name);
        let found = describe(&path).map_err(|_| TrainError::CheckpointIncomplete {
            path: dir.to_owned(),
            missing: name.clone(),
        })?;
        if found != *expected {
            let words = |entry: &FileEntry| format!("{} bytes with SHA-256 {}…", entry.bytes, &entry.sha256[..8]);
            return Err(TrainError::CheckpointDamaged {
                path,
                expected: words(expected),
                found: words(&found),
            });
        }
    }
    Ok(())
}

fn describe(path: &Path) -> Result<FileEntry, TrainError> {
    let metadata = fs::metadata(path).map_err(|source| TrainError::io("read", path, source))?;
    Ok(FileEntry {
        bytes: metadata.len(),
        sha256: sha256_file(path).map_err(|source| TrainError::io("read", path, source))?,
    })
}

fn remove_dir(path: &Path) -> Result<(), TrainError> {
    fs::remove_dir_all(path).map_err(|source| TrainError::io("remove", path, source))
}
