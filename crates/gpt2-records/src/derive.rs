//! What follows from a row's figures and its baseline's.

use crate::study::{Ceilings, Derived, Figures, Profile, Row, Study, StudyKind};

const MIB: f64 = 1_048_576.0;

/// Axes in which rows may differ by how much they compute with. Rates on more of it are compared by their efficiency.
const RESOURCES: [&str; 5] = ["threads", "devices", "gpus", "ranks", "world_size"];

impl Derived {
    /// From a row's figures, the baseline's, if there is one, and those of the same configuration on the least resources,
    /// with how many times those resources the row has.
    pub fn new(figures: &Figures, baseline: Option<&Figures>, least: Option<(&Figures, f64)>) -> Self {
        let step = figures.step_ms;
        let over = |other: &Figures| figures.tokens_per_sec / other.tokens_per_sec;
        Self {
            speedup: baseline.map(over),
            efficiency: least.map(|(least, times)| over(least) / times),
            tokens_per_sec_per_mib: figures.tokens_per_sec / (figures.peak_memory_bytes as f64 / MIB),
            jitter_ms: step.std,
            jitter_relative: step.std / step.mean,
            p95_over_p50: step.p95 / step.p50,
            break_even_steps: baseline.and_then(|baseline| break_even(figures, baseline)),
        }
    }
}

/// The first number of steps of the baseline's size after which the row, its warm-up included, is not behind the baseline.
fn break_even(figures: &Figures, baseline: &Figures) -> Option<u64> {
    let extra_sec = figures.settling_cost_sec? - baseline.settling_cost_sec?;
    if extra_sec <= 0.0 {
        return Some(0);
    }
    let tokens = baseline.tokens_per_step as f64;
    let saved_sec = tokens / baseline.tokens_per_sec - tokens / figures.tokens_per_sec;
    (saved_sec > 0.0).then(|| (extra_sec / saved_sec).ceil() as u64)
}

impl Study {
    /// The row that the others are compared with.
    pub fn baseline(&self) -> Option<&Row> {
        let name = self.baseline.as_deref()?;
        self.rows.iter().find(|row| row.name == name)
    }

    /// What follows from the figures of a row.
    pub fn derived(&self, row: &Row) -> Option<Derived> {
        let least = self.least(row);
        let baseline = match self.kind {
            // Each program and batch scales by itself.
            StudyKind::Scaling => least.map(|(figures, _)| figures),
            _ => self.baseline().and_then(|row| row.figures.as_ref()),
        };
        Some(Derived::new(row.figures.as_ref()?, baseline, least))
    }

    /// Computes it for every row.
    pub fn derive(&mut self) {
        let derived: Vec<_> = self.rows.iter().map(|row| self.derived(row)).collect();
        for (row, derived) in self.rows.iter_mut().zip(derived) {
            row.derived = derived;
        }
    }

    /// The figures of the same configuration on the least resources, and how many times those `row` has.
    fn least(&self, row: &Row) -> Option<(&Figures, f64)> {
        let axis = RESOURCES.into_iter().find(|&axis| row.axes.contains_key(axis))?;
        let amount = |row: &Row| row.axes.get(axis)?.parse::<f64>().ok();
        let others = |row: &Row| {
            let mut axes = row.axes.clone();
            axes.remove(axis);
            (row.peer.clone(), axes)
        };
        let same = self.rows.iter().filter(|other| others(other) == others(row));
        let (least, figures) = same
            .filter_map(|other| Some((amount(other)?, other.figures.as_ref()?)))
            .min_by(|a, b| a.0.total_cmp(&b.0))?;
        Some((figures, amount(row)? / least))
    }
}

impl Ceilings {
    /// The shares of the ceilings of products and of memory that work comes to which takes `ms` milliseconds; 0 where it takes
    /// none.
    pub fn shares(&self, flop: f64, bytes: f64, ms: f64) -> [f64; 2] {
        let share = |amount: f64, ceiling: f64| {
            if ms > 0.0 && ceiling > 0.0 {
                amount / (ms / 1e3) / ceiling
            } else {
                0.0
            }
        };
        [share(flop, self.product_flops), share(bytes, self.bytes_per_sec)]
    }
}

impl Profile {
    /// [`Profile::mfu`], from the step without profiling and the ceiling of products.
    pub fn computed_mfu(&self) -> f64 {
        let [mfu, _] = self
            .ceilings
            .shares(self.flop_per_step, 0.0, self.unprofiled_step_ms.p50);
        mfu
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt2_base::stats::Summary;

    fn figures(step_ms: f64, settling_cost_sec: f64) -> Figures {
        Figures {
            tokens_per_step: 1000,
            tokens_per_sec: 1000.0 / step_ms * 1e3,
            step_ms: Summary {
                count: 10,
                mean: step_ms,
                std: step_ms / 20.0,
                p50: step_ms,
                p95: 1.2 * step_ms,
                ..Summary::default()
            },
            settling_cost_sec: Some(settling_cost_sec),
            peak_memory_bytes: 100 << 20,
            ..Figures::default()
        }
    }

    #[test]
    fn jitter_is_the_spread_of_a_runs_own_steps() {
        let derived = Derived::new(&figures(100.0, 0.0), Some(&figures(50.0, 0.0)), None);
        assert!((derived.jitter_ms - 5.0).abs() < 1e-12);
        assert!((derived.jitter_relative - 0.05).abs() < 1e-12 && (derived.p95_over_p50 - 1.2).abs() < 1e-12);
        assert!((derived.tokens_per_sec_per_mib - 100.0).abs() < 1e-9);
    }

    #[test]
    fn a_longer_warm_up_is_paid_for_by_faster_steps() {
        let baseline = figures(100.0, 1.0);
        // 29 s more of warm-up, 40 ms saved a step.
        let compiled = Derived::new(&figures(60.0, 30.0), Some(&baseline), None);
        assert_eq!(compiled.break_even_steps, Some(725));
        let never = Derived::new(&figures(120.0, 30.0), Some(&baseline), None);
        assert_eq!(never.break_even_steps, None);
        let at_once = Derived::new(&figures(120.0, 0.5), Some(&baseline), None);
        assert_eq!(at_once.break_even_steps, Some(0));
    }

    /// Epochs of a study of one, two and four GPUs at batch 64 and 128, rank by rank, in seconds. Its own table divides the
    /// means over ranks and finds 2.04, 2.71, 2.21 and 4.25.
    #[test]
    fn speed_ups_are_of_the_slowest_rank() {
        let studies: [(f64, &[f64], f64); 4] = [
            (2233.50, &[1384.64, 806.75], 1.61),
            (2233.50, &[833.37, 819.76, 827.95, 816.87], 2.68),
            (2082.29, &[1188.86, 693.97], 1.75),
            (2082.29, &[706.41, 418.27, 415.71, 418.10], 2.95),
        ];
        for (one, ranks, expected) in studies {
            let slowest = ranks.iter().copied().fold(0.0, f64::max);
            let derived = Derived::new(&figures(slowest * 1e3, 0.0), Some(&figures(one * 1e3, 0.0)), None);
            let speedup = derived.speedup.unwrap();
            assert!((speedup - expected).abs() <= 0.005, "{ranks:?}: {speedup}");
        }
    }

    #[test]
    fn efficiency_is_the_speed_up_over_the_resources() {
        // Tokens a second on 1, 2 and 4 GPUs, of a published study of fixed work.
        let rates = [29_600.0, 57_289.0, 100_791.0];
        let of = |rate: f64| Figures {
            tokens_per_sec: rate,
            ..figures(100.0, 0.0)
        };
        let one = of(rates[0]);
        let derived = |i: usize, devices: f64| Derived::new(&of(rates[i]), Some(&one), Some((&one, devices)));
        let (two, four) = (derived(1, 2.0), derived(2, 4.0));
        let rounded = |value: Option<f64>| (value.unwrap() * 100.0).round() / 100.0;
        assert_eq!((rounded(two.speedup), rounded(four.speedup)), (1.94, 3.41));
        assert_eq!((rounded(two.efficiency), rounded(four.efficiency)), (0.97, 0.85));
    }
}
