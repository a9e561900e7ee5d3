//! What follows from raw counts, as `perf stat` computes it (`tools/perf/util/stat-shadow.c`): its rates are events for
//! each second of task clock, so that they do not fall when more threads run.

/// CPUs used on average: task clock over wall time. None where a time is zero.
pub fn cpus_used(task_clock_ms: f64, elapsed_sec: f64) -> Option<f64> {
    ratio(task_clock_ms / 1e3, elapsed_sec)
}

/// Events for each second of task clock. None where the clock stood still.
pub fn per_second(events: f64, task_clock_ms: f64) -> Option<f64> {
    ratio(events, task_clock_ms / 1e3)
}

/// Mean clock of the processors while they ran this work, in GHz. None where the task clock stood still.
pub fn ghz(cycles: f64, task_clock_ms: f64) -> Option<f64> {
    ratio(cycles / 1e9, task_clock_ms / 1e3)
}

/// Instructions in a cycle. None without cycles.
pub fn ipc(instructions: f64, cycles: f64) -> Option<f64> {
    ratio(instructions, cycles)
}

/// Share of the branches that were mispredicted, from 0 to 1. None without branches.
pub fn branch_miss_share(branch_misses: f64, branches: f64) -> Option<f64> {
    ratio(branch_misses, branches)
}

/// An estimate of an event's count, where it shared its hardware counter with others and was counted for `running` of
/// the `enabled` time: the count times their ratio (perf_event_open(2), "time_running"). None where it was enabled but
/// never counted.
pub fn unmultiplexed(count: f64, enabled: f64, running: f64) -> Option<f64> {
    if running > 0.0 {
        Some(count * (enabled / running))
    } else {
        // A thread that never ran did not enable its counters either.
        (enabled <= 0.0).then_some(count)
    }
}

pub(crate) fn ratio(numerator: f64, denominator: f64) -> Option<f64> {
    let ratio = numerator / denominator;
    ratio.is_finite().then_some(ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_divided_by_zero() {
        assert_eq!(cpus_used(100.0, 0.0), None);
        assert_eq!(per_second(3.0, 0.0), None);
        assert_eq!(ghz(0.0, 0.0), None);
        assert_eq!(ipc(3.0, 0.0), None);
        assert_eq!(branch_miss_share(0.0, 0.0), None);
        assert_eq!(branch_miss_share(0.0, 5.0), Some(0.0));
    }

    #[test]
    fn a_shared_counter_is_scaled_to_the_whole_time() {
        assert_eq!(unmultiplexed(250.0, 8.0, 2.0), Some(1000.0));
        assert_eq!(unmultiplexed(250.0, 8.0, 8.0), Some(250.0));
        assert_eq!(unmultiplexed(0.0, 8.0, 0.0), None);
        assert_eq!(unmultiplexed(0.0, 0.0, 0.0), Some(0.0));
    }
}
