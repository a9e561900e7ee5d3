//! CPU threads for a computation of its own: everything that computes on several does so in rayon's pool, and the BLAS has
//! none of its own.

use crate::error::BackendError;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Stack of each thread: that of a main thread, on which the work could run as well.
const STACK_BYTES: usize = 8 << 20;

/// A pool of `threads` threads. What runs inside its `install` computes on them.
///
/// # Errors
/// [`BackendError::Threads`] if the system starts no more.
pub fn thread_pool(threads: usize) -> Result<ThreadPool, BackendError> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .stack_size(STACK_BYTES)
        .build()
        .map_err(|source| BackendError::Threads {
            threads,
            reason: source.to_string(),
        })
}
