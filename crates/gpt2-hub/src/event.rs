//! What is told while files go to and fro.

use std::path::Path;

/// Something that happened. Events come on the thread that called.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum HubEvent<'a> {
    /// What is about to be fetched or sent: nothing, if all is there already. It comes a second time for the shards of
    /// weights, which are known when their list has arrived.
    Begin {
        /// How many files.
        files: usize,
        /// Bytes of all of them.
        bytes: u64,
    },
    /// How far a file is. The first event of a file has the bytes that an earlier attempt left, and the last has all.
    Progress {
        /// Its path in the repository.
        file: &'a str,
        /// Bytes so far.
        bytes: u64,
        /// Its size.
        total: u64,
    },
    /// A connection broke, and the file is about to be gone on with.
    Retry {
        /// Its path in the repository.
        file: &'a str,
        /// Bytes so far.
        bytes: u64,
        /// What happened.
        reason: &'a str,
    },
    /// The hub could not be reached, and what the cache has was enough.
    FromCache {
        /// Of which commit.
        commit: &'a str,
        /// The cache.
        cache: &'a Path,
        /// Why the hub was not reached.
        reason: &'a str,
    },
}
