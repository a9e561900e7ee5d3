//! Where the time of steps went on each rank, over several steps.

use crate::step::RankStep;
use gpt2_base::stats::Summary;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where the time of some steps went, rank by rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Breakdown {
    /// Of each rank, in their order.
    pub ranks: Vec<RankTimes>,
    /// Mean over the ranks.
    pub mean: StepTimes,
    /// The rank that the others wait for: the one that waits least for others, and of those that do not tell, the one with the
    /// longest steps.
    pub slowest: usize,
    /// `compute_ms` over `communication_ms`, in which nothing is computed, of the slowest rank; none where nothing is
    /// exchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_to_communication: Option<f64>,
}

/// Where a rank's time went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RankTimes {
    /// The rank, from 0.
    pub rank: usize,
    /// Its times.
    #[serde(flatten)]
    pub times: StepTimes,
    /// The most memory that it has had: the device's where it has memory of its own, else the process's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
}

/// Milliseconds of a step: means. The parts add up to the step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct StepTimes {
    /// The step.
    pub step_ms: f64,
    /// Waiting for data.
    pub data_wait_ms: f64,
    /// Handing batches to the device.
    pub host_to_device_ms: f64,
    /// Computing, and waiting for the device.
    pub compute_ms: f64,
    /// Exchanging gradients, after all ranks are there. Nothing is computed meanwhile.
    pub communication_ms: f64,
    /// Waiting for the slowest rank before that.
    pub rank_wait_ms: f64,
    /// Exchanging gradients while others were computed, with the wait for other ranks: none of the parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlapped_communication_ms: Option<f64>,
}

impl StepTimes {
    /// The parts of a step, with the names that `ranks.jsonl` has for them, in the order of a step.
    pub fn parts(&self) -> [(&'static str, f64); 5] {
        [
            ("data_wait_ms", self.data_wait_ms),
            ("host_to_device_ms", self.host_to_device_ms),
            ("compute_ms", self.compute_ms),
            ("rank_wait_ms", self.rank_wait_ms),
            ("communication_ms", self.communication_ms),
        ]
    }

    /// Of a rank's step. Where devices sum, all ranks have the sums at the same time, so that the rank which came last has the
    /// `shortest` communication, and the others have waited for it as long as theirs is longer.
    fn new(step: &RankStep, shortest: f64) -> Self {
        let communication_ms = step.communication_ms.unwrap_or_default();
        let exchange_ms = match step.rank_wait_ms {
            Some(_) => communication_ms,
            None => communication_ms.min(shortest),
        };
        Self {
            step_ms: step.step_ms,
            data_wait_ms: step.data_wait_ms,
            host_to_device_ms: step.host_to_device_ms,
            compute_ms: step.compute_ms,
            communication_ms: exchange_ms,
            rank_wait_ms: step.rank_wait_ms.unwrap_or(communication_ms - exchange_ms),
            overlapped_communication_ms: step.overlapped_communication_ms,
        }
    }

    fn mean_of(times: &[Self]) -> Self {
        let mean = |part: fn(&Self) -> f64| {
            let values: Vec<f64> = times.iter().map(part).collect();
            Summary::of(&values).map_or(0.0, |summary| summary.mean)
        };
        let overlapped = times.iter().filter_map(|times| times.overlapped_communication_ms);
        Self {
            step_ms: mean(|times| times.step_ms),
            data_wait_ms: mean(|times| times.data_wait_ms),
            host_to_device_ms: mean(|times| times.host_to_device_ms),
            compute_ms: mean(|times| times.compute_ms),
            communication_ms: mean(|times| times.communication_ms),
            rank_wait_ms: mean(|times| times.rank_wait_ms),
            overlapped_communication_ms: Summary::of(&overlapped.collect::<Vec<_>>()).map(|summary| summary.mean),
        }
    }
}

impl Breakdown {
    /// Of the steps of all ranks, in any order; none of no steps.
    pub fn of<'a>(steps: impl IntoIterator<Item = &'a RankStep>) -> Option<Self> {
        let mut by_rank: BTreeMap<usize, Vec<&RankStep>> = BTreeMap::new();
        let mut shortest: BTreeMap<u64, f64> = BTreeMap::new();
        for step in steps {
            by_rank.entry(step.rank).or_default().push(step);
            if let Some(ms) = step.communication_ms {
                let shortest = shortest.entry(step.step).or_insert(ms);
                *shortest = shortest.min(ms);
            }
        }
        let tells_wait = !shortest.is_empty();
        let ranks: Vec<RankTimes> = by_rank
            .into_iter()
            .map(|(rank, steps)| {
                let times: Vec<StepTimes> = steps
                    .iter()
                    .map(|step| StepTimes::new(step, shortest.get(&step.step).copied().unwrap_or_default()))
                    .collect();
                RankTimes {
                    rank,
                    times: StepTimes::mean_of(&times),
                    peak_memory_bytes: steps.iter().filter_map(|step| step.peak_memory_bytes).max(),
                }
            })
            .collect();
        let lateness = |rank: &RankTimes| {
            if tells_wait {
                -rank.times.rank_wait_ms
            } else {
                rank.times.step_ms
            }
        };
        let slowest = ranks.iter().max_by(|a, b| lateness(a).total_cmp(&lateness(b)))?;
        let times = slowest.times;
        Some(Self {
            mean: StepTimes::mean_of(&ranks.iter().map(|rank| rank.times).collect::<Vec<_>>()),
            slowest: slowest.rank,
            compute_to_communication: (times.communication_ms > 0.0).then(|| times.compute_ms / times.communication_ms),
            ranks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64, rank: usize, compute_ms: f64, rank_wait_ms: Option<f64>) -> RankStep {
        RankStep {
            step,
            rank,
            step_ms: 100.0,
            data_wait_ms: 1.0,
            host_to_device_ms: 1.0,
            rank_wait_ms,
            communication_ms: rank_wait_ms.map(|_| 8.0),
            overlapped_communication_ms: None,
            compute_ms,
            loss: 10.5,
            peak_memory_bytes: Some(rank as u64 * 100 + step),
            device_mem_bytes: None,
            device_reserved_bytes: None,
        }
    }

    #[test]
    fn the_slowest_rank_is_the_one_that_waits_for_no_other() {
        let steps = [
            step(1, 0, 60.0, Some(30.0)),
            step(1, 1, 88.0, Some(2.0)),
            step(2, 0, 70.0, Some(20.0)),
            step(2, 1, 90.0, Some(0.0)),
        ];
        let breakdown = Breakdown::of(&steps).unwrap();
        assert_eq!((breakdown.slowest, breakdown.ranks.len()), (1, 2));
        assert!((breakdown.ranks[0].times.rank_wait_ms - 25.0).abs() < 1e-9);
        assert!((breakdown.mean.compute_ms - 77.0).abs() < 1e-9);
        assert!((breakdown.compute_to_communication.unwrap() - 89.0 / 8.0).abs() < 1e-9);
        assert_eq!(breakdown.ranks[1].peak_memory_bytes, Some(102));
        for rank in &breakdown.ranks {
            let parts: f64 = rank.times.parts().iter().map(|(_, ms)| ms).sum();
            assert!((parts - rank.times.step_ms).abs() < 1e-9);
        }
    }

    #[test]
    fn where_devices_sum_the_last_rank_waits_for_none() {
        let on_device = |number, rank, communication_ms| RankStep {
            communication_ms: Some(communication_ms),
            overlapped_communication_ms: Some(number as f64),
            ..step(number, rank, 98.0 - communication_ms, None)
        };
        let steps = [
            on_device(1, 0, 8.0),
            on_device(1, 1, 3.0),
            on_device(2, 0, 4.0),
            on_device(2, 1, 5.0),
        ];
        let breakdown = Breakdown::of(&steps).unwrap();
        let of = |rank: usize| breakdown.ranks[rank].times;
        for (rank, rank_wait_ms) in [2.5, 0.5].into_iter().enumerate() {
            assert!((of(rank).communication_ms - 3.5).abs() < 1e-9);
            assert!((of(rank).rank_wait_ms - rank_wait_ms).abs() < 1e-9);
            assert!((of(rank).overlapped_communication_ms.unwrap() - 1.5).abs() < 1e-9);
        }
        assert_eq!(breakdown.slowest, 1);
        assert!((breakdown.compute_to_communication.unwrap() - 94.0 / 3.5).abs() < 1e-9);
    }

    #[test]
    fn one_rank_exchanges_nothing() {
        let breakdown = Breakdown::of(&[step(1, 0, 98.0, None)]).unwrap();
        assert_eq!((breakdown.slowest, breakdown.compute_to_communication), (0, None));
        assert_eq!(Breakdown::of(&[]), None);
    }
}
