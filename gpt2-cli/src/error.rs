//! Everything that ends a command, and the exit code that follows.
//!
//! Each message is one line. What to print beside it, such as hints, is `diagnostics`' business.

use gpt2_backend::BackendError;
use gpt2_data::DataError;
use gpt2_model::ModelError;
use gpt2_train::TrainError;
use std::io;
use std::path::PathBuf;

/// Exit code for the user's errors: input, flags, files, the machine.
pub(crate) const USERS: u8 = 1;
/// Exit code for ours.
pub(crate) const INTERNAL: u8 = 2;

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

    // The machine
    /// A backend, a device or a precision cannot be had.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A file that was to be compared with is not a line of `gpt2 bench`.
    #[error("{path}: the last line is no JSON of a timing (keys peer, model, batch, seq, tokens_per_sec, peak_mem_mib): {source}", path = path.display())]
    NotATiming {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The threads could not be started.
    #[error("cannot start {threads} threads: {source}; ask for fewer by --threads")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// The system's reason.
        source: rayon::ThreadPoolBuildError,
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

impl CliError {
    /// The exit code of the process.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::ReaderGone => 0,
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
