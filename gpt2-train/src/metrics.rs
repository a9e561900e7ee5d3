//! What the dashboard and the printed lines show of a step.

use crate::metrics_log::StepRecord;
use crate::quantity::bytes;
use burn::tensor::backend::Backend;
use burn::tensor::{ElementConversion, Tensor};
use burn::train::ItemLazy;
use burn::train::metric::{
    Adaptor, Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};
use std::sync::Arc;

/// The names under which the metrics are registered and found again.
pub(crate) mod names {
    pub(crate) const STEP: &str = "Step";
    pub(crate) const SAMPLE: &str = "Sample";
    pub(crate) const MEMORY: &str = "Memory";
    pub(crate) const LOSS: &str = "Loss";
}

/// What a step gives to Burn's learner: first only the loss, on the device; then the measured report.
#[derive(Debug)]
pub enum StepOutput<B: Backend> {
    /// Mean loss of a micro-batch, `[1]`.
    Loss(Tensor<B, 1>),
    /// A whole step, measured.
    Report(Arc<StepReport>),
}

impl<B: Backend> ItemLazy for StepOutput<B> {
    type ItemSync = Arc<StepReport>;

    fn sync(self) -> Arc<StepReport> {
        match self {
            Self::Report(report) => report,
            Self::Loss(loss) => {
                let loss = loss.into_scalar().elem(); // host–device sync
                Arc::new(StepReport {
                    record: StepRecord {
                        loss: Some(loss),
                        ..Default::default()
                    },
                    ..Default::default()
                })
            }
        }
    }
}

/// A step as people look at it.
#[derive(Debug, Clone, Default)]
pub struct StepReport {
    /// The step's numbers.
    pub record: StepRecord,
    /// Steps of the run.
    pub steps: u64,
    /// Seconds that are left, once they can be told.
    pub eta_sec: Option<f64>,
    /// Share of the device's peak rate that the model's operations reach; none where the peak is not known.
    pub mfu: Option<f64>,
    /// Entropy of the validation data in nats a token, where it is known: no model can have a lower loss.
    pub floor: Option<f64>,
    /// The latest sample.
    pub sample: Option<Arc<str>>,
}

impl StepReport {
    /// One line: `step 120/400 | loss 3.215 | val 3.402 | …`.
    pub fn line(&self) -> String {
        let record = &self.record;
        let width = self.steps.to_string().len();
        let mut parts = vec![format!("step {:>width$}/{}", record.step, self.steps)];
        let mut part = |text: Option<String>| parts.extend(text);
        part(record.loss.map(|loss| format!("loss {loss:.4}")));
        part(record.val_loss.map(|loss| match self.floor {
            Some(floor) => format!("val {loss:.4} (floor {floor:.4})"),
            None => format!("val {loss:.4}"),
        }));
        part(record.lr.map(|lr| format!("lr {lr:.2e}")));
        part(record.grad_norm.map(|norm| format!("grad {norm:.3}")));
        part(record.tokens_per_sec.map(|rate| format!("{rate:.0} tok/s")));
        part(record.step_ms.map(|ms| format!("{ms:.0} ms")));
        part(
            record
                .data_wait_ms
                .filter(|ms| *ms >= 1.0)
                .map(|ms| format!("data wait {ms:.0} ms")),
        );
        part(self.mfu.map(|mfu| format!("MFU {:.1}%", 100.0 * mfu)));
        part(record.peak_memory_bytes().map(|peak| format!("peak {}", bytes(peak))));
        part(self.eta_sec.map(|seconds| format!("ETA {}", clock(seconds))));
        parts.join(" | ")
    }

    fn memory(&self) -> String {
        let record = &self.record;
        let mut parts = Vec::new();
        let mut part =
            |label: &str, value: Option<u64>| parts.extend(value.map(|value| format!("{label} {}", bytes(value))));
        part("tensors", record.device_mem_bytes);
        part("pool", record.device_reserved_bytes);
        part("driver", record.device_driver_bytes);
        part("process", record.host_mem_bytes);
        part("process peak", record.host_peak_bytes);
        parts.join(", ")
    }
}

/// Seconds as `m:ss` or `h:mm:ss`.
pub fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

/// A reference to a report: what the metrics below take. (A type of this crate, as Burn's adaptor asks for.)
#[derive(Debug, Clone)]
pub struct ReportRef(Arc<StepReport>);

impl Adaptor<ReportRef> for Arc<StepReport> {
    fn adapt(&self) -> ReportRef {
        ReportRef(Arc::clone(self))
    }
}

/// A number of the report, plotted over the steps.
#[derive(Debug, Clone)]
pub struct NumberMetric {
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
    pub const TRAIN_LOSS: Self = Self::new(names::LOSS, "nats", 4, |report| report.record.loss);
    /// Validation loss, in the same plot.
    pub const VALID_LOSS: Self = Self::new(names::LOSS, "nats", 4, |report| report.record.val_loss);
    /// How far the training loss is above the entropy of the data.
    pub const TRAIN_ABOVE_FLOOR: Self = Self::new("Loss above floor", "nats", 4, |report| {
        Some(report.record.loss? - report.floor?)
    });
    /// How far the validation loss is above the entropy of the data.
    pub const VALID_ABOVE_FLOOR: Self = Self::new("Loss above floor", "nats", 4, |report| {
        Some(report.record.val_loss? - report.floor?)
    });
    /// Training tokens a second.
    pub const TOKENS_PER_SEC: Self = Self {
        higher_is_better: true,
        ..Self::new("Tokens/s", "", 0, |report| report.record.tokens_per_sec)
    };
    /// Highest memory so far: the device's pool, or the process's on a CPU.
    pub const PEAK_MEMORY: Self = Self::new("Peak memory", "MiB", 0, |report| {
        Some(report.record.peak_memory_bytes()? as f64 / f64::from(1 << 20))
    });
    /// Wall time of a step.
    pub const STEP_MS: Self = Self::new("Step time", "ms", 1, |report| report.record.step_ms);
    /// Learning rate, in millionths.
    pub const LEARNING_RATE: Self = Self::new("Learning rate", "·10⁻⁶", 1, |report| {
        report.record.lr.map(|lr| lr * 1e6)
    });
    /// Norm of the gradient before the clip.
    pub const GRADIENT_NORM: Self = Self::new("Gradient norm", "", 3, |report| report.record.grad_norm);
    /// Model operations over the device's peak.
    pub const MFU: Self = Self {
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
pub struct TextMetric {
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
    pub const STEP: Self = Self::new(names::STEP, |report| Some(report.line()));
    /// Where the memory is.
    pub const MEMORY: Self = Self::new(names::MEMORY, |report| Some(report.memory()));
    /// The latest sample.
    pub const SAMPLE: Self = Self::new(names::SAMPLE, |report| report.sample.as_deref().map(str::to_owned));
    /// In place of the number, where the device's peak rate is not known.
    pub const MFU_UNKNOWN: Self = Self::new("MFU", |_| Some("unknown (no peak rate for this device)".to_owned()));
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
