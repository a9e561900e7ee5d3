//! A readable line every few steps, for logs and pipes.

use crate::metrics::names;
use burn::train::metric::{MetricDefinition, MetricId};
use burn::train::renderer::{
    EvaluationName, EvaluationProgress, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining, ProgressType, TrainingProgress,
};
use std::io::Write;

/// Prints the step's line to standard output every `log_every` steps, at every evaluation, and each new sample.
#[derive(Debug)]
pub struct PlainRenderer {
    log_every: u64,
    step_metric: Option<MetricId>,
    sample_metric: Option<MetricId>,
    line: String,
    printed: String,
    sample: String,
}

impl PlainRenderer {
    /// A renderer that prints every `log_every` steps.
    pub fn new(log_every: u64) -> Self {
        Self {
            log_every: log_every.max(1),
            step_metric: None,
            sample_metric: None,
            line: String::new(),
            printed: String::new(),
            sample: String::new(),
        }
    }

    /// Prints the step's line, once: a step with an evaluation comes as both.
    fn print_line(&mut self) {
        if self.line != self.printed {
            print(&self.line);
            self.printed.clone_from(&self.line);
        }
    }

    /// Takes in the step's line or the newest sample, and returns whether that is a new one.
    pub(super) fn take_in(&mut self, state: &MetricState) -> bool {
        let (MetricState::Generic(entry) | MetricState::Numeric(entry, _)) = state;
        let text = &entry.serialized_entry.formatted;
        if self.step_metric.as_ref() == Some(&entry.metric_id) {
            self.line.clone_from(text);
        } else if self.sample_metric.as_ref() == Some(&entry.metric_id) && *text != self.sample {
            self.sample.clone_from(text);
            return true;
        }
        false
    }

    fn update(&mut self, state: &MetricState) {
        if self.take_in(state) {
            print(&format!("sample: {}", self.sample.replace('\n', "\n        ")));
        }
    }
}

/// Prints a line; a reader that has gone away must not stop the training.
fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

impl MetricsRendererTraining for PlainRenderer {
    fn update_train(&mut self, state: MetricState) {
        self.update(&state);
    }

    fn update_valid(&mut self, state: MetricState) {
        self.update(&state);
    }

    fn render_train(&mut self, item: TrainingProgress, _: Vec<ProgressType>) {
        let step = item.iteration.unwrap_or(0) as u64;
        if step == 1 || step.is_multiple_of(self.log_every) {
            self.print_line();
        }
    }

    fn render_valid(&mut self, _: TrainingProgress, _: Vec<ProgressType>) {
        self.print_line();
    }
}

impl MetricsRendererEvaluation for PlainRenderer {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}
    fn render_test(&mut self, _: EvaluationProgress, _: Vec<ProgressType>) {}
}

impl MetricsRenderer for PlainRenderer {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        match definition.name.as_str() {
            names::STEP => self.step_metric = Some(definition.metric_id),
            names::SAMPLE => self.sample_metric = Some(definition.metric_id),
            _ => {}
        }
    }
}
