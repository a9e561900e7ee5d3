//! Everything that ends a command, and the exit code that follows.
//!
//! Each message is one line. What to print beside it, such as hints, is `diagnostics`' business.

use gpt2_backend::{BackendError, InferenceError};
use gpt2_bench::BenchError;
use gpt2_data::DataError;
use gpt2_eval::EvalError;
use gpt2_model::ModelError;
use gpt2_ranks::RanksError;
use gpt2_report::scaling::InvalidComparison;
use gpt2_train::TrainError;
use std::io;
use std::path::PathBuf;

/// Exit code for the user's errors: input, flags, files, the machine.
pub(crate) const USERS: u8 = 1;
/// Exit code for ours.
pub(crate) const INTERNAL: u8 = 2;
/// Exit code of a rank that cannot go on because another one is lost.
pub(crate) const LOST_RANK: u8 = 3;

/// The error type of the command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The data is wrong or cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model's configuration or its files are wrong.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A run cannot begin or go on.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A benchmark's own.
    #[error(transparent)]
    Bench(BenchError),
    /// An evaluation's own.
    #[error(transparent)]
    Eval(EvalError),

    // The command line
    /// The command line makes no sense.
    #[error("{message}")]
    Usage {
        /// What is wrong with it.
        message: String,
        /// What to try.
        hint: String,
    },
    /// A flag has a value that cannot work.
    #[error("{flag} is {value}, expected {expected}")]
    InvalidFlag {
        /// The flag.
        flag: &'static str,
        /// The value given.
        value: String,
        /// What it must be.
        expected: String,
    },
    /// A word that should be a token.
    #[error("{word:?} is not a token (word {position}): expected a whole number from 0 to {largest}")]
    BadToken {
        /// What was found.
        word: String,
        /// Which word of the input, from 1.
        position: usize,
        /// The last token of the vocabulary.
        largest: usize,
    },
    /// A task of an evaluation that there is not.
    #[error("unknown task `{name}` in --tasks, expected {expected}{}", nearest.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default())]
    UnknownTask {
        /// What was given.
        name: String,
        /// Every task.
        expected: String,
        /// The closest of them, if one is close.
        nearest: Option<&'static str>,
    },
    /// A task whose file was not given.
    #[error("task {task} needs {what}: give it by {flag}")]
    NoTaskFile {
        /// The task.
        task: &'static str,
        /// What its file is.
        what: &'static str,
        /// The flag that names it.
        flag: &'static str,
    },
    /// Neither tasks nor their files were given.
    #[error("there is nothing to evaluate on, expected at least one of --data, --hellaswag and --lambada")]
    NoTask,
    /// A file of results could not be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    // The hub
    /// It refuses something, or cannot be reached.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] gpt2_hub::HubError),
    /// An address on it, in a program that was built without it.
    #[cfg(not(feature = "hub"))]
    #[error("{address} is on the Hugging Face hub, which this build does not reach: build with `--features hub`")]
    HubNotBuilt {
        /// The address.
        address: String,
    },

    // The machine
    /// A backend, a device or a precision cannot be had.
    #[error(transparent)]
    Backend(#[from] BackendError),

    /// Runs that are not of the same work.
    #[error(transparent)]
    InvalidComparison(#[from] InvalidComparison),
    /// A run has not ended, and so has no metrics to compare.
    #[error("{run} has no training_metrics.json: let the run end first", run = run.display())]
    NotFinished {
        /// The run.
        run: PathBuf,
    },
    /// Files do not agree with each other. What is wrong is on standard output.
    #[error("{dir}: {count} of its values are not as they should be, see above", dir = dir.display())]
    NotVerified {
        /// The directory.
        dir: PathBuf,
        /// How many.
        count: usize,
    },
    /// The page of a run cannot be served.
    #[error("{source}")]
    Watch {
        /// The system's reason.
        source: io::Error,
    },
    /// Variants of the same work came to different losses.
    #[error("{said}; the rows are kept, but do not compare their times")]
    Disagreement {
        /// Which, and by how much.
        said: String,
    },
    /// There is no profile of what was to be profiled.
    #[error("there is no profile: {reason}")]
    NotProfiled {
        /// Why.
        reason: String,
    },
    /// This program's own file is not known, so no process of its own can be started.
    #[error("cannot find this program's own file: {source}")]
    OwnProgram {
        /// The system's reason.
        source: io::Error,
    },

    /// A process of several could not be started.
    #[error("cannot start rank {rank}: {source}")]
    RankNotStarted {
        /// Which.
        rank: usize,
        /// The system's reason.
        source: io::Error,
    },
    /// The ranks that this process started have ended with this code, and have said why.
    #[error("the ranks have ended with exit code {code}")]
    RanksEnded {
        /// The exit code.
        code: u8,
    },

    /// The handler of signals could not be set.
    #[error("cannot handle signals: {source}")]
    Signals {
        /// The system's reason.
        source: io::Error,
    },

    // Input and output
    /// Standard input cannot be read.
    #[error("cannot read standard input: {source}; expected {expected}")]
    Stdin {
        /// The system's reason; text that is not UTF-8 is one.
        source: io::Error,
        /// What it should be.
        expected: &'static str,
    },
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {source}")]
    Stdout {
        /// The system's reason.
        source: io::Error,
    },
    /// Whoever read standard output has had enough, as `head` has. Not a failure, and nothing to report.
    #[error("standard output was closed")]
    ReaderGone,
    /// A directory of shards cannot be trusted. The report on standard output lists everything.
    #[error("{} is damaged: {first}{}", dir.display(), if *more > 0 { format!(" (and {more} more, see above)") } else { String::new() })]
    DamagedData {
        /// The directory.
        dir: PathBuf,
        /// The first thing that is wrong.
        first: String,
        /// How many other things are.
        more: usize,
    },
}

// So that what is said beside an error does not depend on the command that met it.
impl From<BenchError> for CliError {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Train(error) => Self::Train(error),
            BenchError::Backend(error) => Self::Backend(error),
            error => Self::Bench(error),
        }
    }
}

impl From<EvalError> for CliError {
    fn from(error: EvalError) -> Self {
        match error {
            EvalError::Inference(error) => error.into(),
            EvalError::Data(error) => Self::Data(error),
            error => Self::Eval(error),
        }
    }
}

impl From<InferenceError> for CliError {
    fn from(error: InferenceError) -> Self {
        match error {
            InferenceError::Backend(error) => Self::Backend(error),
            InferenceError::Model(error) => Self::Model(error),
            InferenceError::TrainingOnly {
                precision,
                plain,
                backend,
            } => Self::InvalidFlag {
                flag: "--precision",
                value: precision.to_string(),
                expected: format!("{plain}: the kernels of {precision} on {backend} are for training"),
            },
        }
    }
}

impl CliError {
    /// Whether it is of no interest, or has been said already.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::ReaderGone | Self::RanksEnded { .. }) || self.is_lost_rank()
    }

    /// Whether rank 0 says it, and this rank need not.
    pub(crate) fn is_known_to_rank_0(&self) -> bool {
        !matches!(
            self,
            Self::Train(TrainError::Ranks(
                RanksError::NotReached { .. } | RanksError::Host { .. }
            ))
        )
    }

    /// Whether it is that another rank is lost. A thread that watches the ranks is about to say so, and to end the process.
    pub(crate) fn is_lost_rank(&self) -> bool {
        matches!(self, Self::Train(TrainError::Ranks(RanksError::Lost(_))))
    }

    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::RanksEnded { code } => *code,
            _ if self.is_lost_rank() => LOST_RANK,
            // The story grammar is part of this program.
            Self::Data(DataError::Grammar { .. }) | Self::Train(TrainError::Data(DataError::Grammar { .. })) => {
                INTERNAL
            }
            _ => USERS,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_error_it_is() {
        let grammar = || DataError::Grammar {
            line: 1,
            problem: "none".into(),
        };
        assert_eq!(CliError::Data(grammar()).exit_code(), INTERNAL);
        assert_eq!(CliError::Train(TrainError::Data(grammar())).exit_code(), INTERNAL);
        let path = PathBuf::from("data");
        assert_eq!(CliError::Data(DataError::NothingPrepared { path }).exit_code(), USERS);
        assert_eq!(CliError::ReaderGone.exit_code(), 0);
    }

    #[test]
    fn damage_is_counted() {
        let message = |more| {
            let error = CliError::DamagedData {
                dir: "data".into(),
                first: "a.bin is missing".into(),
                more,
            };
            error.to_string()
        };
        assert_eq!(message(0), "data is damaged: a.bin is missing");
        assert_eq!(message(2), "data is damaged: a.bin is missing (and 2 more, see above)");
    }
}
