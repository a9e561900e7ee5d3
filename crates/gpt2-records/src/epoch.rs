//! Step records summed up by passes over the training data.

use crate::breakdown::Breakdown;
use crate::step::{RankStep, StepRecord};
use gpt2_base::stats::Summary;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The first steps of a run pay for compiled kernels, tuned kernels and cold caches; no speed is computed from them.
const WARM_UP_STEPS: usize = 10;

/// One pass over the training tokens, or the part of it that the run reached. Field names are schema 2.0's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Number of the pass, from 0.
    pub epoch_idx: u64,
    /// Wall time with evaluation, samples and checkpoints.
    pub epoch_wall_time_sec: f64,
    /// Forward and backward passes.
    pub micro_steps: u64,
    /// Updates of the weights. A step belongs to the pass in which it ends.
    pub optimizer_steps: u64,
    /// Training tokens.
    pub tokens_processed_global: u64,
    /// Tokens of the timed steps over their time.
    pub tokens_per_sec_global: Option<f64>,
    /// Mean training loss of the steps.
    pub train_loss_avg_global: Option<f64>,
    /// The last evaluation in this pass.
    pub val_loss_avg_global: Option<f64>,
    /// The most device memory that tensors were seen to use.
    pub max_cuda_mem_allocated_bytes_rank0: Option<u64>,
    /// The same over all ranks.
    pub max_cuda_mem_allocated_bytes_global: Option<u64>,
    /// The most device memory that the pool was seen to hold.
    pub max_cuda_mem_reserved_bytes_rank0: Option<u64>,
    /// The same over all ranks.
    pub max_cuda_mem_reserved_bytes_global: Option<u64>,
    /// Mean time of the timed steps.
    pub step_time_mean_sec: Option<f64>,
    /// Median time of the timed steps.
    pub step_time_p50_sec: Option<f64>,
    /// 95th percentile of the time of the timed steps.
    pub step_time_p95_sec: Option<f64>,
    /// Mean wait for data in the timed steps.
    pub dataload_time_mean_sec: Option<f64>,
    /// Ours: where the time of the timed steps went, rank by rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breakdown: Option<Breakdown>,
}

impl Epoch {
    /// Sums up a run's records, in their order, into its passes over `train_tokens` tokens. `rank_steps` are those of all ranks,
    /// if there were several.
    pub fn of_run(records: &[StepRecord], rank_steps: &[RankStep], train_tokens: u64, grad_accum: u64) -> Vec<Self> {
        let pass = |record: &StepRecord| record.tokens.saturating_sub(1) / train_tokens.max(1);
        let first_steady = steady_steps(records).first().map_or(0, |record| record.step);
        let (mut seconds_before, mut tokens_before) = (0.0, 0);
        let mut epochs = Vec::new();
        for records in records.chunk_by(|a, b| pass(a) == pass(b)) {
            let Some(last) = records.last() else { continue };
            let mut epoch = Self::of_records(records, rank_steps, first_steady);
            epoch.epoch_idx = pass(last);
            epoch.micro_steps = epoch.optimizer_steps * grad_accum;
            epoch.tokens_processed_global = last.tokens - tokens_before;
            // A log without the run's clock still has the steps' own.
            let seconds = last
                .elapsed_sec
                .unwrap_or_else(|| seconds_before + sum(records, |r| r.step_ms) / 1e3);
            epoch.epoch_wall_time_sec = seconds - seconds_before;
            (seconds_before, tokens_before) = (seconds, last.tokens);
            epochs.push(epoch);
        }
        epochs
    }

    fn of_records(records: &[StepRecord], rank_steps: &[RankStep], first_steady: u64) -> Self {
        // A short last pass of a short run may have warm-up steps only; they are better than nothing.
        let steady = &records[records.partition_point(|record| record.step < first_steady)..];
        let timed = if steady.is_empty() { records } else { steady };
        let step = Summary::of(&values(timed, |r| r.step_ms));
        let allocated = records.iter().filter_map(|r| r.device_mem_bytes).max();
        let reserved = records.iter().filter_map(|r| r.device_reserved_bytes).max();
        let of_ranks = || of_steps(rank_steps, records);
        let allocated_anywhere = of_ranks().filter_map(|step| step.device_mem_bytes).max();
        let reserved_anywhere = of_ranks().filter_map(|step| step.device_reserved_bytes).max();
        Self {
            optimizer_steps: records.iter().filter(|r| r.loss.is_some()).count() as u64,
            tokens_per_sec_global: tokens_per_sec(timed),
            train_loss_avg_global: mean(records, |r| r.loss),
            val_loss_avg_global: records.iter().rev().find_map(|r| r.val_loss),
            max_cuda_mem_allocated_bytes_rank0: allocated,
            max_cuda_mem_allocated_bytes_global: allocated.max(allocated_anywhere),
            max_cuda_mem_reserved_bytes_rank0: reserved,
            max_cuda_mem_reserved_bytes_global: reserved.max(reserved_anywhere),
            step_time_mean_sec: step.map(|s| s.mean / 1e3),
            step_time_p50_sec: step.map(|s| s.p50 / 1e3),
            step_time_p95_sec: step.map(|s| s.p95 / 1e3),
            dataload_time_mean_sec: mean(timed, |r| r.data_wait_ms).map(|ms| ms / 1e3),
            breakdown: breakdown(timed, rank_steps),
            ..Self::default()
        }
    }
}

/// Where the time of the steps of `records` went, rank by rank. `rank_steps` are those of all ranks, if there were several.
pub fn breakdown(records: &[StepRecord], rank_steps: &[RankStep]) -> Option<Breakdown> {
    if rank_steps.is_empty() {
        let alone: Vec<RankStep> = records.iter().filter_map(|record| RankStep::new(0, record)).collect();
        return Breakdown::of(&alone);
    }
    Breakdown::of(of_steps(rank_steps, records))
}

/// Milliseconds of each step of `records`: on the slowest rank, where `rank_steps` tell.
pub fn step_times(records: &[StepRecord], rank_steps: &[RankStep]) -> Vec<f64> {
    let mut slowest: BTreeMap<u64, f64> = BTreeMap::new();
    for step in rank_steps {
        let ms = slowest.entry(step.step).or_default();
        *ms = ms.max(step.step_ms);
    }
    records
        .iter()
        .filter_map(|record| {
            Some(
                record
                    .step_ms?
                    .max(slowest.get(&record.step).copied().unwrap_or_default()),
            )
        })
        .collect()
}

/// What ranks have told of the steps of `records`.
fn of_steps<'a>(rank_steps: &'a [RankStep], records: &'a [StepRecord]) -> impl Iterator<Item = &'a RankStep> {
    let [first, last] = [records.first(), records.last()].map(|record| record.map(|record| record.step));
    rank_steps
        .iter()
        .filter(move |step| first.is_some_and(|first| step.step >= first) && last.is_some_and(|last| step.step <= last))
}

/// The records from which speeds are computed: without the evaluation before the first step and without the first
/// ten steps, or the first half of a run shorter than twenty.
pub fn steady_steps(records: &[StepRecord]) -> &[StepRecord] {
    let trained = &records[records.partition_point(|record| record.step == 0)..];
    &trained[warmup_steps(trained.len())..]
}

/// How many of the first `steps` steps are warm-up: ten, or of fewer than twenty steps the first half. The one rule.
pub fn warmup_steps(steps: usize) -> usize {
    WARM_UP_STEPS.min(steps / 2)
}

/// Tokens over time. Each step's tokens are its own rate times its own time, so that gaps in the log do no harm.
pub fn tokens_per_sec(records: &[StepRecord]) -> Option<f64> {
    let seconds = sum(records, |r| r.step_ms) / 1e3;
    let tokens = sum(records, |r| Some(r.tokens_per_sec? * r.step_ms? / 1e3));
    (seconds > 0.0).then(|| tokens / seconds)
}

fn values(records: &[StepRecord], value: impl Fn(&StepRecord) -> Option<f64>) -> Vec<f64> {
    records.iter().filter_map(value).collect()
}

fn sum(records: &[StepRecord], value: impl Fn(&StepRecord) -> Option<f64>) -> f64 {
    values(records, value).iter().sum()
}

fn mean(records: &[StepRecord], value: impl Fn(&StepRecord) -> Option<f64>) -> Option<f64> {
    Summary::of(&values(records, value)).map(|summary| summary.mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forty steps of 100 tokens: the first ten slow, the others 100 ms; an evaluation before and after every ten.
    fn records() -> Vec<StepRecord> {
        let evaluated = |step: u64| step.is_multiple_of(10).then(|| 9.0 - step as f64 / 10.0);
        let mut records = vec![StepRecord {
            val_loss: evaluated(0),
            elapsed_sec: Some(1.0),
            ..StepRecord::default()
        }];
        records.extend((1..=40).map(|step| {
            let step_ms = if step <= 10 { 1000.0 } else { 100.0 };
            StepRecord {
                step,
                tokens: step * 100,
                loss: Some(8.0),
                val_loss: evaluated(step),
                step_ms: Some(step_ms),
                tokens_per_sec: Some(100.0 / (step_ms / 1e3)),
                data_wait_ms: Some(5.0),
                elapsed_sec: Some(1.0 + step as f64),
                device_mem_bytes: Some(1000 + step),
                ..StepRecord::default()
            }
        }));
        records
    }

    #[test]
    fn steps_belong_to_the_pass_in_which_they_end() {
        let epochs = Epoch::of_run(&records(), &[], 1500, 2);
        let steps: Vec<_> = epochs
            .iter()
            .map(|e| (e.epoch_idx, e.optimizer_steps, e.tokens_processed_global))
            .collect();
        assert_eq!(steps, [(0, 15, 1500), (1, 15, 1500), (2, 10, 1000)]);
        assert_eq!(epochs[0].micro_steps, 30);
        let walls: Vec<_> = epochs.iter().map(|e| e.epoch_wall_time_sec).collect();
        assert_eq!(walls, [16.0, 15.0, 10.0]);
        let val: Vec<_> = epochs.iter().map(|e| e.val_loss_avg_global).collect();
        assert_eq!(val, [Some(8.0), Some(6.0), Some(5.0)]);
        assert_eq!(epochs[1].max_cuda_mem_allocated_bytes_global, Some(1030));
        assert_eq!(epochs[1].max_cuda_mem_reserved_bytes_global, None);
    }

    #[test]
    fn speeds_leave_out_the_warm_up() {
        let epoch = &Epoch::of_run(&records(), &[], 1_000_000, 1)[0];
        for (value, expected) in [
            (epoch.step_time_mean_sec, 0.1),
            (epoch.step_time_p50_sec, 0.1),
            (epoch.step_time_p95_sec, 0.1),
            (epoch.tokens_per_sec_global, 1000.0),
            (epoch.dataload_time_mean_sec, 0.005),
        ] {
            assert!(
                (value.unwrap() - expected).abs() < 1e-9 * expected,
                "{value:?} {expected}"
            );
        }
        // The wall time leaves out nothing: one second before the first step and one a step.
        assert!((epoch.epoch_wall_time_sec - 41.0).abs() < 1e-9);
    }

    #[test]
    fn a_short_run_keeps_half_of_its_steps() {
        assert_eq!(steady_steps(&records()[..5]).len(), 2);
        assert_eq!(steady_steps(&records()[..1]), []);
        assert_eq!(Epoch::of_run(&[], &[], 100, 1), []);
        let evaluated_only = &Epoch::of_run(&records()[..1], &[], 100, 1)[0];
        assert_eq!(
            (evaluated_only.optimizer_steps, evaluated_only.step_time_mean_sec),
            (0, None)
        );
    }

    #[test]
    fn ranks_are_summed_up_with_their_run() {
        let mut records = records();
        for record in &mut records {
            record.compute_ms = record.step_ms;
        }
        let of_rank = |rank: usize, slower_ms: f64| {
            let of_step = move |record: &StepRecord| {
                let step = RankStep::new(rank, record)?;
                Some(RankStep {
                    step_ms: step.step_ms + slower_ms,
                    device_mem_bytes: Some(2000 + record.step),
                    ..step
                })
            };
            records.iter().filter_map(of_step).collect::<Vec<_>>()
        };
        let steps = [of_rank(0, 0.0), of_rank(1, 7.0)].concat();
        let epochs = Epoch::of_run(&records, &steps, 1500, 2);
        let breakdown = epochs[1].breakdown.as_ref().unwrap();
        assert_eq!((breakdown.slowest, breakdown.ranks[1].times.step_ms), (1, 107.0));
        assert_eq!(epochs[0].max_cuda_mem_allocated_bytes_rank0, Some(1015));
        assert_eq!(epochs[0].max_cuda_mem_allocated_bytes_global, Some(2015));
        assert_eq!(step_times(&records, &steps)[38..], [107.0, 107.0]);
        // One process has no log of ranks: its own records tell.
        let alone = &Epoch::of_run(&records, &[], 1500, 1)[1];
        let alone = alone.breakdown.as_ref().unwrap();
        assert_eq!((alone.ranks.len(), alone.mean.compute_ms), (1, 100.0));
    }

    #[test]
    fn a_log_without_a_clock_sums_its_steps() {
        let mut records = records();
        for record in &mut records {
            record.elapsed_sec = None;
        }
        let wall = Epoch::of_run(&records, &[], 1_000_000, 1)[0].epoch_wall_time_sec;
        assert!((wall - 13.0).abs() < 1e-9, "{wall}");
    }
}
