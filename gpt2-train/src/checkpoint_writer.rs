//! Checkpoints on their way to the disk while the training goes on.

use crate::checkpoint::{Checkpoints, Snapshot};
use crate::error::TrainError;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

/// Writes the checkpoints of a run, one after the other, each in a thread of its own.
#[derive(Debug)]
pub(crate) struct CheckpointWriter {
    checkpoints: Checkpoints,
    /// The newest ones that stay.
    keep: usize,
    writing: Option<JoinHandle<Result<(), TrainError>>>,
}

impl CheckpointWriter {
    pub(crate) fn new(checkpoints: Checkpoints, keep: usize) -> Self {
        Self {
            checkpoints,
            keep,
            writing: None,
        }
    }

    /// The directory of the checkpoint of `step`, whether or not it is there.
    pub(crate) fn path(&self, step: u64) -> PathBuf {
        self.checkpoints.path(step)
    }

    /// Begins to write a checkpoint, once the one before is written; older ones than the newest are then removed.
    ///
    /// # Errors
    /// Those of the one before.
    pub(crate) fn begin(&mut self, snapshot: Snapshot) -> Result<(), TrainError> {
        self.finish()?;
        let (checkpoints, keep) = (self.checkpoints.clone(), self.keep);
        self.writing = Some(thread::spawn(move || {
            checkpoints.save(&snapshot)?;
            checkpoints.prune(keep)
        }));
        Ok(())
    }

    /// What has gone wrong with a checkpoint, if it is known by now.
    ///
    /// # Errors
    /// Those of [`Checkpoints::save`] and [`Checkpoints::prune`].
    pub(crate) fn check(&mut self) -> Result<(), TrainError> {
        match &self.writing {
            Some(writing) if writing.is_finished() => self.finish(),
            _ => Ok(()),
        }
    }

    /// Waits until what was begun is written.
    ///
    /// # Errors
    /// Those of [`Checkpoints::save`] and [`Checkpoints::prune`].
    pub(crate) fn finish(&mut self) -> Result<(), TrainError> {
        match self.writing.take() {
            Some(writing) => writing.join().unwrap_or_else(|panic| resume_unwind(panic)),
            None => Ok(()),
        }
    }
}

impl Drop for CheckpointWriter {
    /// A run that ends with an error still leaves what it had begun to save.
    fn drop(&mut self) {
        if let Some(writing) = self.writing.take() {
            drop(writing.join());
        }
    }
}
