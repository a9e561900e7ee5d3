//! How this process ends where it is one of several: as a rank, or as what has started them.

use std::io::Write as _;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a rank that was killed is waited for: a device's driver may keep it.
const KILLED: Duration = Duration::from_secs(10);

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

/// Ends the ranks that this process has started, if any, at once, also one that is stopped, and waits until they are
/// gone: what is killed may still hold a device's memory for a moment.
///
/// Who keeps what is returned is the only one to learn how they ended.
pub(crate) fn end_started() -> MutexGuard<'static, Vec<Child>> {
    let mut ranks = started();
    for rank in ranks.iter_mut() {
        let _ = rank.kill();
    }
    let since = Instant::now();
    while since.elapsed() < KILLED && ranks.iter_mut().any(|rank| matches!(rank.try_wait(), Ok(None))) {
        thread::sleep(Duration::from_millis(5));
    }
    ranks
}
