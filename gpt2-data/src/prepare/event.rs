//! What is told while a preparation goes on.

use std::path::PathBuf;

use crate::format::Split;

/// What happens during [`prepare()`](crate::prepare()).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrepareEvent {
    /// A file in a directory or pattern was left out.
    Skipped {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: SkipReason,
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

/// Why a file was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// Its name does not tell that it is text.
    Name,
    /// It is about the directory, as `README.md` and `LICENSE.txt` are. Named as an input it is read.
    AboutTheData,
    /// It is a pipe, a device or a socket.
    NotAFile,
    /// It is a link to a file that is read already.
    Repeated,
}
