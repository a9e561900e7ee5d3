//! Who watches a run: the loop tells an [`Observer`] of every step, and knows nothing of terminals.

use crate::step_log::StepRecord;
use gpt2_base::units::{bytes, clock};
use std::io::Write;
use std::sync::Arc;

/// Watches a run. Called on the thread of the loop, which waits.
pub trait Observer {
    /// A step begins. Where the device computes behind the host, the one before may not be over.
    fn step_begins(&mut self, _step: u64) {}

    /// The numbers of a step have arrived. What comes at its end, such as an evaluation, is still to be done.
    fn step_ends(&mut self, _step: u64) {}

    /// A step is over. The evaluation before the first step is reported as step 0, without a training loss.
    fn step(&mut self, report: &StepReport);
}

/// Watches nothing; the run directory holds it all.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Observer for Silent {
    fn step(&mut self, _: &StepReport) {}
}

impl<O: Observer + ?Sized> Observer for &mut O {
    fn step_begins(&mut self, step: u64) {
        (**self).step_begins(step);
    }

    fn step_ends(&mut self, step: u64) {
        (**self).step_ends(step);
    }

    fn step(&mut self, report: &StepReport) {
        (**self).step(report);
    }
}

/// Two observers as one, called in their order.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn step_begins(&mut self, step: u64) {
        self.0.step_begins(step);
        self.1.step_begins(step);
    }

    fn step_ends(&mut self, step: u64) {
        self.0.step_ends(step);
        self.1.step_ends(step);
    }

    fn step(&mut self, report: &StepReport) {
        self.0.step(report);
        self.1.step(report);
    }
}

/// Writes a line every `log_every` steps, at the first step, at every evaluation and score, and each new sample.
#[derive(Debug)]
pub struct Lines<W> {
    out: W,
    log_every: u64,
    sample: Option<Arc<str>>,
}

impl<W: Write> Lines<W> {
    /// Lines to `out`.
    pub fn new(out: W, log_every: u64) -> Self {
        Self {
            out,
            log_every: log_every.max(1),
            sample: None,
        }
    }

    /// A reader that has gone away, or a full disk, must not stop the training.
    fn write(&mut self, line: &str) {
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }
}

impl<W: Write> Observer for Lines<W> {
    fn step(&mut self, report: &StepReport) {
        let StepRecord { step, val_loss, .. } = report.record;
        if val_loss.is_some() || !report.record.scores.is_empty() || step == 1 || step.is_multiple_of(self.log_every) {
            self.write(&report.line());
        }
        if report.sample != self.sample {
            self.sample.clone_from(&report.sample);
            if let Some(sample) = &report.sample {
                self.write(&format!("sample: {}", sample.replace('\n', "\n        ")));
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
    /// Model FLOP/s over the device's peak; none where the peak is not known.
    pub mfu: Option<f64>,
    /// Entropy of the validation data in nats a token, where it is known: no model can have a lower loss.
    pub floor: Option<f64>,
    /// The newest sample.
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
        for (name, score) in &record.scores {
            part(Some(format!("{name} {score:.4}")));
        }
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

    /// Where the memory is, in one line.
    pub(crate) fn memory(&self) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn report(step: u64, val_loss: Option<f64>, sample: Option<&str>) -> StepReport {
        StepReport {
            record: StepRecord {
                step,
                loss: Some(3.25),
                val_loss,
                lr: Some(6e-4),
                grad_norm: Some(0.5),
                tokens_per_sec: Some(1234.4),
                step_ms: Some(415.0),
                data_wait_ms: Some(0.2),
                device_peak_bytes: Some(3 << 30),
                ..StepRecord::default()
            },
            steps: 400,
            eta_sec: Some(3725.0),
            mfu: Some(0.4321),
            floor: Some(0.5939),
            sample: sample.map(Into::into),
        }
    }

    #[test]
    fn a_line_has_every_number_that_is_known() {
        assert_eq!(
            report(7, Some(3.5), None).line(),
            "step   7/400 | loss 3.2500 | val 3.5000 (floor 0.5939) | lr 6.00e-4 | grad 0.500 | 1234 tok/s | 415 ms | \
             MFU 43.2% | peak 3.0 GiB | ETA 1:02:05"
        );
        let bare = StepReport {
            steps: 9,
            ..StepReport::default()
        };
        assert_eq!(bare.line(), "step 0/9");
    }

    #[test]
    fn lines_come_at_their_interval_at_evaluations_and_with_new_samples() {
        let mut out = Vec::new();
        let mut lines = Lines::new(&mut out, 10);
        lines.step(&report(0, Some(10.8), None));
        for step in 1..=12 {
            lines.step(&report(
                step,
                (step == 11).then_some(3.0),
                (step >= 5).then_some("Once\nupon"),
            ));
        }
        let text = String::from_utf8(out).unwrap();
        let heads: Vec<_> = text.lines().map(|line| line.split(" | ").next().unwrap()).collect();
        assert_eq!(
            heads,
            [
                "step   0/400",
                "step   1/400",
                "sample: Once",
                "        upon",
                "step  10/400",
                "step  11/400"
            ]
        );
    }
}
