//! Token shards for GPT-2: the tokenizer, the preparation of text, the shards, and the order in which training reads them.
//!
//! Nothing here knows of tensors or Burn. Start with [`prepare()`] or [`demo::write`] to make shards, [`TokenStream`] to open
//! them, and [`Loader`] or [`ValidationWindows`] to get batches.

#![warn(missing_docs)]

mod atomic;
mod batch;
mod dataset;
pub mod demo;
mod error;
mod inspect;
mod loader;
mod manifest;
mod order;
mod prepare;
mod rng;
mod shard;
mod shard_writer;
mod tokenizer;
mod tokenizer_files;
mod validation;

pub use batch::TokenBatch;
pub use dataset::TokenStream;
pub use error::DataError;
pub use inspect::{Damage, Inspection, ShardInspection, SplitInspection, inspect};
pub use loader::{Loader, LoaderConfig};
pub use manifest::{MANIFEST_FILE, Manifest, ShardManifest, SourceManifest, Split, SplitManifest, sha256_file};
pub use order::{BatchPlan, WindowOrder, Windows};
pub use prepare::{PrepareEvent, PrepareOptions, SplitDocuments, ValSplit, prepare};
pub use rng::SplitMix64;
pub use shard::{HEADER_BYTES, LLAMA3_MAGIC, MAX_SHARD_TOKENS, SHARD_MAGIC, SHARD_VERSION, Shard};
pub use shard_writer::ShardWriter;
pub use tokenizer::{END_OF_TEXT, END_OF_TEXT_STR, StreamDecoder, TOKENIZER_NAME, Tokenizer, VOCAB_SIZE};
pub use validation::ValidationWindows;
