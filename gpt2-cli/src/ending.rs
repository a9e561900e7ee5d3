//! How this process ends where it is one of several: as a rank, or as what has started them.

use std::io::Write as _;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Whether this process is one of several ranks.
static JOINED: AtomicBool = AtomicBool::new(false);

/// The ranks that this process has started and not waited for.
static STARTED: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// From now on this process is one of several ranks.
pub(crate) fn become_rank() {
    JOINED.store(true, Ordering::Relaxed);
}

/// Ends this process, if it is one of several ranks, without what runs at a usual exit.
pub(crate) fn leave_as_rank(code: i32) {
    if JOINED.load(Ordering::Relaxed) {
        // If they are closed there is no one left to tell.
        let _ = std::io::stdout().flush();
        leave(code);
    }
}

/// Ends the process at once. What runs at a usual exit could wait for a rank that is not there any more.
pub(crate) fn leave(code: i32) -> ! {
    #[cfg(unix)]
    // SAFETY: it ends the process, and so takes nothing from anyone.
    unsafe {
        libc::_exit(code)
    }
    #[cfg(not(unix))]
    std::process::exit(code)
}

/// The ranks that this process has started.
pub(crate) fn started() -> MutexGuard<'static, Vec<Child>> {
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the ranks that this process has started, if any, at once: also one that is stopped.
pub(crate) fn end_started() {
    for rank in started().iter_mut() {
        let _ = rank.kill();
    }
}
