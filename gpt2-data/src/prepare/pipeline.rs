//! Reading, encoding on all cores, and handing the tokens on in the order of the text.
//!
//! One thread reads and cuts text into batches, a pool encodes them, the calling thread takes the tokens. The channel
//! between them carries, in order, a place for each batch's tokens to arrive in; its capacity bounds the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use rayon::{ThreadPool, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};

use super::open::{self, Reading, Segments};
use super::segment::Segment;
use super::sources::Source;
use crate::error::DataError;
use crate::format::END_OF_TEXT;
use crate::tokenizer::Tokenizer;

/// Text in a batch, more or less: enough to make the hand-over negligible.
const BATCH_BYTES: usize = 1 << 20;

/// A place between two segments of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// Index of the source.
    pub source: usize,
    /// Segments of that source before this place.
    pub segment: u64,
}

/// Some segments in a row, perhaps of several files.
pub(super) struct Batch {
    start: Position,
    segments: Vec<Segment>,
}

impl Batch {
    fn encode(&self) -> Vec<u16> {
        let tokenizer = Tokenizer::gpt2();
        let mut tokens = Vec::new();
        for segment in &self.segments {
            if segment.starts_document {
                tokens.push(END_OF_TEXT);
            }
            tokens.extend(tokenizer.encode(&segment.text));
        }
        tokens
    }
}

/// The input from some position on, in batches.
pub(super) struct Batches<'a> {
    sources: &'a [Source],
    reading: &'a Reading,
    position: Position,
    open: Option<Segments>,
    bytes_read: Arc<AtomicU64>,
}

impl<'a> Batches<'a> {
    /// Begins at `start`. Sources before it are not opened; segments before it are read, but not encoded.
    pub(super) fn new(
        sources: &'a [Source],
        reading: &'a Reading,
        start: Position,
        bytes_read: Arc<AtomicU64>,
    ) -> Result<Self, DataError> {
        let skipped = sources.iter().take(start.source).map(|source| source.bytes).sum();
        bytes_read.fetch_add(skipped, Ordering::Relaxed);
        let mut batches = Self {
            sources,
            reading,
            position: Position { segment: 0, ..start },
            open: None,
            bytes_read,
        };
        while batches.position.segment < start.segment {
            // The hashes of the sources were compared, so the segments are there.
            if batches.next_segment()?.is_none() {
                break;
            }
        }
        Ok(batches)
    }

    fn next_segment(&mut self) -> Result<Option<Segment>, DataError> {
        loop {
            let Some(source) = self.sources.get(self.position.source) else {
                return Ok(None);
            };
            let segments = match &mut self.open {
                Some(segments) => segments,
                None => self
                    .open
                    .insert(open::open(source, self.reading, Arc::clone(&self.bytes_read))?),
            };
            if let Some(segment) = segments.next() {
                self.position.segment += 1;
                return segment.map(Some);
            }
            self.open = None;
            self.position = Position {
                source: self.position.source + 1,
                segment: 0,
            };
        }
    }

    fn next_batch(&mut self) -> Result<Option<Batch>, DataError> {
        let mut batch = Batch {
            start: self.position,
            segments: Vec::new(),
        };
        let mut bytes = 0;
        while bytes < BATCH_BYTES {
            let Some(segment) = self.next_segment()? else { break };
            bytes += segment.text.len();
            batch.segments.push(segment);
        }
        Ok((!batch.segments.is_empty()).then_some(batch))
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_batch().transpose()
    }
}

/// The threads that encode.
pub(super) fn thread_pool(threads: usize) -> Result<ThreadPool, DataError> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("encode-{index}"))
        .build()
        .map_err(|source| DataError::Threads { threads, source })
}

/// Encodes batches on the pool and gives the tokens of each to `consume`, in order, with the batch's position. At most
/// `in_flight` batches wait between reading and consuming. Stops at the first error.
pub(super) fn encode_in_order(
    batches: Batches<'_>,
    pool: &ThreadPool,
    in_flight: usize,
    mut consume: impl FnMut(Position, Vec<u16>) -> Result<(), DataError>,
) -> Result<(), DataError> {
    type Encoding = Result<(Position, Receiver<Vec<u16>>), DataError>;
    let (sender, receiver) = mpsc::sync_channel::<Encoding>(in_flight);
    thread::scope(|scope| {
        scope.spawn(move || {
            for batch in batches {
                let failed = batch.is_err();
                let encoding = batch.map(|batch| {
                    let (done, tokens) = mpsc::sync_channel(1);
                    let start = batch.start;
                    // The receiver is gone if consuming failed.
                    pool.spawn(move || drop(done.send(batch.encode())));
                    (start, tokens)
                });
                if sender.send(encoding).is_err() || failed {
                    return;
                }
            }
        });
        for encoding in receiver {
            let (start, tokens) = encoding?;
            // A worker that panics takes the process with it, so the tokens do arrive.
            let Ok(tokens) = tokens.recv() else { break };
            consume(start, tokens)?;
        }
        Ok(())
    })
}
