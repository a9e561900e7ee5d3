//! What a run has left behind, read from its files, and what a table shows of it.

use crate::error::ReportError;
use gpt2_base::stats::Summary;
use gpt2_base::units;
use gpt2_records::{
    Breakdown, Communication, Host, RankPlace, RankStep, StepRecord, TrainingMetrics, breakdown, complete_records,
    steady_steps, tokens_per_sec,
};
use serde::Serialize;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What a run has left behind so far.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRecords {
    /// The run's name: that of its directory.
    pub name: String,
    /// The directory.
    pub dir: PathBuf,
    /// What is known about each step.
    pub records: Vec<StepRecord>,
    /// What the ranks have told of each step; nothing of a run of one rank.
    pub rank_steps: Vec<RankStep>,
    /// The summary that a run writes at its end.
    pub metrics: Option<TrainingMetrics>,
}

impl RunRecords {
    /// Reads `metrics.jsonl`, without a last line that is still being written, and `training_metrics.json`, which a run on
    /// its way does not have.
    ///
    /// # Errors
    /// [`ReportError::NoRun`], [`ReportError::Record`], [`ReportError::NotTrainingMetrics`], and [`ReportError::Io`].
    pub fn read(run_dir: &Path) -> Result<Self, ReportError> {
        let log = run_dir.join("metrics.jsonl");
        let text = match fs::read_to_string(&log) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(ReportError::NoRun { path: log }),
            Err(error) => return Err(ReportError::io("read", log, error)),
        };
        let records = complete_records(&text, &log)?;
        let ranks = run_dir.join("ranks.jsonl");
        let rank_steps = match fs::read_to_string(&ranks) {
            Ok(text) => complete_records(&text, &ranks)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(ReportError::io("read", ranks, error)),
        };
        let summary = run_dir.join("training_metrics.json");
        let metrics = match fs::read_to_string(&summary) {
            Ok(text) => Some(
                serde_json::from_str(&text)
                    .map_err(|source| ReportError::NotTrainingMetrics { path: summary, source })?,
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(ReportError::io("read", summary, error)),
        };
        // `.` and `runs/..` have names, too.
        let named = fs::canonicalize(run_dir).unwrap_or_else(|_| run_dir.to_owned());
        Ok(Self {
            name: named
                .file_name()
                .map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned()),
            dir: named,
            records,
            rank_steps,
            metrics,
        })
    }
}

/// What the table of runs shows of one, with the units in the names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunFigures {
    /// The run's name.
    pub name: String,
    /// `finished`, `stopped` or `on its way`.
    pub state: &'static str,
    /// Preset of the model.
    pub model: Option<String>,
    /// The backend.
    pub backend: Option<String>,
    /// The device's name, on a CPU the processor's.
    pub device: Option<String>,
    /// Operands of matrix products.
    pub precision: Option<String>,
    /// Processes that trained together.
    pub ranks: Option<usize>,
    /// Sequences in a micro-step.
    pub batch: Option<usize>,
    /// Micro-steps in a step.
    pub grad_accum: Option<usize>,
    /// Tokens in a sequence.
    pub seq: Option<usize>,
    /// Optimizer steps taken.
    pub steps: u64,
    /// Training tokens seen.
    pub tokens: u64,
    /// The last training loss.
    pub train_loss: Option<f64>,
    /// The last validation loss.
    pub val_loss: Option<f64>,
    /// The lowest validation loss.
    pub best_val_loss: Option<f64>,
    /// Tokens over time of the steps after the warm-up.
    pub tokens_per_sec: Option<f64>,
    /// Median of those steps.
    pub step_p50_ms: Option<f64>,
    /// 95th percentile of those steps.
    pub step_p95_ms: Option<f64>,
    /// The most memory: the device's pool, on a CPU the process.
    pub peak_memory_bytes: Option<u64>,
    /// Share of the device's peak FLOP/s, where that is known.
    pub mfu: Option<f64>,
    /// Wall time, everything included.
    pub wall_sec: Option<f64>,
    /// Where the time of the steps after the warm-up went, rank by rank.
    pub breakdown: Option<Breakdown>,
    /// How several ranks exchanged gradients.
    pub communication: Option<Communication>,
    /// The machine.
    pub host: Option<Host>,
    /// When the process began.
    pub timestamp_utc: Option<String>,
    /// The program and its arguments.
    pub command_line: Option<String>,
    /// Commit that the program was built from.
    pub git_commit: Option<String>,
    /// Version of Burn.
    pub burn_version: Option<String>,
}

impl RunFigures {
    /// From a run's records, and from its summary what they do not hold.
    pub fn new(run: &RunRecords) -> Self {
        let records = &run.records;
        let last = records.last();
        let steady = steady_steps(records);
        let step_ms: Vec<f64> = steady.iter().filter_map(|record| record.step_ms).collect();
        let step = Summary::of(&step_ms);
        let metrics = run.metrics.as_ref();
        let config = metrics.map(|metrics| &metrics.training_config);
        let val_losses = records.iter().filter_map(|record| record.val_loss);
        Self {
            name: run.name.clone(),
            state: match metrics {
                None => "on its way",
                Some(metrics) if metrics.completion.is_some() => "finished",
                Some(_) => "stopped",
            },
            model: config.map(|config| config.model_name.clone()),
            backend: metrics.map(|metrics| metrics.backend.clone()),
            device: metrics.and_then(|metrics| metrics.hardware.gpu_name.clone().or(metrics.host.cpu.clone())),
            precision: config.map(|config| config.precision.clone()),
            ranks: metrics.map(|metrics| metrics.hardware.world_size),
            batch: config.map(|config| config.micro_batch_size_per_gpu),
            grad_accum: config.map(|config| config.grad_accum_steps),
            seq: config.map(|config| config.seq_len),
            steps: last.map_or(0, |record| record.step),
            tokens: last.map_or(0, |record| record.tokens),
            train_loss: records.iter().rev().find_map(|record| record.loss),
            val_loss: records.iter().rev().find_map(|record| record.val_loss),
            best_val_loss: val_losses.min_by(f64::total_cmp),
            tokens_per_sec: tokens_per_sec(steady),
            step_p50_ms: step.map(|step| step.p50),
            step_p95_ms: step.map(|step| step.p95),
            peak_memory_bytes: records.iter().filter_map(StepRecord::peak_memory_bytes).max(),
            mfu: metrics.and_then(|metrics| metrics.summary.mfu),
            wall_sec: records.iter().rev().find_map(|record| record.elapsed_sec),
            breakdown: breakdown(steady, &run.rank_steps),
            communication: metrics.and_then(|metrics| metrics.communication.clone()),
            host: metrics.map(|metrics| metrics.host.clone()),
            timestamp_utc: metrics.map(|metrics| metrics.timestamp_utc.clone()),
            command_line: metrics.map(|metrics| metrics.command_line.clone()),
            git_commit: metrics.and_then(|metrics| metrics.git_commit.clone()),
            burn_version: metrics.map(|metrics| metrics.burn_version.clone()),
        }
    }

    /// Where, when and with what the run was made: names and values. A run on its way tells the least.
    pub(crate) fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = self.host.as_ref().map(host_facts).unwrap_or_default();
        let mut push = |name, value: &Option<String>| {
            if let Some(value) = value {
                facts.push((name, value.clone()));
            }
        };
        push("Device", &self.device);
        push("Backend", &self.backend);
        let commit = self.git_commit.as_deref().unwrap_or("not known");
        let versions = self
            .burn_version
            .as_ref()
            .map(|burn| format!("Burn {burn}, commit {commit}"));
        push("Versions", &versions);
        push("Begun", &self.timestamp_utc);
        push("Command", &self.command_line);
        if let Some(communication) = &self.communication {
            facts.push(("Ranks", ranks(communication)));
        }
        facts.push(("State", self.state.to_owned()));
        facts
    }
}

/// "2 × NVIDIA H100 (18 NVLinks) on node1; 2 × NVIDIA H100 on node2, NCCL 2.28.9 (/usr/lib/libnccl.so.2)".
fn ranks(communication: &Communication) -> String {
    let place = |place: &RankPlace| {
        let host = place.host.as_deref().unwrap_or("host not known");
        let links = place.nvlinks.map(|links| format!(" ({links} NVLinks)"));
        format!("{}{} on {host}", place.device, links.unwrap_or_default())
    };
    let places = communication.ranks.chunk_by(|a, b| place(a) == place(b));
    let places: Vec<String> = places
        .map(|alike| format!("{} × {}", alike.len(), place(&alike[0])))
        .collect();
    format!("{}, {}", places.join("; "), communication.library)
}

/// The machine: names and values.
pub(crate) fn host_facts(host: &Host) -> Vec<(&'static str, String)> {
    let cpu = host.cpu.as_deref().unwrap_or("processor not known");
    let name = host.hostname.as_deref().unwrap_or("name not known");
    let os = host.os.as_deref().unwrap_or("system not known");
    vec![
        (
            "Hardware",
            format!(
                "{cpu}, {} processors to use, {} of memory",
                host.cores,
                units::bytes(host.memory_bytes)
            ),
        ),
        ("Machine", format!("{name}, {os}")),
    ]
}
