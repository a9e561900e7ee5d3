//! Text into shards: what is read, how it is split, and the order of the work.
//!
//! - `sources` finds the input files and tells their formats by their names,
//! - `segments` opens one and cuts it into pieces of text (`text`, `jsonl`, `parquet` know the formats),
//! - `pipeline` encodes the pieces on all cores and hands the tokens on in order,
//! - `output` splits the tokens, writes shards, and keeps the notes (`progress`) that a killed run resumes from.
//!
//! Memory is bounded by the number of threads, not by the input. Nothing here prints: what happens is reported by
//! [`PrepareEvent`]s.

mod jsonl;
mod output;
mod parquet;
mod pipeline;
mod progress;
mod segments;
mod sources;
mod text;
mod val_limit;

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::shard::MAX_SHARD_TOKENS;
use crate::{DataError, Manifest, SourceManifest, Split, sha256_file};
use output::Output;
use pipeline::Batches;
use progress::Progress;
use segments::Reading;
use sources::Source;
use val_limit::ValLimit;

pub(crate) use progress::PROGRESS_FILE;
pub(crate) use sources::KNOWN_EXTENSIONS;
pub(crate) use val_limit::documents;

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
        }
    }

    fn check(&self) -> Result<(), DataError> {
        let invalid = |option, value: &dyn ToString, expected| {
            Err(DataError::InvalidOption {
                option,
                value: value.to_string(),
                expected,
            })
        };
        if self.inputs.is_empty() {
            return invalid("--input", &"missing", "at least one file, directory or pattern");
        }
        if !(1..=MAX_SHARD_TOKENS).contains(&self.shard_tokens) {
            return invalid("--shard-tokens", &self.shard_tokens, "1 to 2147483647");
        }
        if self.field.is_empty() {
            return invalid("--field", &"empty", "the name of the field that holds the text");
        }
        if self.prefix.is_empty() || self.prefix.contains(['/', '\\']) {
            return invalid(
                "--prefix",
                &format!("{:?}", self.prefix),
                "the beginning of a file name",
            );
        }
        // Later the split is told by the file name, in which the prefix must not claim one of its own.
        if Split::of_file_name(&format!("{}.bin", self.prefix)).is_some() {
            return invalid(
                "--prefix",
                &format!("{:?}", self.prefix),
                "a name without the words `train` and `val`",
            );
        }
        match self.validation {
            ValSplit::Tokens(0) => invalid("--val-tokens", &0, "at least 1"),
            ValSplit::Documents(0) => invalid("--val-documents", &0, "at least 1"),
            ValSplit::Fraction(fraction) if !(fraction > 0.0 && fraction < 1.0) => {
                invalid("--val-fraction", &fraction, "more than 0 and less than 1")
            }
            _ => Ok(()),
        }
    }

    /// The options that decide the tokens. Threads do not, nor does the output's place.
    fn recorded(&self) -> BTreeMap<String, String> {
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

/// What happens during [`prepare()`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrepareEvent {
    /// A file in a directory or pattern was left out, because its name does not tell that it is text.
    Skipped {
        /// The file.
        path: PathBuf,
    },
    /// The input files are being hashed.
    Hashing {
        /// How many files.
        sources: usize,
        /// Their size on disk.
        bytes: u64,
    },
    /// The size of the text is being taken, which a fraction needs.
    Measuring,
    /// An interrupted run is continued.
    Resuming {
        /// Shards that are kept.
        shards: usize,
        /// Tokens in them.
        tokens: u64,
    },
    /// More text was encoded.
    Progress {
        /// Bytes of the input files read so far, as they lie on disk.
        bytes_read: u64,
        /// Size of all input files.
        bytes_total: u64,
        /// Documents so far.
        documents: u64,
        /// Tokens so far.
        tokens: u64,
    },
    /// A shard is complete and safe.
    ShardFinished {
        /// Its split.
        split: Split,
        /// Its name.
        file: String,
        /// Tokens in it.
        tokens: u64,
    },
}

/// Encodes text into shards and a manifest.
///
/// The result depends on the inputs and options only, neither on the number of threads nor on interruptions.
///
/// # Errors
/// If an input is missing, of unknown format, damaged or not UTF-8; if the output directory holds other data; if the
/// disk is full; or if no text is left to train on.
pub fn prepare(options: &PrepareOptions, on_event: &dyn Fn(PrepareEvent)) -> Result<Manifest, DataError> {
    options.check()?;
    let found = sources::find(&options.inputs, on_event)?;
    fs::create_dir_all(&options.out).map_err(DataError::io("create", &options.out))?;
    let begun = progress::find_begun(&options.out, options.resume)?;

    let threads = options
        .threads
        .map_or_else(rayon::current_num_threads, NonZeroUsize::get);
    let pool = pipeline::thread_pool(threads)?;
    let bytes_total = found.iter().map(|source| source.bytes).sum();
    on_event(PrepareEvent::Hashing {
        sources: found.len(),
        bytes: bytes_total,
    });
    let described = pool.install(|| found.par_iter().map(describe).collect::<Result<Vec<_>, _>>())?;

    let mut empty = Manifest::new();
    empty.sources = described;
    empty.options = options.recorded();
    let reading = Reading {
        field: options.field.clone(),
        split_documents: options.split_documents,
        scratch: options.out.clone(),
    };

    let progress = if let Some(begun) = begun {
        begun.check_continues(&options.out, &empty)?;
        if begun.is_complete() {
            return begun.complete(&options.out);
        }
        let shards = Split::ALL
            .iter()
            .map(|&split| begun.manifest.split(split).shards.len())
            .sum();
        on_event(PrepareEvent::Resuming {
            shards,
            tokens: begun.tokens(),
        });
        begun
    } else {
        let limit = val_limit(options, || {
            on_event(PrepareEvent::Measuring);
            pool.install(|| found.par_iter().map(|source| text_bytes(source, &reading)).sum())
        })?;
        Progress::new(empty, limit)
    };

    let bytes_read = Arc::new(AtomicU64::new(0));
    let batches = Batches::new(&found, &reading, progress.position, Arc::clone(&bytes_read))?;
    let mut output = Output::begin(&options.out, &options.prefix, options.shard_tokens, progress)?;
    let outcome = pipeline::encode_in_order(batches, &pool, 2 * threads, |start, tokens| {
        output.write(start, &tokens, on_event)?;
        on_event(PrepareEvent::Progress {
            bytes_read: bytes_read.load(Ordering::Relaxed).min(bytes_total),
            bytes_total,
            documents: output.documents(),
            tokens: output.tokens(),
        });
        Ok(())
    });
    let outcome = outcome.and_then(|()| output.finish(on_event));
    if outcome.is_err() {
        output.abandon()?;
    }
    outcome
}

fn describe(source: &Source) -> Result<SourceManifest, DataError> {
    Ok(SourceManifest {
        path: source.path.clone(),
        bytes: source.bytes,
        sha256: sha256_file(&source.path)?,
    })
}

fn text_bytes(source: &Source, reading: &Reading) -> Result<u64, DataError> {
    segments::open(source, reading, Arc::default())?
        .map(|segment| segment.map(|it| it.text.len() as u64))
        .sum()
}

fn val_limit(
    options: &PrepareOptions,
    text_bytes: impl FnOnce() -> Result<u64, DataError>,
) -> Result<Option<ValLimit>, DataError> {
    Ok(match options.validation {
        ValSplit::None => None,
        ValSplit::Tokens(tokens) => Some(ValLimit::Tokens(tokens)),
        ValSplit::Documents(documents) => Some(ValLimit::Documents(documents)),
        ValSplit::Fraction(fraction) => Some(ValLimit::TextBytes((text_bytes()? as f64 * fraction).ceil() as u64)),
    })
}
