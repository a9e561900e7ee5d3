//! Everything that can be wrong with an evaluation or its files.

use gpt2_backend::InferenceError;
use gpt2_base::Invalid;
use gpt2_data::{DataError, VOCAB_SIZE};
use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate; each message is one line that names what was expected.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The model cannot be used.
    #[error(transparent)]
    Inference(#[from] InferenceError),
    /// The data of the loss cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A setting has a value that cannot work.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file of llm.c's multiple choice is damaged, or of another kind.
    #[error(
        "{} is not a sound multiple-choice file of llm.c: at byte {offset} {found}, expected {expected}; make it again \
         with `gpt2 data prepare-hellaswag`",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, in bytes from 0.
        offset: usize,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// A line of a JSONL file is no example of its task.
    #[error("{} line {line}: {problem}; expected {expected}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// What is wrong.
        problem: String,
        /// What a line must be.
        expected: &'static str,
    },
    /// A file whose name does not say what it is.
    #[error("{}: unknown kind of file, expected {expected}", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// A file holds no example.
    #[error("{} holds no example, expected at least 1", path.display())]
    NoExamples {
        /// The file.
        path: PathBuf,
    },
    /// An example does not fit llm.c's format.
    #[error("example {example} does not fit llm.c's file: it has {found}, expected {expected}; leave it out")]
    DoesNotFit {
        /// Its place in the list, from 0.
        example: usize,
        /// What it has.
        found: String,
        /// What the format takes.
        expected: &'static str,
    },
    /// More examples than llm.c's format counts.
    #[error("{examples} examples do not fit llm.c's file, expected at most {limit}; split them among several")]
    TooManyExamples {
        /// How many there are.
        examples: usize,
        /// The format's limit.
        limit: usize,
    },
    /// A task is of GPT-2's tokens, and the model has others.
    #[error(
        "task {task} is of GPT-2's {VOCAB_SIZE} tokens, but the model has {vocab_size} others: take a model with \
         GPT-2's vocabulary, or multiple choice in the model's own tokens (.bin)"
    )]
    OtherVocabulary {
        /// The task.
        task: String,
        /// The model's tokens.
        vocab_size: usize,
    },
    /// An example has a token that the model does not know.
    #[error(
        "example {example} of {task} has token {token}, expected one below {vocab_size}, the model's vocabulary: the \
         file was made for another model"
    )]
    TokenOutOfRange {
        /// The task.
        task: String,
        /// Its place in the file, from 0.
        example: usize,
        /// The token.
        token: u16,
        /// The model's tokens.
        vocab_size: usize,
    },
    /// The model gives losses that are no numbers.
    #[error(
        "the loss of the model on example {example} of {task} is not finite: its weights hold NaN, infinite or far too \
         large numbers"
    )]
    NonFinite {
        /// The task.
        task: String,
        /// Its place in the file, from 0; of the loss, the window.
        example: usize,
    },
}

impl EvalError {
    /// Wraps an I/O error together with what was attempted and where; made for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
