//! What can go wrong with a benchmark or a study.

use gpt2_backend::BackendError;
use gpt2_base::Invalid;
use gpt2_model::ops::training::TimerError;
use gpt2_train::TrainError;
use std::io;
use std::path::PathBuf;

/// An error of this crate. Each message is one line.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The steps that are timed cannot be trained.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The device cannot be had.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The device's work cannot be timed.
    #[error(transparent)]
    Timer(#[from] TimerError),
    /// A recording of counters cannot be used.
    #[error(transparent)]
    Counters(#[from] gpt2_counters::CountersError),
    /// The derivatives of the run are Burn's own.
    #[error(
        "a profile needs this project's own derivatives: with `dropout`, or with `operations` set to reference, they are \
         Burn's, which do not tell one operation from another; leave both out"
    )]
    NotProfiled,
    /// Tables, figures or pages cannot be written.
    #[error(transparent)]
    Report(#[from] gpt2_report::ReportError),
    /// A file that was to be compared with is no timing.
    #[error("{path}: the last line is no JSON of a timing (keys peer, model, batch, seq, tokens_per_sec, peak_mem_mib): {source}", path = path.display())]
    NotATiming {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A setting of a study makes no sense.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A file that describes a study is wrong.
    #[error("{path}: {reason}", path = path.display())]
    StudyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, what was expected, and the fix.
        reason: String,
    },
    /// A file of a study does not hold what it should.
    #[error("{path} is damaged: {source}; remove it, and the study measures that configuration again", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A directory holds a study of other settings.
    #[error("{path} holds another study: {difference}; choose another directory, or remove this one", path = path.display())]
    AnotherStudy {
        /// The directory.
        path: PathBuf,
        /// Which setting differs, and its two values.
        difference: String,
    },
    /// Another process makes this study.
    #[error("{path} is in use: another study writes to it{}", pid.map_or_else(String::new, |pid| format!(" (process {pid})")), path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process.
        pid: Option<u32>,
    },
    /// A program cannot be started.
    #[error("cannot start {program}: {source}")]
    NotStarted {
        /// The program.
        program: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The study was asked to stop.
    #[error("stopped by {by}; what is measured is saved, and the same command goes on from there")]
    Stopped {
        /// Who asked.
        by: String,
    },
}
