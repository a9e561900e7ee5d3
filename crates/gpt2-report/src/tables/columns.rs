//! The numbers of a row, in the order of the table and of `results.csv`.

use gpt2_records::{Derived, Figures, GpuUse, Row};

pub(super) const MIB: f64 = 1_048_576.0;
pub(super) const PERCENT: f64 = 0.01;

/// A number that rows have.
pub(super) struct Metric {
    /// Its name in `results.csv`, with the unit.
    pub(super) key: &'static str,
    /// Its name for people.
    pub(super) title: &'static str,
    /// The unit for people.
    pub(super) unit: &'static str,
    /// Where it is in a row's JSON.
    pub(super) pointer: &'static str,
    /// How much of the JSON's unit is one of the unit for people.
    pub(super) per: f64,
    /// The same for `results.csv`.
    pub(super) csv_per: f64,
    /// Digits after the point, where they do not follow from the numbers.
    pub(super) decimals: Option<usize>,
    /// Its value, in the JSON's unit.
    pub(super) value: fn(&Row) -> Option<f64>,
}

const fn metric(
    key: &'static str,
    (title, unit): (&'static str, &'static str),
    pointer: &'static str,
    value: fn(&Row) -> Option<f64>,
) -> Metric {
    Metric {
        key,
        title,
        unit,
        pointer,
        per: 1.0,
        csv_per: 1.0,
        decimals: None,
        value,
    }
}

impl Metric {
    const fn in_mib(self) -> Self {
        Self {
            per: MIB,
            csv_per: MIB,
            decimals: Some(0),
            ..self
        }
    }

    /// In percent for people, a share in `results.csv`.
    const fn in_percent(self, decimals: usize) -> Self {
        Self {
            per: PERCENT,
            decimals: Some(decimals),
            ..self
        }
    }

    const fn with_decimals(self, decimals: usize) -> Self {
        Self {
            decimals: Some(decimals),
            ..self
        }
    }
}

pub(super) static METRICS: [Metric; 25] = [
    metric(
        "predicted_mib",
        ("Predicted memory", "MiB"),
        "/predicted_memory_bytes",
        |row| row.predicted_memory_bytes.map(|bytes| bytes as f64),
    )
    .in_mib(),
    metric(
        "tokens_per_sec",
        ("Throughput", "tokens/s"),
        "/figures/tokens_per_sec",
        |row| figure(row, |f| f.tokens_per_sec),
    ),
    metric("step_mean_ms", ("Step, mean", "ms"), "/figures/step_ms/mean", |row| {
        figure(row, |f| f.step_ms.mean)
    }),
    metric("step_p50_ms", ("Step, median", "ms"), "/figures/step_ms/p50", |row| {
        figure(row, |f| f.step_ms.p50)
    }),
    metric("step_p95_ms", ("Step, p95", "ms"), "/figures/step_ms/p95", |row| {
        figure(row, |f| f.step_ms.p95)
    }),
    metric("step_std_ms", ("Step, std", "ms"), "/figures/step_ms/std", |row| {
        figure(row, |f| f.step_ms.std)
    }),
    metric("warmup_sec", ("Warm-up, left out", "s"), "/figures/warmup_sec", |row| {
        figure(row, |f| f.warmup_sec)
    }),
    metric(
        "first_step_sec",
        ("First step", "s"),
        "/figures/first_step_sec",
        |row| figure(row, |f| f.first_step_sec),
    ),
    metric(
        "settled_after_steps",
        ("Settled after", "steps"),
        "/figures/settled_after_steps",
        |row| row.figures.as_ref()?.settled_after_steps.map(|steps| steps as f64),
    ),
    metric(
        "settling_cost_sec",
        ("Cost of settling", "s"),
        "/figures/settling_cost_sec",
        |row| row.figures.as_ref()?.settling_cost_sec,
    ),
    metric(
        "break_even_steps",
        ("Break-even", "steps"),
        "/derived/break_even_steps",
        |row| row.derived?.break_even_steps.map(|steps| steps as f64),
    ),
    metric(
        "peak_mib",
        ("Peak memory", "MiB"),
        "/figures/peak_memory_bytes",
        |row| figure(row, |f| f.peak_memory_bytes as f64),
    )
    .in_mib(),
    metric(
        "driver_mib",
        ("Driver's memory", "MiB"),
        "/figures/driver_memory_bytes",
        |row| row.figures.as_ref()?.driver_memory_bytes.map(|bytes| bytes as f64),
    )
    .in_mib(),
    metric(
        "tokens_per_sec_per_mib",
        ("Throughput a MiB", "tokens/s"),
        "/derived/tokens_per_sec_per_mib",
        |row| derived(row, |d| d.tokens_per_sec_per_mib),
    ),
    metric(
        "gpu_utilisation_percent",
        ("GPU in use", "%"),
        "/figures/gpu/utilisation_percent",
        |row| gpu(row, |g| g.utilisation_percent),
    )
    .with_decimals(0),
    metric("gpu_clock_mhz", ("GPU clock", "MHz"), "/figures/gpu/clock_mhz", |row| {
        gpu(row, |g| g.clock_mhz)
    })
    .with_decimals(0),
    metric(
        "gpu_power_watts",
        ("GPU power", "W"),
        "/figures/gpu/power_watts",
        |row| gpu(row, |g| g.power_watts),
    )
    .with_decimals(0),
    metric("jitter_ms", ("Jitter", "ms"), "/derived/jitter_ms", |row| {
        derived(row, |d| d.jitter_ms)
    }),
    metric(
        "jitter_relative",
        ("Jitter, relative", "%"),
        "/derived/jitter_relative",
        |row| derived(row, |d| d.jitter_relative),
    )
    .in_percent(1),
    metric(
        "p95_over_p50",
        ("p95 over median", ""),
        "/derived/p95_over_p50",
        |row| derived(row, |d| d.p95_over_p50),
    )
    .with_decimals(2),
    metric("speedup", ("Speed-up", "×"), "/derived/speedup", |row| {
        row.derived?.speedup
    })
    .with_decimals(2),
    metric("efficiency", ("Efficiency", "%"), "/derived/efficiency", |row| {
        row.derived?.efficiency
    })
    .in_percent(0),
    metric("loss_last", ("Last loss", "nats"), "/figures/loss_last", |row| {
        row.figures.as_ref()?.loss_last
    })
    .with_decimals(4),
    metric("mfu", ("MFU", "%"), "/figures/mfu", |row| row.figures.as_ref()?.mfu).in_percent(1),
    metric("process_sec", ("Process", "s"), "/process_sec", |row| row.process_sec),
];

/// The metric with this name in `results.csv`.
pub(super) fn metric_named(key: &str) -> &'static Metric {
    METRICS
        .iter()
        .find(|metric| metric.key == key)
        .unwrap_or_else(|| unreachable!("no metric {key}"))
}

fn figure(row: &Row, value: impl Fn(&Figures) -> f64) -> Option<f64> {
    row.figures.as_ref().map(value)
}

fn derived(row: &Row, value: impl Fn(&Derived) -> f64) -> Option<f64> {
    row.derived.as_ref().map(value)
}

fn gpu(row: &Row, value: impl Fn(&GpuUse) -> f64) -> Option<f64> {
    row.figures.as_ref()?.gpu.as_ref().map(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique() {
        let keys: BTreeSet<_> = METRICS.iter().map(|metric| metric.key).collect();
        let titles: BTreeSet<_> = METRICS.iter().map(|metric| (metric.title, metric.unit)).collect();
        assert_eq!((keys.len(), titles.len()), (METRICS.len(), METRICS.len()));
    }
}
