//! What is left of a run when it has ended: files for comparisons and for scripts that wait for it.

mod run_report;
mod training_metrics;

pub use run_report::Provenance;
pub(crate) use run_report::{RunFacts, write_run_report};
pub use training_metrics::{RunOutcome, training_metrics};

use crate::error::TrainError;
use crate::run_dir::RunPaths;
use gpt2_records::TrainingMetrics;
use std::path::Path;

/// Writes `training_metrics.json`, and after it, if the run reached its end, `RUN_COMPLETE.txt`.
///
/// Whoever sees `RUN_COMPLETE.txt` finds a whole report beside it.
///
/// # Errors
/// [`TrainError::Io`] or [`TrainError::DiskFull`].
pub fn write_report(paths: &RunPaths, metrics: &TrainingMetrics) -> Result<(), TrainError> {
    let path = paths.training_metrics();
    let json = serde_json::to_string_pretty(metrics).map_err(|source| TrainError::io("write", &path, source.into()))?;
    write(&path, &(json + "\n"))?;
    match &metrics.completion {
        Some(completion) => {
            let text = format!("{} ended at {}\n", metrics.run_id, completion.timestamp_utc);
            write(&paths.run_complete(), &text)
        }
        None => Ok(()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), TrainError> {
    gpt2_base::fs::write(path, text.as_bytes()).map_err(|source| TrainError::io("write", path, source))
}
