//! Burn's terminal dashboard, kept from taking a core and from swallowing Ctrl-C.

use burn::train::Interrupter;
use burn::train::renderer::tui::TuiMetricsRendererWrapper;
use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{LeaveAlternateScreen, disable_raw_mode, is_raw_mode_enabled};
use std::time::Duration;

/// Starts the dashboard. `window` is the number of windows that a resumed run has behind it.
///
/// The dashboard's thread polls for events without a pause, which would cost a CPU run one of its cores. A thread inherits
/// the priority of the one that starts it, so it is started from one of the lowest: it then takes only idle time.
pub(crate) fn dashboard(interrupter: Interrupter, window: Option<usize>) -> TuiMetricsRendererWrapper {
    let start = move || {
        lower_priority();
        TuiMetricsRendererWrapper::new(interrupter, window)
    };
    let renderer = std::thread::scope(|scope| scope.spawn(start).join());
    match renderer {
        Ok(renderer) => {
            let_signals_through();
            renderer
        }
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Gives the terminal back, for a process that ends without dropping its dashboard. Does nothing where there is none.
pub fn restore_terminal() {
    if is_raw_mode_enabled().unwrap_or(false) {
        // The process is about to end: there is nobody to tell of a failure.
        let _ = disable_raw_mode();
        let _ = execute!(std::io::stdout(), LeaveAlternateScreen, Show);
    }
}

/// Raw mode turns Ctrl-C into a key that the dashboard does not know. This makes it a signal again.
#[cfg(unix)]
fn let_signals_through() {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    // The dashboard's thread switches raw mode on when it starts, and says so nowhere else.
    for _ in 0..100 {
        if is_raw_mode_enabled().unwrap_or(false) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let stdin = std::io::stdin();
    if let Ok(mut modes) = tcgetattr(&stdin) {
        modes.local_modes |= LocalModes::ISIG;
        // If the terminal refuses, `q` still stops the run.
        let _ = tcsetattr(&stdin, OptionalActions::Now, &modes);
    }
}

#[cfg(not(unix))]
fn let_signals_through() {}

#[cfg(target_os = "linux")]
fn lower_priority() {
    // On Linux this is the priority of the calling thread alone. If it is refused the dashboard only costs more.
    let _ = rustix::process::setpriority_process(None, 19);
}

#[cfg(not(target_os = "linux"))]
fn lower_priority() {}
