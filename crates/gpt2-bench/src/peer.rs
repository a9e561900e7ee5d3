//! Another program's timing of the same work.

use crate::error::BenchError;
use crate::step::StepTiming;
use crate::work::of_step_times;
use gpt2_records::Figures;
use gpt2_train::TrainError;
use serde::Deserialize;
use std::path::Path;

/// What is compared of another program's line, whose keys are those of [`StepTiming`].
#[derive(Debug, Clone, Deserialize)]
pub struct Peer {
    /// The program.
    #[serde(rename = "peer")]
    pub name: String,
    /// Preset of the model.
    pub model: String,
    /// Type of the operands of products.
    pub dtype: String,
    /// Sequences in a micro-step.
    pub batch: usize,
    /// Tokens in a sequence.
    pub seq: usize,
    /// Micro-steps in a step; 1 where a program does not know of it.
    #[serde(default = "one")]
    pub grad_accum: usize,
    /// Of the median step.
    pub tokens_per_sec: f64,
    /// Largest size of memory in MiB.
    pub peak_mem_mib: f64,
}

fn one() -> usize {
    1
}

impl Peer {
    /// The last line of the file at `path`.
    ///
    /// # Errors
    /// [`BenchError::NotATiming`], and if the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, BenchError> {
        let text = std::fs::read_to_string(path).map_err(|source| TrainError::io("read", path, source))?;
        let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        serde_json::from_str(line).map_err(|source| BenchError::NotATiming {
            path: path.to_owned(),
            source,
        })
    }

    /// Ratios of `ours` to this, where more than 1 is faster, and less memory is below 1.
    pub fn against(&self, ours: &StepTiming) -> String {
        let differences = self.differences(ours);
        let warning = if differences.is_empty() {
            String::new()
        } else {
            format!(" (not the same work: {})", differences.join(", "))
        };
        format!(
            "against {}: tokens/s x {:.3}, peak memory x {:.3}{warning}",
            self.name,
            ours.tokens_per_sec / self.tokens_per_sec,
            ours.peak_mem_mib as f64 / self.peak_mem_mib,
        )
    }

    /// "batch 4 against 8", for each key of the work in which the two differ.
    fn differences(&self, ours: &StepTiming) -> Vec<String> {
        let numbers = [
            ("batch", ours.batch, self.batch),
            ("seq", ours.seq, self.seq),
            ("grad_accum", ours.grad_accum, self.grad_accum),
        ]
        .map(|(key, ours, theirs)| (key, ours.to_string(), theirs.to_string()));
        [
            ("model", ours.model.clone(), self.model.clone()),
            ("dtype", ours.dtype.clone(), self.dtype.clone()),
        ]
        .into_iter()
        .chain(numbers)
        .filter(|(_, ours, theirs)| ours != theirs)
        .map(|(key, ours, theirs)| format!("{key} {ours} against {theirs}"))
        .collect()
    }
}

/// What a study reads of another program's last line. More than [`Peer`], since figures are computed by one rule for all.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PeerRun {
    /// The program and its version.
    peer: String,
    #[serde(default)]
    device: String,
    batch: u64,
    seq: u64,
    #[serde(default = "one_alone")]
    grad_accum: u64,
    /// Processes that train together, each on `batch` sequences.
    #[serde(default = "one_alone")]
    ranks: u64,
    /// Milliseconds of each step, from the first.
    step_ms: Vec<f64>,
    peak_mem_mib: f64,
    #[serde(default)]
    loss_last: Option<f64>,
    /// When the steps after the warm-up began and ended, in seconds since 1970.
    #[serde(default)]
    pub(crate) timed: Option<[f64; 2]>,
}

fn one_alone() -> u64 {
    1
}

impl PeerRun {
    /// The last line of a program's output.
    pub(crate) fn parse(output: &str) -> Result<Self, serde_json::Error> {
        let line = output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        serde_json::from_str(line)
    }

    /// The figures, computed as ours are.
    pub(crate) fn figures(&self) -> Figures {
        let tokens_per_step = self.batch * self.seq * self.grad_accum * self.ranks;
        Figures {
            program: self.peer.clone(),
            device: self.device.clone(),
            peak_memory_bytes: (self.peak_mem_mib * f64::from(1 << 20)) as u64,
            loss_last: self.loss_last,
            ..of_step_times(self.step_ms.clone(), tokens_per_step)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_figures_follow_from_its_steps() {
        let mut step_ms = vec![10.0; 30];
        step_ms[0] = 2000.0;
        let line = serde_json::json!({
            "peer": "pytorch 2", "device": "a GPU", "batch": 4, "seq": 100, "step_ms": step_ms, "peak_mem_mib": 2.0,
        });
        let figures = PeerRun::parse(&format!("a warning\n{line}\n\n")).unwrap().figures();
        assert_eq!(
            (figures.tokens_per_step, figures.warmup_steps, figures.step_ms.count),
            (400, 10, 20)
        );
        assert!((figures.tokens_per_sec - 40_000.0).abs() < 1e-6);
        assert_eq!((figures.first_step_sec, figures.settled_after_steps), (2.0, Some(1)));
        assert_eq!(figures.peak_memory_bytes, 2 << 20);
    }

    #[test]
    fn a_line_without_step_times_is_no_timing() {
        assert!(PeerRun::parse("").is_err());
        let error = PeerRun::parse("{\"peer\": \"a\", \"batch\": 1, \"seq\": 1, \"peak_mem_mib\": 1}").unwrap_err();
        assert!(error.to_string().contains("`step_ms`"), "{error}");
    }
}
