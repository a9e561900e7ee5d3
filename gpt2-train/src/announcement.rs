//! What is said until a run has its first figures: a GPU that has not seen the kernels needs seconds to compile them.

use crate::observer::{Observer, StepReport};
use gpt2_backend::DeviceProbe;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the count is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// Tells how many kernels have been compiled, until it is dropped or observes a step.
#[derive(Debug)]
pub struct KernelAnnouncement {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl KernelAnnouncement {
    /// Announces to `out` what `probe` counts: on a terminal in one line that changes, elsewhere once.
    pub fn start(
        probe: Arc<dyn DeviceProbe + Send + Sync>,
        mut out: impl Write + Send + 'static,
        is_terminal: bool,
    ) -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let announce = move || {
            // A terminal that has gone away must not stop the training.
            let mut print = |text: &str| drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
            let mut line = Line::default();
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                print(&line.next(probe.compiled_kernels(), is_terminal));
            }
            print(line.last(is_terminal));
        };
        Self {
            end: Some(end),
            thread: Some(std::thread::spawn(announce)),
        }
    }
}

impl Observer for Option<KernelAnnouncement> {
    fn step(&mut self, _: &StepReport) {
        *self = None;
    }
}

impl Drop for KernelAnnouncement {
    /// Ends the thread and clears its line.
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It only prints: if it panicked, a line is missing.
            let _ = thread.join();
        }
    }
}

/// What was printed last.
#[derive(Default)]
struct Line {
    shown: usize,
}

impl Line {
    /// What to print now that `compiled` kernels are there.
    fn next(&mut self, compiled: usize, is_terminal: bool) -> String {
        let before = std::mem::replace(&mut self.shown, compiled);
        match (compiled != before, is_terminal) {
            (true, true) => format!("\rcompiling kernels: {compiled}"),
            (true, false) if before == 0 => {
                "compiling kernels; a machine that has seen them takes a second\n".to_owned()
            }
            _ => String::new(),
        }
    }

    fn last(&self, is_terminal: bool) -> &'static str {
        if is_terminal && self.shown > 0 { "\r\x1b[K" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_changes_with_the_count() {
        let mut line = Line::default();
        assert_eq!(line.next(0, true), "");
        assert_eq!(line.last(true), "");
        assert_eq!(line.next(2, true), "\rcompiling kernels: 2");
        assert_eq!(line.next(2, true), "");
        assert_eq!(line.next(5, true), "\rcompiling kernels: 5");
        assert_eq!(line.last(true), "\r\x1b[K");
    }

    #[test]
    fn a_log_has_one_line() {
        let mut line = Line::default();
        assert!(line.next(1, false).starts_with("compiling kernels;"));
        assert_eq!(line.next(2, false), "");
        assert_eq!(line.last(false), "");
    }
}
