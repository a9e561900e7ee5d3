//! What the dashboard shows of a step, as Burn's metrics.

use crate::observer::StepReport;
use burn::train::metric::{
    Adaptor, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};
use std::sync::Arc;

/// A reference to a report: what the metrics below take. (A type of this crate, as Burn's adaptor asks for.)
#[derive(Debug, Clone)]
pub(crate) struct ReportRef(Arc<StepReport>);

impl Adaptor<ReportRef> for Arc<StepReport> {
    fn adapt(&self) -> ReportRef {
        ReportRef(Arc::clone(self))
    }
}

/// A number of the report, plotted over the steps.
#[derive(Debug, Clone)]
pub(crate) struct NumberMetric {
    name: &'static str,
    unit: &'static str,
    decimals: usize,
    higher_is_better: bool,
    read: fn(&StepReport) -> Option<f64>,
    last: f64,
}

impl NumberMetric {
    const fn new(
        name: &'static str,
        unit: &'static str,
        decimals: usize,
        read: fn(&StepReport) -> Option<f64>,
    ) -> Self {
        Self {
            name,
            unit,
            decimals,
            higher_is_better: false,
            read,
            last: f64::NAN,
        }
    }

    /// Training loss.
    pub(super) const TRAIN_LOSS: Self = Self::new("Loss", "nats", 4, |report| report.record.loss);
    /// Validation loss, in the same plot.
    pub(super) const VALID_LOSS: Self = Self::new("Loss", "nats", 4, |report| report.record.val_loss);
    /// How far the training loss is above the entropy of the data.
    pub(super) const TRAIN_ABOVE_FLOOR: Self = Self::new("Loss above floor", "nats", 4, |report| {
        Some(report.record.loss? - report.floor?)
    });
    /// How far the validation loss is above the entropy of the data.
    pub(super) const VALID_ABOVE_FLOOR: Self = Self::new("Loss above floor", "nats", 4, |report| {
        Some(report.record.val_loss? - report.floor?)
    });
    /// Training tokens a second.
    pub(super) const TOKENS_PER_SEC: Self = Self {
        higher_is_better: true,
        ..Self::new("Tokens/s", "", 0, |report| report.record.tokens_per_sec)
    };
    /// Highest memory so far: the device's pool, or the process's on a CPU.
    pub(super) const PEAK_MEMORY: Self = Self::new("Peak memory", "MiB", 0, |report| {
        Some(report.record.peak_memory_bytes()? as f64 / f64::from(1 << 20))
    });
    /// Wall time of a step.
    pub(super) const STEP_MS: Self = Self::new("Step time", "ms", 1, |report| report.record.step_ms);
    /// Learning rate, in millionths.
    pub(super) const LEARNING_RATE: Self = Self::new("Learning rate", "·10⁻⁶", 1, |report| {
        report.record.lr.map(|lr| lr * 1e6)
    });
    /// Norm of the gradient before the clip.
    pub(super) const GRADIENT_NORM: Self = Self::new("Gradient norm", "", 3, |report| report.record.grad_norm);
    /// Model operations over the device's peak.
    pub(super) const MFU: Self = Self {
        higher_is_better: true,
        ..Self::new("MFU", "%", 1, |report| report.mfu.map(|mfu| 100.0 * mfu))
    };
}

impl Metric for NumberMetric {
    type Input = ReportRef;

    fn name(&self) -> MetricName {
        Arc::new(self.name.to_owned())
    }

    fn attributes(&self) -> MetricAttributes {
        let unit = (!self.unit.is_empty()).then(|| self.unit.to_owned());
        NumericAttributes {
            unit,
            higher_is_better: self.higher_is_better,
        }
        .into()
    }

    fn update(&mut self, report: &ReportRef, _: &MetricMetadata) -> SerializedEntry {
        if let Some(value) = (self.read)(&report.0) {
            self.last = value;
        }
        let formatted = format!("{:.*} {}", self.decimals, self.last, self.unit);
        SerializedEntry::new(formatted.trim_end().to_owned(), self.last.to_string())
    }

    fn clear(&mut self) {}
}

impl Numeric for NumberMetric {
    fn value(&self) -> NumericEntry {
        NumericEntry::Value(self.last)
    }

    fn running_value(&self) -> NumericEntry {
        self.value()
    }
}

/// A text of the report.
#[derive(Debug, Clone)]
pub(crate) struct TextMetric {
    name: &'static str,
    read: fn(&StepReport) -> Option<String>,
    last: String,
}

impl TextMetric {
    const fn new(name: &'static str, read: fn(&StepReport) -> Option<String>) -> Self {
        Self {
            name,
            read,
            last: String::new(),
        }
    }

    /// Everything of the step in one line.
    pub(super) const STEP: Self = Self::new("Step", |report| Some(report.line()));
    /// Where the memory is.
    pub(super) const MEMORY: Self = Self::new("Memory", |report| Some(report.memory()));
    /// The latest sample.
    pub(super) const SAMPLE: Self = Self::new("Sample", |report| report.sample.as_deref().map(str::to_owned));
    /// In place of the number, where the device's peak rate is not known.
    pub(super) const MFU_UNKNOWN: Self =
        Self::new("MFU", |_| Some("unknown (no peak rate for this device)".to_owned()));
}

impl Metric for TextMetric {
    type Input = ReportRef;

    fn name(&self) -> MetricName {
        Arc::new(self.name.to_owned())
    }

    fn update(&mut self, report: &ReportRef, _: &MetricMetadata) -> SerializedEntry {
        if let Some(text) = (self.read)(&report.0) {
            self.last = text;
        }
        SerializedEntry::new(self.last.clone(), self.last.clone())
    }

    fn clear(&mut self) {}
}
