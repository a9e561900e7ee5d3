//! What is said until a run has its first figures: a GPU that has not seen the kernels needs seconds to compile them.

use super::terminal::takes_escape_codes;
use burn::train::LearnerSummary;
use burn::train::metric::MetricDefinition;
use burn::train::renderer::{
    EvaluationName, EvaluationProgress, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining, ProgressType, TrainingProgress,
};
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the count is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// Tells on standard error how many kernels have been compiled, and makes the renderer when there is something to show: a
/// dashboard that covers the terminal would cover that line too.
pub(crate) struct Announced<R> {
    make: Option<Box<dyn FnOnce() -> R + Send + Sync>>,
    renderer: Option<R>,
    metrics: Vec<MetricDefinition>,
    announcement: Option<Announcement>,
}

impl<R: MetricsRenderer> Announced<R> {
    /// Announces what `compiled` counts until the renderer that `make` gives has something to show.
    pub(crate) fn new(
        compiled: impl Fn() -> usize + Send + 'static,
        make: impl FnOnce() -> R + Send + Sync + 'static,
    ) -> Self {
        Self {
            make: Some(Box::new(make)),
            renderer: None,
            metrics: Vec::new(),
            announcement: Some(Announcement::start(compiled)),
        }
    }

    fn renderer(&mut self) -> &mut R {
        self.announcement = None;
        self.renderer.get_or_insert_with(|| {
            let make = self.make.take().expect("a renderer is made once");
            let mut renderer = make();
            for definition in self.metrics.drain(..) {
                renderer.register_metric(definition);
            }
            renderer
        })
    }
}

/// The thread that prints. Dropping it ends and clears its line.
struct Announcement {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Announcement {
    fn start(compiled: impl Fn() -> usize + Send + 'static) -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let print = move || {
            let terminal = std::io::stderr().is_terminal() && takes_escape_codes(std::env::var_os("TERM").as_deref());
            let mut line = Line::default();
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                print(&line.next(compiled(), terminal));
            }
            print(line.last(terminal));
        };
        Self {
            end: Some(end),
            thread: Some(std::thread::spawn(print)),
        }
    }
}

impl Drop for Announcement {
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
    /// What to print now that `compiled` kernels are there: on a terminal over the line before, elsewhere once.
    fn next(&mut self, compiled: usize, terminal: bool) -> String {
        let before = std::mem::replace(&mut self.shown, compiled);
        match (compiled != before, terminal) {
            (true, true) => format!("\rcompiling kernels: {compiled}"),
            (true, false) if before == 0 => {
                "compiling kernels; a machine that has seen them takes a second\n".to_owned()
            }
            _ => String::new(),
        }
    }

    fn last(&self, terminal: bool) -> &'static str {
        if terminal && self.shown > 0 { "\r\x1b[K" } else { "" }
    }
}

/// A terminal that has gone away must not stop the training.
fn print(text: &str) {
    let mut out = std::io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

impl<R: MetricsRenderer> MetricsRendererTraining for Announced<R> {
    fn update_train(&mut self, state: MetricState) {
        self.renderer().update_train(state);
    }

    fn update_valid(&mut self, state: MetricState) {
        self.renderer().update_valid(state);
    }

    fn render_train(&mut self, item: TrainingProgress, indicators: Vec<ProgressType>) {
        self.renderer().render_train(item, indicators);
    }

    fn render_valid(&mut self, item: TrainingProgress, indicators: Vec<ProgressType>) {
        self.renderer().render_valid(item, indicators);
    }

    fn on_train_end(&mut self, summary: Option<LearnerSummary>) -> Result<(), Box<dyn Error>> {
        match &mut self.renderer {
            Some(renderer) => renderer.on_train_end(summary),
            None => Ok(()),
        }
    }
}

impl<R: MetricsRenderer> MetricsRendererEvaluation for Announced<R> {
    fn update_test(&mut self, name: EvaluationName, state: MetricState) {
        self.renderer().update_test(name, state);
    }

    fn render_test(&mut self, item: EvaluationProgress, indicators: Vec<ProgressType>) {
        self.renderer().render_test(item, indicators);
    }
}

impl<R: MetricsRenderer> MetricsRenderer for Announced<R> {
    fn manual_close(&mut self) {
        self.renderer().manual_close();
    }

    fn register_metric(&mut self, definition: MetricDefinition) {
        match &mut self.renderer {
            Some(renderer) => renderer.register_metric(definition),
            None => self.metrics.push(definition),
        }
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
