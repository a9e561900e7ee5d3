//! `results.json`: what a study measured, a row for each configuration.

use crate::breakdown::Breakdown;
use crate::training_metrics::Host;
use gpt2_base::stats::Summary;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of `results.json`. A file of another version is refused.
pub const STUDY_VERSION: u32 = 1;

/// A study, finished or on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Study {
    /// [`STUDY_VERSION`].
    pub version: u32,
    /// What was studied.
    pub kind: StudyKind,
    /// By whom, where and when.
    pub made: Made,
    /// What all rows have in common, such as `model` or `seq`, in words.
    pub settings: BTreeMap<String, String>,
    /// The settings in which rows differ, in the order of the table's columns.
    pub axes: Vec<String>,
    /// Name of the row that the others are compared with.
    pub baseline: Option<String>,
    /// In the order of the configurations.
    pub rows: Vec<Row>,
    /// Which configuration for which goal, computed from the rows.
    pub conclusions: Vec<Conclusion>,
    /// What a reader must know, such as why there are no hardware counters.
    pub notes: Vec<String>,
    /// Where a step's time goes, of a profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

/// The kinds of studies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StudyKind {
    /// The same work on different numbers of CPU threads, with and without BLAS and vector instructions.
    Threads,
    /// A Cartesian product of settings.
    Sweep,
    /// A fixed number of steps of a fixed global batch.
    FixedWork,
    /// One step, taken apart.
    Profile,
    /// The same work on different numbers of devices.
    Scaling,
}

/// By whom, where and when a study was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// When it began.
    pub timestamp_utc: String,
    /// The command, as it was typed.
    pub command_line: String,
    /// Version of the program.
    pub gpt2_version: String,
    /// Commit that the program was built from.
    pub git_commit: Option<String>,
    /// Version of Burn.
    pub burn_version: String,
    /// The machine.
    pub host: Host,
    /// The devices, as the rows name them.
    pub devices: Vec<String>,
}

/// One configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name, and that of its directory under `runs/`.
    pub name: String,
    /// The other program, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The value of each axis that it has.
    pub axes: BTreeMap<String, String>,
    /// How it ended.
    pub status: Status,
    /// Why, where it is not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Bytes of device memory that it was expected to need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicted_memory_bytes: Option<u64>,
    /// Seconds from the start of its process to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_sec: Option<f64>,
    /// What was measured, where it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<Figures>,
    /// What follows from the figures and the baseline's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived: Option<Derived>,
}

/// How a configuration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Measured.
    Done,
    /// Not run: the combination has no meaning, or this machine or build cannot run it.
    Skipped,
    /// The device had no more memory.
    OutOfMemory,
    /// Its process ended with an error or a signal.
    Failed,
    /// Its process was ended at its time limit.
    TimedOut,
}

impl Status {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Skipped => "skipped",
            Self::OutOfMemory => "out of memory",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
        }
    }
}

/// What was measured of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// What ran, with its version.
    pub program: String,
    /// The device's name.
    pub device: String,
    /// Tokens of an optimizer step.
    pub tokens_per_step: u64,
    /// Milliseconds of the timed steps, those after the warm-up.
    pub step_ms: Summary,
    /// Tokens a second of the median step.
    pub tokens_per_sec: f64,
    /// Seconds of all timed steps.
    pub timed_sec: f64,
    /// Steps that were left out as warm-up.
    pub warmup_steps: usize,
    /// Their seconds.
    pub warmup_sec: f64,
    /// Seconds of the first step.
    pub first_step_sec: f64,
    /// Steps until the times settle; none where they do not, or are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_after_steps: Option<usize>,
    /// Seconds that those steps took beyond as many settled ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settling_cost_sec: Option<f64>,
    /// Largest size of the device's memory pool, on a CPU of the process.
    pub peak_memory_bytes: u64,
    /// The device's memory in use as its driver counts it, its largest value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_memory_bytes: Option<u64>,
    /// Share of the device's peak FLOP/s, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// Training loss of each step, from the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<f64>,
    /// Milliseconds of each step, from the first; of several ranks, of the slowest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all_step_ms: Vec<f64>,
    /// Loss of the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_last: Option<f64>,
    /// Validation losses, with their steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub val_losses: Vec<(u64, f64)>,
    /// What the GPU did around the timed steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuUse>,
    /// Where the time of the timed steps went, rank by rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breakdown: Option<Breakdown>,
    /// Counters of the operating system and the processor around the timed steps, by name with the unit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, f64>,
}

/// What a GPU did, as NVML tells: means over samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct GpuUse {
    /// How many samples.
    pub samples: usize,
    /// Percent of the time in which a kernel ran.
    pub utilisation_percent: f64,
    /// Clock of the multiprocessors.
    pub clock_mhz: f64,
    /// Power.
    pub power_watts: f64,
}

/// What follows from a row's figures and the baseline's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Derived {
    /// Tokens a second over the baseline's. More than 1 is faster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speedup: Option<f64>,
    /// Speed-up over the ratio of threads or devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efficiency: Option<f64>,
    /// Tokens a second for each MiB of peak memory.
    pub tokens_per_sec_per_mib: f64,
    /// Jitter: standard deviation of the run's own steps, in milliseconds.
    pub jitter_ms: f64,
    /// Jitter over the mean step.
    pub jitter_relative: f64,
    /// 95th percentile over the median.
    pub p95_over_p50: f64,
    /// Steps after which a longer warm-up than the baseline's is paid for; 0 where it is not longer. None where the row is
    /// not faster, or one of the two never settles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_even_steps: Option<u64>,
}

/// Which configuration for which goal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conclusion {
    /// The goal, in words.
    pub goal: String,
    /// Name of the row; none where no row serves it.
    pub row: Option<String>,
    /// The figures that say so.
    pub because: String,
}

/// Where a step's time goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Profiled steps.
    pub trials: usize,
    /// Milliseconds of steps that were not profiled.
    pub unprofiled_step_ms: Summary,
    /// Milliseconds of the profiled steps.
    pub profiled_step_ms: Summary,
    /// Floating-point operations of a step, as MFU counts them.
    pub flop_per_step: f64,
    /// Those a second, without profiling, over the ceiling of products.
    pub mfu: f64,
    /// What the device reaches at most, measured at the start.
    pub ceilings: Ceilings,
    /// By layer kind; device idle and the rest among them.
    pub kinds: Vec<KindTime>,
    /// By operation.
    pub operations: Vec<OperationTime>,
    /// Top-down metrics of the processor, where it counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_down: Option<TopDown>,
    /// What to do about what bounds the step.
    pub advice: Vec<String>,
}

/// What a device reaches at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// FLOP/s of a product of two square matrices.
    pub product_flops: f64,
    /// The side of those matrices.
    pub product_side: usize,
    /// Bytes read and written a second.
    pub bytes_per_sec: f64,
}

/// Time of a layer kind in a step: medians over the trials.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KindTime {
    /// `attention`, `feed-forward`, `LayerNorm`, `embedding`, `head and loss`, `optimizer`, `data`, `device idle`, `rest`.
    pub kind: String,
    /// Milliseconds in the forward pass, or where there is no such division in all.
    pub forward_ms: f64,
    /// Milliseconds in the backward pass.
    pub backward_ms: f64,
    /// Share of the unprofiled step.
    pub share: f64,
    /// Standard deviation over the trials of both together.
    pub std_ms: f64,
    /// Both, of each trial.
    #[serde(default)]
    pub trials_ms: Vec<[f64; 2]>,
}

/// Time of an operation in a step: medians over the trials.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OperationTime {
    /// Its name.
    pub name: String,
    /// Its layer kind.
    pub kind: String,
    /// `forward` or `backward`; the optimizer's are `update`.
    pub pass: String,
    /// How often a step does it.
    pub count: f64,
    /// Milliseconds of all of them in a step.
    pub ms: f64,
    /// Standard deviation of those over the trials.
    pub std_ms: f64,
    /// Those of each trial.
    #[serde(default)]
    pub trials_ms: Vec<f64>,
    /// Floating-point operations of all of them.
    pub flop: f64,
    /// Bytes that they must at least read and write.
    pub bytes: f64,
    /// `products`, `memory` or `latency`: what it comes nearest to.
    pub bound_by: String,
    /// Share of the ceiling that bounds it.
    pub of_ceiling: f64,
}

/// Top-down metrics: shares of the processor's pipeline slots, means over trials. All but `cpi` lie between 0 and 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TopDown {
    /// Whether the counts are of a recording, and of which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<String>,
    /// Each layer kind's trials.
    pub kinds: BTreeMap<String, Vec<TopDownSlots>>,
}

/// One trial.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TopDownSlots {
    /// Cycles an instruction.
    pub cpi: f64,
    /// Slots whose work was kept.
    pub retiring: f64,
    /// Slots whose work was thrown away.
    pub bad_speculation: f64,
    /// Slots that the front end left empty.
    pub front_end: f64,
    /// Slots that waited for the back end.
    pub back_end: f64,
    /// Of those, for memory.
    pub memory: f64,
    /// Of those, for execution units.
    pub core: f64,
}
