//! Signals: the first one saves the runs of this process and ends them, the second ends the process at once.

use crate::diagnostics::note;
use crate::ending;
use crate::error::CliError;
use gpt2_train::restore_terminal;
use gpt2_train::stop::StopRequest;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Signals that are closer together count as one: `timeout` sends its own to the program and then to the group that it is in.
const AS_ONE: Duration = Duration::from_millis(300);

/// The runs that a signal stops.
static RUNS: Mutex<Vec<Run>> = Mutex::new(Vec::new());

struct Run {
    stop: StopRequest,
    number: u64,
    /// When the first signal came.
    stopping_since: Option<Instant>,
}

fn runs() -> MutexGuard<'static, Vec<Run>> {
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets the handlers, once for the process. While no run is registered a signal does what it does by default.
///
/// A signal that is ignored when the process starts stays ignored: `nohup` says so of SIGHUP, and a shell without job
/// control of a background job's SIGINT.
///
/// # Errors
/// [`CliError::Signals`] if they cannot be set.
pub(crate) fn install() -> Result<(), CliError> {
    platform::install().map_err(|source| CliError::Signals { source })
}

/// Stops `stop`'s run on a signal, for as long as what is returned lives.
pub(crate) fn stop_on_signals(stop: &StopRequest) -> StoppedBySignals {
    let mut runs = runs();
    let number = runs.last().map_or(0, |run| run.number + 1);
    runs.push(Run {
        stop: stop.clone(),
        number,
        stopping_since: None,
    });
    StoppedBySignals(number)
}

/// Stops the runs also when the process that has started this one passes a signal on, which may have reached this one by itself
/// as well, as Ctrl-C does: it never counts as a second.
///
/// # Errors
/// [`CliError::Signals`] if the handler cannot be set.
#[cfg(unix)]
pub(crate) fn heed_launcher() -> Result<(), CliError> {
    platform::heed_launcher().map_err(|source| CliError::Signals { source })
}

/// What passes a signal on to the ranks that this process has started.
#[cfg(unix)]
pub(crate) const PASSED_ON: rustix::process::Signal = rustix::process::Signal::USR1;

/// A run that a signal stops, until this is dropped.
#[derive(Debug)]
#[must_use = "a signal stops the run only while this lives"]
pub(crate) struct StoppedBySignals(u64);

impl Drop for StoppedBySignals {
    fn drop(&mut self) {
        runs().retain(|run| run.number != self.0);
    }
}

/// What to do on a signal.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// There is nothing to save.
    Default,
    /// The runs save and stop.
    Stop,
    /// The one before has stopped them just now.
    AsOne,
    /// They were stopping already.
    Exit,
}

/// Stops every registered run, whose record will say `by`.
fn stop_runs(by: &str, now: Instant) -> Answer {
    let mut runs = runs();
    if runs.is_empty() {
        return Answer::Default;
    }
    if let Some(since) = runs.iter().filter_map(|run| run.stopping_since).min() {
        return if now.duration_since(since) < AS_ONE {
            Answer::AsOne
        } else {
            Answer::Exit
        };
    }
    for run in runs.iter_mut() {
        run.stopping_since = Some(now);
        run.stop.stop(by);
    }
    Answer::Stop
}

fn heed(by: &str, code: i32, default: impl FnOnce()) {
    match stop_runs(by, Instant::now()) {
        Answer::Default => {
            restore_terminal();
            default();
        }
        Answer::Stop => note("stopping after this step; a second signal leaves at once"),
        Answer::AsOne => {}
        Answer::Exit => {
            restore_terminal();
            // Kept to the end: what waits for them would say that they were ended, and end this process its way.
            let _ranks = ending::end_started();
            ending::leave_as_rank(code);
            std::process::exit(code);
        }
    }
}

#[cfg(unix)]
mod platform {
    use super::Answer;
    use gpt2_train::dashboard_is_shown;
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::emulate_default_handler;
    use std::io;
    use std::mem::MaybeUninit;
    use std::ptr;
    use std::time::Instant;

    /// The exit code of a program that signal `n` ended is this and `n`, by the custom of shells.
    const ENDED_BY_SIGNAL: i32 = 128;

    pub(super) fn install() -> io::Result<()> {
        let heeded = [SIGINT, SIGTERM, SIGHUP, SIGQUIT]
            .into_iter()
            .filter(|&signal| !is_ignored(signal));
        let mut signals = Signals::new(heeded)?;
        let wait = move || {
            for signal in signals.forever() {
                super::heed(name(signal), ENDED_BY_SIGNAL + signal, || {
                    // It knows all four.
                    let _ = emulate_default_handler(signal);
                });
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(wait)?;
        Ok(())
    }

    pub(super) fn heed_launcher() -> io::Result<()> {
        let mut signals = Signals::new([SIGUSR1])?;
        let wait = move || {
            for signal in signals.forever() {
                let is_stopping = super::runs().iter().any(|run| run.stopping_since.is_some());
                if !is_stopping && super::stop_runs("a signal to the launcher", Instant::now()) == Answer::Default {
                    let _ = emulate_default_handler(signal);
                }
            }
        };
        std::thread::Builder::new().name("launcher".into()).spawn(wait)?;
        Ok(())
    }

    /// What the user is told about who stopped the run.
    fn name(signal: i32) -> &'static str {
        match signal {
            SIGINT => "SIGINT",
            SIGTERM => "SIGTERM",
            SIGHUP => "SIGHUP",
            // How the dashboard's key comes.
            _ if dashboard_is_shown() => "the key q",
            _ => "SIGQUIT",
        }
    }

    fn is_ignored(signal: i32) -> bool {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: without a new action the call only writes the present one, which is read only if it succeeded.
        unsafe {
            libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) == 0
                && action.assume_init().sa_sigaction == libc::SIG_IGN
        }
    }
}

#[cfg(not(unix))]
mod platform {
    use std::io;

    /// The exit code of a program that Ctrl-C ended, as on Unix.
    const INTERRUPTED: i32 = 130;

    pub(super) fn install() -> io::Result<()> {
        ctrlc::set_handler(|| super::heed("Ctrl-C", INTERRUPTED, || std::process::exit(INTERRUPTED)))
            .map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test: the runs are the process's.
    #[test]
    fn the_first_signal_stops_every_run_and_the_second_the_process() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        assert_eq!(stop_runs("SIGINT", now), Answer::Default);
        let (first, second) = (StopRequest::default(), StopRequest::default());
        let ended = stop_on_signals(&first);
        let registered = stop_on_signals(&second);
        drop(ended);
        assert_eq!(stop_runs("SIGINT", now), Answer::Stop);
        assert_eq!(first.requested_by(), None);
        assert_eq!(second.requested_by().as_deref(), Some("SIGINT"));
        assert_eq!(stop_runs("SIGINT", now), Answer::AsOne, "as `timeout` sends it twice");
        assert_eq!(stop_runs("SIGTERM", later), Answer::Exit);
        drop(registered);
        let _next = stop_on_signals(&first);
        assert_eq!(stop_runs("SIGTERM", later), Answer::Stop);
    }
}
