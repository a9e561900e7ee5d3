//! Burn's terminal dashboard, kept from taking a core and from the keys that end a run; and lines where it cannot be.

use super::plain::PlainRenderer;
use super::terminal::Terminal;
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
use std::io;
use std::time::Duration;

/// Burn's dashboard while it has the terminal, and lines where it gets none or loses it.
///
/// In it `q` raises SIGQUIT and Ctrl-C SIGINT, so that the program which handles signals ends the run by either: Burn's
/// own answer to `q` is a dialog that offers to panic. The arrow keys are Burn's.
pub struct Dashboard {
    tui: Option<TuiMetricsRendererWrapper>,
    lines: PlainRenderer,
}

impl Dashboard {
    /// Starts the dashboard if the terminal takes it. `window` is the number of windows that a resumed run has behind
    /// it; lines come every `log_every` steps.
    pub fn start(interrupter: Interrupter, window: Option<usize>, log_every: u64) -> Self {
        // The process may have gone to the background since the caller looked.
        let tui = Terminal::detect().takes_dashboard() && take_terminal().is_ok();
        Self {
            tui: tui.then(|| start_tui(interrupter, window)),
            lines: PlainRenderer::new(log_every),
        }
    }

    /// The dashboard, if its thread still has the terminal.
    fn tui(&mut self) -> Option<&mut TuiMetricsRendererWrapper> {
        // The thread gives the terminal back when it ends, for whatever reason, and says so nowhere else.
        if !dashboard_is_shown() {
            self.tui = None;
        }
        self.tui.as_mut()
    }
}

/// Burn's dashboard, on a thread of the lowest priority.
///
/// The thread polls for events without a pause, which would cost a CPU run one of its cores. A thread inherits the
/// priority of the one that starts it, so it is started from one of the lowest: it then takes only idle time.
fn start_tui(interrupter: Interrupter, window: Option<usize>) -> TuiMetricsRendererWrapper {
    let start = move || {
        lower_priority();
        TuiMetricsRendererWrapper::new(interrupter, window)
    };
    std::thread::scope(|scope| scope.spawn(start).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
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
    crossterm::terminal::is_raw_mode_enabled().unwrap_or(false)
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
    // The lines are kept up to date, so that they can go on where the dashboard ends.
    fn update_train(&mut self, state: MetricState) {
        if self.tui().is_none() {
            return self.lines.update_train(state);
        }
        self.lines.take_in(&state);
        if let Some(tui) = &mut self.tui {
            tui.update_train(state);
        }
    }

    fn update_valid(&mut self, state: MetricState) {
        if self.tui().is_none() {
            return self.lines.update_valid(state);
        }
        self.lines.take_in(&state);
        if let Some(tui) = &mut self.tui {
            tui.update_valid(state);
        }
    }

    fn render_train(&mut self, item: TrainingProgress, indicators: Vec<ProgressType>) {
        match self.tui() {
            Some(tui) => tui.render_train(item, indicators),
            None => self.lines.render_train(item, indicators),
        }
    }

    fn render_valid(&mut self, item: TrainingProgress, indicators: Vec<ProgressType>) {
        match self.tui() {
            Some(tui) => tui.render_valid(item, indicators),
            None => self.lines.render_valid(item, indicators),
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
        self.lines.register_metric(definition.clone());
        if let Some(tui) = self.tui() {
            tui.register_metric(definition);
        }
    }
}
