//! Token shards for GPT-2: the tokenizer, the preparation of text, the shards, and the order in which training reads them.
//!
//! Nothing here knows of tensors or Burn. Start with [`prepare()`] or [`demo::write`] to make shards, [`TokenStream`] to open
//! them, and [`Loader`] or [`ValidationWindows`] to get batches.

mod batch;
mod bpe;
mod dataset;
pub mod demo;
mod error;
mod format;
mod identity;
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
pub use error::{DataError, Encoding};
pub use format::{
    END_OF_TEXT, END_OF_TEXT_STR, HEADER_BYTES, LLAMA3_MAGIC, MANIFEST_FILE, MAX_SHARD_TOKENS, SHARD_MAGIC,
    SHARD_VERSION, Split, TOKENIZER_NAME, VOCAB_SIZE,
};
pub use identity::DataIdentity;
pub use inspect::{Damage, Inspection, ShardInspection, SplitInspection, inspect};
pub use loader::{Loader, LoaderConfig};
pub use manifest::{Manifest, ShardManifest, SourceManifest, SplitManifest};
pub use order::{BatchPlan, WindowOrder, Windows};
pub use prepare::{PrepareEvent, PrepareOptions, SkipReason, SplitDocuments, ValSplit, is_text, names_text, prepare};
pub use rng::SplitMix64;
pub use shard::Shard;
pub use shard_writer::ShardWriter;
pub use tokenizer::{StreamDecoder, Tokenizer};
pub use validation::ValidationWindows;
