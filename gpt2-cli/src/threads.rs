//! How many CPU threads there are. Everything that computes on several does so in rayon's pool; the BLAS has none of its own.

use crate::error::CliError;

/// Sets the number of threads. To be called once, before any tensor.
///
/// # Errors
/// [`CliError::Threads`] if the pool cannot be started.
pub(crate) fn set(threads: usize) -> Result<(), CliError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|source| CliError::Threads { threads, source })
}
