//! Burn's terminal dashboard, kept from taking a core and from the keys that end a run.

use crate::terminal::Terminal;
use burn::train::metric::MetricDefinition;
use burn::train::renderer::tui::TuiMetricsRendererWrapper;
use burn::train::renderer::{
    EvaluationName, EvaluationProgress, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining, ProgressType, TrainingProgress,
};
use burn::train::{Interrupter, LearnerSummary};
use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use std::error::Error;
use std::io::{self, IsTerminal};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

/// What Burn calls the thread that draws.
const DRAWING_THREAD: &str = "train-renderer";

/// Burn's dashboard, for as long as it has the terminal.
///
/// In it `q` raises SIGQUIT and Ctrl-C SIGINT, so that the program which handles signals ends the run by either: Burn's own
/// answer to `q` is a dialog that offers to panic. The arrow keys are Burn's.
pub(crate) struct Dashboard {
    tui: Option<TuiMetricsRendererWrapper>,
    is_lost: Arc<AtomicBool>,
}

impl Dashboard {
    /// Starts the dashboard if the terminal takes it, and sets `is_lost` where it does not, or not any more.
    pub(crate) fn start(interrupter: Interrupter, is_lost: Arc<AtomicBool>) -> Self {
        // The process may have gone to the background since the caller looked.
        let tui = Terminal::detect().takes_dashboard() && take_terminal().is_ok();
        is_lost.store(!tui, Ordering::Relaxed);
        Self {
            tui: tui.then(|| start_tui(interrupter)),
            is_lost,
        }
    }

    /// The dashboard, if its thread still has the terminal.
    fn tui(&mut self) -> Option<&mut TuiMetricsRendererWrapper> {
        // The thread gives the terminal back when it ends, for whatever reason, and says so nowhere else.
        if !dashboard_is_shown() {
            self.is_lost.store(true, Ordering::Relaxed);
            if let Some(tui) = self.tui.take()
                && leave_lost_terminal()
            {
                // To drop it is to wait for Burn's thread, which may never stop reading from a terminal that is gone.
                let _ = thread::Builder::new().spawn(move || drop(tui));
            }
        }
        self.tui.as_mut()
    }
}

/// Burn's dashboard, on a thread of the lowest priority.
///
/// The thread polls for events without a pause, which would cost a CPU run one of its cores. A thread inherits the
/// priority of the one that starts it, so it is started from one of the lowest: it then takes only idle time.
fn start_tui(interrupter: Interrupter) -> TuiMetricsRendererWrapper {
    contain_panics();
    let start = move || {
        lower_priority();
        TuiMetricsRendererWrapper::new(interrupter, None)
    };
    thread::scope(|scope| scope.spawn(start).join()).unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Keeps a terminal that is gone from ending the process.
///
/// Burn's thread then panics, since it cannot give the terminal back. While that unwinds, it fails to show the cursor
/// and says so on standard error; if that fails too, it is a second panic, and the process is aborted.
fn contain_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let is_drawing = thread::current().name() == Some(DRAWING_THREAD);
            if !(is_drawing && leave_lost_terminal()) {
                previous(info);
            }
        }));
    });
}

/// Whether the terminal is gone. If so, the standard streams that were on it lead to `/dev/null` from now on, where no
/// write fails.
#[cfg(unix)]
fn leave_lost_terminal() -> bool {
    use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
    use std::fs::File;
    use std::sync::{Mutex, PoisonError};
    static IS_LOST: Mutex<bool> = Mutex::new(false);

    let mut is_lost = IS_LOST.lock().unwrap_or_else(PoisonError::into_inner);
    let streams = [is_hung_up(&io::stdin()), is_hung_up(&io::stdout())];
    if !*is_lost && streams.contains(&true) {
        *is_lost = true;
        if let Ok(nowhere) = File::options().read(true).write(true).open("/dev/null") {
            // A stream that cannot be replaced stays as it is.
            if streams[0] {
                let _ = dup2_stdin(&nowhere);
            }
            if streams[1] {
                let _ = dup2_stdout(&nowhere);
            }
            if is_hung_up(&io::stderr()) {
                let _ = dup2_stderr(&nowhere);
            }
        }
    }
    *is_lost
}

/// Elsewhere there is no dashboard.
#[cfg(not(unix))]
fn leave_lost_terminal() -> bool {
    false
}

/// Whether the other side of a terminal or a pipe is gone. poll knows it of a terminal no later than a write fails.
#[cfg(unix)]
fn is_hung_up(stream: &impl std::os::fd::AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    let mut polled = [PollFd::new(stream, PollFlags::empty())];
    poll(&mut polled, Some(&Timespec::default())).is_ok()
        && polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Does all that Burn's thread does first, and would panic if it failed; there it then succeeds.
fn take_terminal() -> io::Result<()> {
    let take = || {
        // Burn's call of this finds it done, and leaves the keys as they are set here.
        enable_raw_mode()?;
        set_keys()?;
        crossterm::terminal::size()?;
        crossterm::event::poll(Duration::ZERO)?;
        execute!(io::stdout(), EnterAlternateScreen)
    };
    take().inspect_err(|_| restore_terminal())
}

/// Raw mode makes every key a character. This makes Ctrl-C and `q` signals, which Burn does not see.
#[cfg(unix)]
fn set_keys() -> io::Result<()> {
    use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr};
    /// `_POSIX_VDISABLE`: no character does this.
    const NO_KEY: u8 = if cfg!(target_os = "linux") { 0 } else { 0xff };

    let stdin = io::stdin();
    let mut modes = tcgetattr(&stdin)?;
    // NOFLSH: what is half drawn when the signal comes is not thrown away.
    modes.local_modes |= LocalModes::ISIG | LocalModes::NOFLSH;
    modes.special_codes[SpecialCodeIndex::VQUIT] = b'q';
    // Stopped by Ctrl-Z, the dashboard would leave its screen to the shell.
    modes.special_codes[SpecialCodeIndex::VSUSP] = NO_KEY;
    // What was typed before there was a dashboard was not meant for it.
    Ok(tcsetattr(&stdin, OptionalActions::Flush, &modes)?)
}

#[cfg(not(unix))]
fn set_keys() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
fn lower_priority() {
    // On Linux this is the priority of the calling thread alone. If it is refused the dashboard only costs more.
    let _ = rustix::process::setpriority_process(None, 19);
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}

/// Whether a dashboard has the terminal.
pub fn dashboard_is_shown() -> bool {
    // Of a terminal that is gone the mode cannot be changed back.
    crossterm::terminal::is_raw_mode_enabled().unwrap_or(false) && io::stdin().is_terminal()
}

/// Gives the terminal back, for a process that ends without dropping its dashboard. Does nothing where there is none.
pub fn restore_terminal() {
    if dashboard_is_shown() {
        // The process is about to end, or shows lines instead: a failure changes nothing.
        let _ = disable_raw_mode();
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    }
}

impl MetricsRendererTraining for Dashboard {
    fn update_train(&mut self, state: MetricState) {
        if let Some(tui) = self.tui() {
            tui.update_train(state);
        }
    }

    fn update_valid(&mut self, state: MetricState) {
        if let Some(tui) = self.tui() {
            tui.update_valid(state);
        }
    }

    fn render_train(&mut self, item: TrainingProgress, indicators: Vec<ProgressType>) {
        if let Some(tui) = self.tui() {
            tui.render_train(item, indicators);
        }
    }

    fn render_valid(&mut self, item: TrainingProgress, indicators: Vec<ProgressType>) {
        if let Some(tui) = self.tui() {
            tui.render_valid(item, indicators);
        }
    }

    fn on_train_end(&mut self, summary: Option<LearnerSummary>) -> Result<(), Box<dyn Error>> {
        self.tui().map_or(Ok(()), |tui| tui.on_train_end(summary))
    }
}

impl MetricsRendererEvaluation for Dashboard {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}
    fn render_test(&mut self, _: EvaluationProgress, _: Vec<ProgressType>) {}
}

impl MetricsRenderer for Dashboard {
    fn manual_close(&mut self) {
        if let Some(tui) = self.tui() {
            tui.manual_close();
        }
    }

    fn register_metric(&mut self, definition: MetricDefinition) {
        if let Some(tui) = self.tui() {
            tui.register_metric(definition);
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_stream_whose_other_side_is_gone_is_hung_up() {
        let (reader, writer) = io::pipe().unwrap();
        assert!(!is_hung_up(&reader) && !is_hung_up(&writer));
        drop(reader);
        assert!(is_hung_up(&writer));
    }
}
