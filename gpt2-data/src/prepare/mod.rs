//! Text into shards: what is read, how it is split, and the order of the work.
//!
//! - `options` and `event` are what is asked and told,
//! - `sources` finds the input files and tells their formats by their names,
//! - `open` opens one and cuts it into segments of text (`text`, `jsonl`, `parquet` know the formats),
//! - `pipeline` encodes the segments on all cores and hands the tokens on in order,
//! - `output` splits the tokens, writes shards, and keeps the file (`progress`) that a killed run resumes from.
//!
//! Memory is bounded by the number of threads, not by the input. Nothing here prints: what happens is reported by
//! [`PrepareEvent`]s.

mod encoding;
mod event;
mod gzip;
mod jsonl;
mod open;
mod options;
mod output;
mod parquet;
mod pipeline;
mod progress;
mod segment;
mod sources;
mod text;
mod val_limit;

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gpt2_base::fs::{Lock, LockError};
use rayon::prelude::*;

use crate::error::DataError;
use crate::format::{LOCK_FILE, MANIFEST_FILE, Split};
use crate::manifest::{Manifest, SourceManifest, sha256_file};
use open::Reading;
use output::Output;
use pipeline::Batches;
use progress::Progress;
use sources::Source;
use val_limit::ValLimit;

pub use event::{PrepareEvent, SkipReason};
pub use options::{PrepareOptions, SplitDocuments, ValSplit};
pub use sources::{is_text, names_text};

/// Encodes text into shards and a manifest.
///
/// The result depends on the inputs and options only, neither on the number of threads nor on interruptions.
///
/// # Errors
/// If an input is missing, of unknown format, damaged or not UTF-8; if the output directory holds other data or another
/// process prepares into it; if the disk is full; or if no text is left to train on.
pub fn prepare(options: &PrepareOptions, on_event: &dyn Fn(PrepareEvent)) -> Result<Manifest, DataError> {
    options.check()?;
    let found = sources::find(&options.inputs, on_event)?;
    fs::create_dir_all(&options.out).map_err(DataError::io("create", &options.out))?;
    let _lock = lock(options)?;
    if options.reuse
        && let Some(manifest) = Manifest::read(&options.out)?
        && is_of(&manifest, options, &found)
    {
        return Ok(manifest);
    }
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
        output.abort()?;
    }
    outcome
}

/// Whether a finished preparation was of these inputs, by their names, sizes and times.
fn is_of(manifest: &Manifest, options: &PrepareOptions, found: &[Source]) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
    let Some(prepared) = modified(&options.out.join(MANIFEST_FILE)) else {
        return false;
    };
    let is_same = |(before, now): (&SourceManifest, &Source)| {
        before.path == now.path
            && before.bytes == now.bytes
            && modified(&now.path).is_some_and(|changed| changed < prepared)
    };
    manifest.options == options.recorded()
        && manifest.sources.len() == found.len()
        && manifest.sources.iter().zip(found).all(is_same)
}

/// Keeps other preparations out of the directory.
fn lock(options: &PrepareOptions) -> Result<Lock, DataError> {
    let path = options.out.join(LOCK_FILE);
    let lock = if options.reuse {
        Lock::wait(&path).map_err(LockError::Io)
    } else {
        Lock::acquire(&path)
    };
    lock.map_err(|error| match error {
        LockError::Held { pid } => DataError::OutputInUse {
            path: options.out.clone(),
            pid,
        },
        LockError::Io(error) => DataError::io("lock", &path)(error),
    })
}

fn describe(source: &Source) -> Result<SourceManifest, DataError> {
    Ok(SourceManifest {
        // Names that are not UTF-8 have no place in JSON.
        path: PathBuf::from(source.path.to_string_lossy().into_owned()),
        bytes: source.bytes,
        sha256: sha256_file(&source.path)?,
    })
}

fn text_bytes(source: &Source, reading: &Reading) -> Result<u64, DataError> {
    open::open(source, reading, Arc::default())?
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
