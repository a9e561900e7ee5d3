//! Checkpoints on their way to the disk while the training goes on.

use crate::checkpoint::{Checkpoints, Snapshot};
use crate::error::TrainError;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How many checkpoints this process is writing.
static BEING_WRITTEN: Mutex<usize> = Mutex::new(0);
static WRITTEN: Condvar = Condvar::new();

/// Waits for the checkpoints that this process is writing, at most so long: for a program that must leave.
pub fn wait_for_checkpoints(at_most: Duration) {
    let count = BEING_WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    drop(WRITTEN.wait_timeout_while(count, at_most, |count| *count > 0));
}

/// One checkpoint more that is being written, until it is dropped.
struct BeingWritten;

impl BeingWritten {
    fn begin() -> Self {
        *BEING_WRITTEN.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for BeingWritten {
    fn drop(&mut self) {
        *BEING_WRITTEN.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        WRITTEN.notify_all();
    }
}

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
        let being_written = BeingWritten::begin();
        self.writing = Some(thread::spawn(move || {
            let _being_written = being_written;
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
    /// What was begun is written also where a panic ends the run.
    fn drop(&mut self) {
        if let Some(writing) = self.writing.take() {
            drop(writing.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::RunState;
    use crate::tests::tiny_config;
    use burn::backend::Autodiff;
    use burn_ndarray::{NdArray, NdArrayDevice};

    #[test]
    fn a_checkpoint_that_cannot_be_written_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoints");
        let mut writer = CheckpointWriter::new(Checkpoints::open(&path).unwrap(), 1);
        let model = tiny_config(1)
            .init::<Autodiff<NdArray>>(1, &NdArrayDevice::Cpu)
            .unwrap();
        let snapshot = |step| {
            let state = RunState {
                step,
                ..RunState::default()
            };
            Snapshot::new(&model, Vec::new(), state)
        };
        writer.begin(snapshot(1)).unwrap();
        writer.finish().unwrap();
        assert!(writer.path(1).exists());

        std::fs::remove_dir_all(&path).unwrap();
        std::fs::write(&path, "no directory").unwrap();
        writer.begin(snapshot(2)).unwrap();
        wait_for_checkpoints(Duration::from_mins(1));
        let error = writer.begin(snapshot(3)).unwrap_err();
        assert!(error.to_string().contains("checkpoints"), "{error}");
        writer.finish().unwrap();
    }
}
