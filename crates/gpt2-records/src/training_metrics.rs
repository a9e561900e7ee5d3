//! `training_metrics.json`: schema 2.0, as the DeepSpeed benchmarks of GPT-2 write it, and our own fields beside it.
//!
//! All fields of the schema are there; what has no meaning here is null. Units are in the names.

use crate::epoch::{Epoch, steady_steps, tokens_per_sec};
use crate::scheduler::Scheduler;
use crate::step::StepRecord;
use gpt2_base::stats;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Seconds that this process spent, by what it did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// Before the first step: data, device, weights.
    pub setup_sec: f64,
    /// In training steps, the wait for data included.
    pub steps_sec: f64,
    /// Waiting for data, a part of `steps_sec`.
    pub data_wait_sec: f64,
    /// Evaluating.
    pub evaluation_sec: f64,
    /// Sampling text.
    pub sampling_sec: f64,
    /// Held up by checkpoints, which are written behind the steps.
    pub checkpoint_sec: f64,
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingMetrics {
    /// `2.0`.
    pub schema_version: String,
    /// Name of the run.
    pub run_id: String,
    /// When the process began.
    pub timestamp_utc: String,
    /// Commit that the program was built from.
    pub git_commit: Option<String>,
    /// The program and its arguments, joined by spaces.
    pub command_line: String,
    /// Environment variables that matter.
    pub env: BTreeMap<String, String>,
    /// The machine.
    pub host: Host,
    /// The devices.
    pub hardware: Hardware,
    /// What was trained, and how.
    pub training_config: TrainingConfig,
    /// Passes over the data.
    pub epochs: Vec<Epoch>,
    /// The whole run.
    pub summary: RunSummary,
    /// That the run reached its end; null if it was stopped before.
    pub completion: Option<Completion>,
    /// The batch scheduler.
    pub scheduler: Scheduler,

    // Ours, beside the schema.
    /// Burn's version.
    pub burn_version: String,
    /// The backend.
    pub backend: String,
    /// CPU threads.
    pub threads: usize,
    /// Operations a trained token: `6·N + 12·n_layer·n_embd·T`.
    pub flops_per_token: u64,
    /// Where this process's time went.
    pub phases: Phases,
    /// How several ranks exchange gradients; null for one.
    #[serde(default)]
    pub communication: Option<Communication>,
    /// The losses at each evaluation.
    pub losses: Vec<LossPoint>,
    /// The lowest loss that any model can reach on this data, in nats, if it is known.
    pub floor_loss: Option<f64>,
    /// The most memory that the process has had resident.
    pub host_peak_bytes: Option<u64>,
}

/// How several ranks exchange gradients, and where each of them is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Communication {
    /// By what, with its release: NCCL, or through rank 0.
    pub library: String,
    /// In their order.
    pub ranks: Vec<RankPlace>,
}

/// Where a rank is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankPlace {
    /// Its machine.
    pub host: Option<String>,
    /// Its number among the ranks of its machine, from 0.
    pub local_rank: usize,
    /// Its device.
    pub device: String,
    /// How many NVLinks of the device are up, where it can have any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nvlinks: Option<u32>,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub hostname: Option<String>,
    /// Its operating system.
    pub os: Option<String>,
    /// Ours: the processor.
    pub cpu: Option<String>,
    /// Ours: processors that the process may use.
    pub cores: usize,
    /// Ours: memory that the process may use.
    pub memory_bytes: u64,
}

/// The devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hardware {
    /// The device's name; null on the CPU.
    pub gpu_name: Option<String>,
    /// GPUs that the process could see.
    pub gpu_count_visible: Option<usize>,
    /// Processes that trained together.
    pub world_size: usize,
    /// The version of CUDA that the driver is of; null where CUDA is not used.
    pub cuda_version: Option<String>,
    /// The scheduler's name for the cluster.
    pub cluster: Option<String>,
    /// Ours: the dense peak of all devices, in FLOP/s.
    pub peak_flops: Option<f64>,
}

/// What was trained, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingConfig {
    /// The preset.
    pub model_name: String,
    /// Parameters of the model.
    pub model_size: u64,
    /// Tokens in a sequence.
    pub seq_len: usize,
    /// Passes over the data that the plan comes to.
    pub epochs: f64,
    /// Sequences in a micro-step.
    pub micro_batch_size_per_gpu: usize,
    /// Micro-steps in an optimizer step.
    pub grad_accum_steps: usize,
    /// Sequences in an optimizer step.
    pub global_batch_size: usize,
    /// Highest learning rate.
    pub lr: f64,
    /// `AdamW`.
    pub optimizer: String,
    /// Operands of matrix products.
    pub precision: String,
    /// The corpus.
    pub dataset_name: String,
    /// Its sizes.
    pub dataset_subset_sizes: SubsetSizes,
}

/// Tokens in each part of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubsetSizes {
    /// To train on.
    pub train: u64,
    /// To validate on.
    pub val: u64,
}

/// The whole run in a few figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Wall time of the run, everything included.
    pub total_wall_time_sec: f64,
    /// The lowest validation loss.
    pub best_val_loss: Option<f64>,
    /// Tokens over time of the steps after the warm-up.
    pub mean_tokens_per_sec_global: Option<f64>,
    /// Ours: the step of the lowest validation loss.
    pub best_step: Option<u64>,
    /// Ours: the last training loss.
    pub final_train_loss: Option<f64>,
    /// Ours: the last validation loss.
    pub final_val_loss: Option<f64>,
    /// Ours: median over the steps after the warm-up.
    pub median_tokens_per_sec: Option<f64>,
    /// Ours: share of the device's peak at the mean rate; null where the peak is unknown.
    pub mfu: Option<f64>,
    /// Ours: optimizer steps taken.
    pub steps: u64,
    /// Ours: training tokens seen.
    pub tokens: u64,
}

/// The losses at an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossPoint {
    /// Optimizer steps taken.
    pub step: u64,
    /// Training loss of that step.
    pub train: Option<f64>,
    /// Validation loss after it.
    pub val: f64,
}

/// That the run reached its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// The file that stands for it, in the run directory.
    pub run_complete_file: String,
    /// When.
    pub timestamp_utc: String,
}

impl RunSummary {
    /// Sums up the records of a run.
    pub fn new(records: &[StepRecord], epochs: &[Epoch], flops_per_token: u64, peak_flops: Option<f64>) -> Self {
        let steady = steady_steps(records);
        let rates: Vec<f64> = steady.iter().filter_map(|r| r.tokens_per_sec).collect();
        let mean_rate = tokens_per_sec(steady);
        let evaluated = records.iter().filter_map(|r| Some((r.step, r.val_loss?)));
        let best = evaluated.min_by(|a, b| a.1.total_cmp(&b.1));
        Self {
            total_wall_time_sec: epochs.iter().map(|epoch| epoch.epoch_wall_time_sec).sum(),
            best_val_loss: best.map(|(_, loss)| loss),
            mean_tokens_per_sec_global: mean_rate,
            best_step: best.map(|(step, _)| step),
            final_train_loss: records.iter().rev().find_map(|r| r.loss),
            final_val_loss: records.iter().rev().find_map(|r| r.val_loss),
            median_tokens_per_sec: stats::median(&rates),
            mfu: mean_rate
                .zip(peak_flops)
                .map(|(rate, peak)| rate * flops_per_token as f64 / peak),
            steps: records.last().map_or(0, |r| r.step),
            tokens: records.last().map_or(0, |r| r.tokens),
        }
    }
}
