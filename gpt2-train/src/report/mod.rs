//! What is left of a run when it has ended: files for comparisons and for scripts that wait for it.

mod epochs;
mod scheduler;
mod training_metrics;

pub use epochs::{Epoch, steady_steps};
pub use scheduler::{Scheduler, recorded_variables};
pub use training_metrics::*;

use crate::atomic_file::write_atomic;
use crate::error::TrainError;
use crate::run_dir::RunPaths;

/// Writes `training_metrics.json`, and after it, if the run reached its end, `RUN_COMPLETE.txt`.
///
/// Whoever sees `RUN_COMPLETE.txt` finds a whole report beside it.
///
/// # Errors
/// [`TrainError::Io`] or [`TrainError::DiskFull`].
pub fn write_report(paths: &RunPaths, metrics: &TrainingMetrics) -> Result<(), TrainError> {
    let path = paths.training_metrics();
    let json = serde_json::to_string_pretty(metrics).map_err(|source| TrainError::io("write", &path, source.into()))?;
    write_atomic(&path, (json + "\n").as_bytes())?;
    match &metrics.completion {
        Some(completion) => {
            let text = format!("{} ended at {}\n", metrics.run_id, completion.timestamp_utc);
            write_atomic(&paths.run_complete(), text.as_bytes())
        }
        None => Ok(()),
    }
}
