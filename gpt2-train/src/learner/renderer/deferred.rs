//! A renderer that is made when there is something to show: a dashboard covers the terminal, and with it what was said
//! before the first step.

use burn::train::LearnerSummary;
use burn::train::metric::MetricDefinition;
use burn::train::renderer::{
    EvaluationName, EvaluationProgress, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining, ProgressType, TrainingProgress,
};
use std::error::Error;

/// Makes its renderer at the first figure.
pub(crate) struct DeferredRenderer<R> {
    make: Option<Box<dyn FnOnce() -> R + Send + Sync>>,
    renderer: Option<R>,
    metrics: Vec<MetricDefinition>,
}

impl<R: MetricsRenderer> DeferredRenderer<R> {
    /// The renderer that `make` gives.
    pub(crate) fn new(make: impl FnOnce() -> R + Send + Sync + 'static) -> Self {
        Self {
            make: Some(Box::new(make)),
            renderer: None,
            metrics: Vec::new(),
        }
    }

    fn renderer(&mut self) -> &mut R {
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

impl<R: MetricsRenderer> MetricsRendererTraining for DeferredRenderer<R> {
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

impl<R: MetricsRenderer> MetricsRendererEvaluation for DeferredRenderer<R> {
    fn update_test(&mut self, name: EvaluationName, state: MetricState) {
        self.renderer().update_test(name, state);
    }

    fn render_test(&mut self, item: EvaluationProgress, indicators: Vec<ProgressType>) {
        self.renderer().render_test(item, indicators);
    }
}

impl<R: MetricsRenderer> MetricsRenderer for DeferredRenderer<R> {
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
