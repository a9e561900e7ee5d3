//! Mean, spread and percentiles of a list of measurements, such as step times.

use serde::{Deserialize, Serialize};

/// What a list of measurements comes to, in the unit of the measurements.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many measurements.
    pub count: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation (divisor `count - 1`); 0 for a single measurement.
    pub std: f64,
    /// The smallest.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// The value that 95 in 100 measurements do not exceed.
    pub p95: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Summarises `values`, which may be in any order. Values that are not finite are left out; `None` if none is left.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let count = sorted.len();
        let mean = sorted.iter().sum::<f64>() / count as f64;
        let squares: f64 = sorted.iter().map(|v| (v - mean).powi(2)).sum();
        Some(Self {
            count,
            mean,
            std: if count > 1 {
                (squares / (count - 1) as f64).sqrt()
            } else {
                0.0
            },
            min,
            p50: percentile(&sorted, 0.50),
            p95: percentile(&sorted, 0.95),
            max,
        })
    }
}

/// The median of `values`, or none if there is no finite value.
pub fn median(values: &[f64]) -> Option<f64> {
    Summary::of(values).map(|summary| summary.p50)
}

/// Linear interpolation between the closest ranks (Hyndman and Fan's type 7, NumPy's default) of sorted values, of which
/// there is at least one.
fn percentile(sorted: &[f64], fraction: f64) -> f64 {
    let rank = fraction * (sorted.len() - 1) as f64;
    let below = rank.floor() as usize;
    let above = rank.ceil() as usize;
    sorted[below] + (sorted[above] - sorted[below]) * rank.fract()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_values() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((summary.count, summary.min, summary.max), (4, 1.0, 4.0));
        assert!((summary.mean - 2.5).abs() < 1e-12 && (summary.p50 - 2.5).abs() < 1e-12);
        assert!((summary.p95 - 3.85).abs() < 1e-12);
        // Deviations ±0.5 and ±1.5: variance 5/3.
        assert!((summary.std - (5.0_f64 / 3.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn one_value_has_no_spread_and_no_value_no_summary() {
        let one = Summary::of(&[7.0]).unwrap();
        assert_eq!((one.std, one.p50, one.p95), (0.0, 7.0, 7.0));
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[f64::NAN]), None);
        assert_eq!(median(&[f64::INFINITY, 2.0]), Some(2.0));
    }

    proptest! {
        #[test]
        fn figures_lie_between_the_extremes(values in prop::collection::vec(0.0..1e6_f64, 1..200)) {
            let s = Summary::of(&values).unwrap();
            prop_assert!(s.min <= s.p50 && s.p50 <= s.p95 && s.p95 <= s.max);
            prop_assert!(s.mean >= s.min - 1e-6 && s.mean <= s.max + 1e-6 && s.std >= 0.0);
        }
    }
}
