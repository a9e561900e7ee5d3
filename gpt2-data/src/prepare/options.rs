//! What is asked of a preparation.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use gpt2_base::Invalid;

use crate::error::DataError;
use crate::format::{MAX_SHARD_TOKENS, Split};

/// Threads that any computer may be asked for.
const MOST_THREADS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// What to prepare, from what, into what.
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// Files, directories (read recursively, in the order of names) and glob patterns, in the order of the text.
    pub inputs: Vec<PathBuf>,
    /// The directory for the shards, made if it is not there.
    pub out: PathBuf,
    /// Field of a JSON line, or column of a Parquet file, that holds the text.
    pub field: String,
    /// Where documents begin within a plain text file.
    pub split_documents: SplitDocuments,
    /// What is held out for validation.
    pub validation: ValSplit,
    /// Tokens in each shard but the last of a split.
    pub shard_tokens: u64,
    /// Shards are named `{prefix}_{split}_{number}.bin`.
    pub prefix: String,
    /// Threads that encode; `None` is one for each core.
    pub threads: Option<NonZeroUsize>,
    /// Continue what an interrupted run with the same options left in `out`.
    pub resume: bool,
    /// Take what is there: wait for another process that prepares into `out`, and where a preparation is finished, tell by the
    /// names, sizes and times of the inputs that they are the same, without reading them.
    pub reuse: bool,
}

impl PrepareOptions {
    /// The usual options: text in the field `text`, a file one document, no validation split, 100,000,000 tokens in a
    /// shard as in llm.c's FineWeb.
    pub fn new(inputs: Vec<PathBuf>, out: impl Into<PathBuf>) -> Self {
        Self {
            inputs,
            out: out.into(),
            field: "text".to_owned(),
            split_documents: SplitDocuments::None,
            validation: ValSplit::None,
            shard_tokens: 100_000_000,
            prefix: "tokens".to_owned(),
            threads: None,
            resume: false,
            reuse: false,
        }
    }

    pub(super) fn check(&self) -> Result<(), DataError> {
        let invalid = |key: &'static str, value: &dyn ToString, expected: &'static str| {
            Err(Invalid::new(key, value, expected).into())
        };
        if self.inputs.is_empty() {
            return invalid("input", &"missing", "at least one file, directory or pattern");
        }
        if let Some(threads) = self.threads.filter(|&threads| threads > MOST_THREADS) {
            return invalid("threads", &threads, "at most 1024");
        }
        if !(1..=MAX_SHARD_TOKENS).contains(&self.shard_tokens) {
            return invalid("shard-tokens", &self.shard_tokens, "1 to 2147483647");
        }
        if self.field.is_empty() {
            return invalid("field", &"empty", "the name of the field that holds the text");
        }
        if self.prefix.is_empty() || self.prefix.contains(['/', '\\']) {
            return invalid("prefix", &format!("{:?}", self.prefix), "the beginning of a file name");
        }
        // Later the split is told by the file name, in which the prefix must not claim one of its own.
        if Split::of_file_name(&format!("{}.bin", self.prefix)).is_some() {
            return invalid(
                "prefix",
                &format!("{:?}", self.prefix),
                "a name without the words `train` and `val`",
            );
        }
        match self.validation {
            ValSplit::Tokens(0) => invalid("val-tokens", &0, "at least 1"),
            ValSplit::Documents(0) => invalid("val-documents", &0, "at least 1"),
            ValSplit::Fraction(fraction) if !(fraction > 0.0 && fraction < 1.0) => {
                invalid("val-fraction", &fraction, "more than 0 and less than 1")
            }
            _ => Ok(()),
        }
    }

    /// The options that decide the tokens. Threads do not, nor does the output's place.
    pub(super) fn recorded(&self) -> BTreeMap<String, String> {
        let (validation, amount) = match self.validation {
            ValSplit::None => ("val-tokens", "0".to_owned()),
            ValSplit::Tokens(tokens) => ("val-tokens", tokens.to_string()),
            ValSplit::Fraction(fraction) => ("val-fraction", fraction.to_string()),
            ValSplit::Documents(documents) => ("val-documents", documents.to_string()),
        };
        let split_documents = match self.split_documents {
            SplitDocuments::None => "none",
            SplitDocuments::BlankLine => "blank-line",
        };
        BTreeMap::from([
            ("field".to_owned(), self.field.clone()),
            ("split-documents-on".to_owned(), split_documents.to_owned()),
            (validation.to_owned(), amount),
            ("shard-tokens".to_owned(), self.shard_tokens.to_string()),
            ("prefix".to_owned(), self.prefix.clone()),
        ])
    }
}

/// Where documents begin within a plain text file. JSON lines and Parquet rows are documents already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SplitDocuments {
    /// A file is one document.
    #[default]
    None,
    /// A document ends with the blank line after it, as llm.c splits plays. The line belongs to the document, so that
    /// the documents joined are the file.
    BlankLine,
}

/// What is held out for validation. It is always the beginning of the text, as in llm.c.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ValSplit {
    /// Nothing.
    #[default]
    None,
    /// The first tokens, wherever a document ends.
    Tokens(u64),
    /// The first tokens that hold this fraction of the text's bytes, wherever a document ends. The text is read once
    /// more beforehand to know its size.
    Fraction(f64),
    /// The first documents.
    Documents(u64),
}
