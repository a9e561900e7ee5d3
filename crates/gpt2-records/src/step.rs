//! A line of `metrics.jsonl`: what is known about a step.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is known about a step. What was not measured is left out of the line.
///
/// An evaluation has no line of its own: `val_loss` stands in the line of the step after which it was taken. The evaluation
/// before the first step is the line of step 0, which has no training loss.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepRecord {
    /// Optimizer steps taken so far, this one included: the first is 1.
    pub step: u64,
    /// Training tokens seen so far, this step's included.
    pub tokens: u64,
    /// Mean training loss of the step's tokens, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Mean loss on the validation tokens, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_loss: Option<f64>,
    /// `val_loss` in bits a byte of the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_bpb: Option<f64>,
    /// What the model scores on tasks: `hellaswag.acc_norm` and the like.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub scores: BTreeMap<String, f64>,
    /// Learning rate of the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Global norm of the gradient before clipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// Training tokens of this step over `step_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_sec: Option<f64>,
    /// Wall time of the step, from asking for its data to the updated weights. Evaluation, samples and checkpoints are not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_ms: Option<f64>,
    /// The part of `step_ms` spent waiting for data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_wait_ms: Option<f64>,
    /// The part of `step_ms` spent handing batches to the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_to_device_ms: Option<f64>,
    /// The part of `step_ms` spent waiting for the slowest of several ranks. Where devices sum, it is in
    /// `communication_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank_wait_ms: Option<f64>,
    /// The part of `step_ms` spent exchanging gradients between ranks, nothing being computed meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communication_ms: Option<f64>,
    /// Spent exchanging gradients while others were computed, with the wait for other ranks: no part of `step_ms` by
    /// itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlapped_communication_ms: Option<f64>,
    /// The rest of `step_ms`: computing, and waiting for the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_ms: Option<f64>,
    /// The host's time to queue the step, where the device may compute the step before meanwhile. Where it is as long as
    /// `step_ms`, the device waits for the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<f64>,
    /// The host's wait for the step's numbers, after it had queued the next step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_ms: Option<f64>,
    /// Wall time since the run began, everything included, without the time between a stop and its resumption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_sec: Option<f64>,
    /// Resident memory of the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_mem_bytes: Option<u64>,
    /// The most memory that the process has had resident.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_peak_bytes: Option<u64>,
    /// Device memory in use by tensors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_mem_bytes: Option<u64>,
    /// Device memory held by the backend's pool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_reserved_bytes: Option<u64>,
    /// The most that the pool has held, as far as it was looked at: the pool keeps what it once took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_peak_bytes: Option<u64>,
    /// Memory of the whole device in use by anyone, as its driver counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_driver_bytes: Option<u64>,
}

impl StepRecord {
    /// The run's peak memory: the device's where it has memory of its own, else the process's.
    pub fn peak_memory_bytes(&self) -> Option<u64> {
        self.device_peak_bytes.or(self.host_peak_bytes)
    }
}

/// Where the time of a step went on one of several ranks: a line of `ranks.jsonl`. Its parts add up to `step_ms`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RankStep {
    /// The step, from 1.
    pub step: u64,
    /// The rank, from 0.
    pub rank: usize,
    /// Wall time of the step on this rank.
    pub step_ms: f64,
    /// Spent waiting for data.
    pub data_wait_ms: f64,
    /// Spent handing batches to the device.
    pub host_to_device_ms: f64,
    /// Spent waiting for the slowest rank; none where the device sums, in whose communication it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank_wait_ms: Option<f64>,
    /// Spent exchanging gradients. Where the device sums, from when it had nothing else to do until it had the sums.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub communication_ms: Option<f64>,
    /// Spent exchanging gradients while others were computed, with the wait for other ranks: no part of `step_ms` by
    /// itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlapped_communication_ms: Option<f64>,
    /// The rest: computing, and waiting for the device.
    pub compute_ms: f64,
    /// Mean training loss of the step, over all ranks.
    pub loss: f64,
    /// The most memory that the rank has had: the device's where it has memory of its own, else the process's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// Device memory in use by tensors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_mem_bytes: Option<u64>,
    /// Device memory held by the backend's pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_reserved_bytes: Option<u64>,
}

impl RankStep {
    /// Of rank `rank`, from what it knows of a step itself; none for a record without a step.
    pub fn new(rank: usize, record: &StepRecord) -> Option<Self> {
        Some(Self {
            step: record.step,
            rank,
            step_ms: record.step_ms?,
            data_wait_ms: record.data_wait_ms.unwrap_or_default(),
            host_to_device_ms: record.host_to_device_ms.unwrap_or_default(),
            rank_wait_ms: record.rank_wait_ms,
            communication_ms: record.communication_ms,
            overlapped_communication_ms: record.overlapped_communication_ms,
            compute_ms: record.compute_ms?,
            loss: record.loss?,
            peak_memory_bytes: record.peak_memory_bytes(),
            device_mem_bytes: record.device_mem_bytes,
            device_reserved_bytes: record.device_reserved_bytes,
        })
    }
}

/// A line that is no record.
#[derive(Debug, thiserror::Error)]
#[error("{path}:{line}: not a record of a step: {source}", path = path.display())]
pub struct DamagedRecord {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub source: serde_json::Error,
}

/// What [`complete_lines`] hold.
///
/// # Errors
/// The first line that is no record.
pub fn complete_records<T: DeserializeOwned>(text: &str, path: &Path) -> Result<Vec<T>, DamagedRecord> {
    let lines = complete_lines(text, path)?;
    Ok(lines.into_iter().map(|(_, record)| record).collect())
}

/// The lines of a log that end with a newline, with it, and what they hold: a [`StepRecord`] or a [`RankStep`]. `path` is where
/// `text` was read.
///
/// # Errors
/// The first line that is no record.
pub fn complete_lines<'t, T: DeserializeOwned>(text: &'t str, path: &Path) -> Result<Vec<(&'t str, T)>, DamagedRecord> {
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .enumerate()
        .map(|(index, line)| match serde_json::from_str(line) {
            Ok(record) => Ok((line, record)),
            Err(source) => Err(DamagedRecord {
                path: path.to_path_buf(),
                line: index + 1,
                source,
            }),
        })
        .collect()
}
