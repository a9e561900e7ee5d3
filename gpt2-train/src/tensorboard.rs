//! TensorBoard's event files of a run, in `tensorboard/` of its directory.

use crate::error::TrainError;
use crate::observer::{Observer, StepReport};
use gpt2_tensorboard::{EventFile, TensorBoardError};
use std::path::Path;
use std::sync::Arc;

/// Writes every step's numbers, the samples and the plan.
#[derive(Debug)]
pub(crate) struct TensorBoard {
    /// None after an error: a full disk must not stop the training, whose own files tell of it.
    file: Option<EventFile>,
    sample: Option<Arc<str>>,
}

impl TensorBoard {
    /// Begins a file in `dir` for a run that stands at `step`, with its plan.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn create(dir: &Path, hostname: &str, step: u64, plan: &str) -> Result<Self, TrainError> {
        let begin = || -> Result<EventFile, TensorBoardError> {
            let mut file = EventFile::create(dir, hostname)?;
            if step > 0 {
                file.resume_after(step)?;
            }
            // A block of code, as TensorBoard shows Markdown.
            let block: String = plan.lines().flat_map(|line| ["    ", line, "\n"]).collect();
            file.text("plan", step, &block)?;
            file.flush()?;
            Ok(file)
        };
        let TensorBoardError::Io { action, path, source } = match begin() {
            Ok(file) => {
                return Ok(Self {
                    file: Some(file),
                    sample: None,
                });
            }
            Err(error) => error,
        };
        Err(TrainError::io(action, path, source))
    }
}

impl Observer for TensorBoard {
    fn step(&mut self, report: &StepReport) {
        let Some(file) = &mut self.file else { return };
        let record = &report.record;
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        let scalars = [
            ("loss/train", record.loss),
            ("loss/val", record.val_loss),
            ("loss/val_bits_per_byte", record.val_bpb),
            ("optimizer/lr", record.lr),
            ("optimizer/grad_norm", record.grad_norm),
            ("speed/tokens_per_sec", record.tokens_per_sec),
            ("speed/step_ms", record.step_ms),
            ("speed/data_wait_ms", record.data_wait_ms),
            ("speed/mfu", report.mfu),
            ("memory/peak_bytes", bytes(record.peak_memory_bytes())),
        ];
        let new_sample = report.sample.as_ref().filter(|_| report.sample != self.sample);
        let mut write = || -> Result<(), TensorBoardError> {
            for (tag, value) in scalars {
                if let Some(value) = value {
                    file.scalar(tag, record.step, value)?;
                }
            }
            for (name, &value) in &record.scores {
                file.scalar(&format!("scores/{name}"), record.step, value)?;
            }
            if let Some(sample) = new_sample {
                file.text("sample", record.step, sample)?;
            }
            file.flush()
        };
        let written = write();
        self.sample.clone_from(&report.sample);
        if written.is_err() {
            self.file = None;
        }
    }
}

impl Observer for Option<TensorBoard> {
    fn step(&mut self, report: &StepReport) {
        if let Some(tensorboard) = self {
            tensorboard.step(report);
        }
    }
}
