//! Everything that can go wrong with a report, one variant for each way.

use gpt2_records::DamagedRecord;
use std::io;
use std::path::PathBuf;

/// The error type of this crate.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The operating system refused to read, write or create something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb: `read`, `create`, `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A directory that should hold a study has no results.
    #[error("{} does not exist: expected the directory of a study, as `gpt2 bench` or `gpt2 profile` writes it", path.display())]
    NoStudy {
        /// The file that is missing.
        path: PathBuf,
    },
    /// The results are no JSON.
    #[error("{} is not JSON: {source}; restore the file or run the study again", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The results are JSON of the expected version, but not of a study.
    #[error("{} is not the results of a study: {source}; restore the file or run the study again", path.display())]
    NotAStudy {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The results have another version, or none.
    #[error(
        "{} has version {found}, expected {expected}: read it with the program that wrote it, or run the study again",
        path.display()
    )]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// Its version, as the file has it.
        found: String,
        /// The version that this program reads.
        expected: u32,
    },
    /// A directory that should hold a run has no log of its steps.
    #[error("{} does not exist: expected the directory of a run, as `gpt2 train` writes it", path.display())]
    NoRun {
        /// The file that is missing.
        path: PathBuf,
    },
    /// A line of a run's log is no record of a step.
    #[error(transparent)]
    Record(#[from] DamagedRecord),
    /// A run's metrics cannot be read.
    #[error("{} is not a run's training metrics: {source}; remove the file to report the run without it", path.display())]
    NotTrainingMetrics {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A report of runs was asked for without any.
    #[error("no run to report: expected at least one run directory")]
    NoRuns,
    /// A figure could not be drawn.
    #[error("cannot draw the figure {figure}: {reason}")]
    Draw {
        /// The figure's name.
        figure: String,
        /// The drawing library's reason.
        reason: String,
    },
}

impl ReportError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.into(),
            source,
        }
    }
}
