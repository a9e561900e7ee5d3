//! SIGINT and SIGTERM: the first saves and leaves, the second leaves at once.

use crate::diagnostics::note;
use crate::error::CliError;
use gpt2_train::restore_terminal;
use gpt2_train::stop::StopRequest;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a program that a signal ended (128 + SIGINT).
const INTERRUPTED: i32 = 130;

/// Asks a run to stop on a signal.
///
/// # Errors
/// [`CliError::Signals`] if the handler cannot be set.
pub(crate) fn stop_on_signals(stop: &StopRequest) -> Result<(), CliError> {
    let stop = stop.clone();
    let stopping = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        if stopping.swap(true, Ordering::Relaxed) {
            restore_terminal();
            std::process::exit(INTERRUPTED);
        }
        stop.stop("a signal");
        note("stopping after this step; a second signal leaves at once");
    })
    .map_err(|source| CliError::Signals { source })
}
