//! When a run's steps have settled: the true warm-up, whatever a benchmark was told to leave out.

use gpt2_base::stats::median;

/// Steps in a row that must be as fast as the steady ones.
const IN_A_ROW: usize = 3;

/// How much longer than the steady median a settled step may take.
const TOLERANCE: f64 = 1.1;

/// The warm-up of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settled {
    /// Steps before the first settled one.
    pub steps: usize,
    /// Their time, less what as many settled steps take: what the warm-up costs.
    pub cost_ms: f64,
}

/// Where the step times (in milliseconds, from the first step on) settle: the first of three steps in a row that take at
/// most 1.1 times the median of the later half. None where they do not, or there are fewer than six.
pub fn settled(step_ms: &[f64]) -> Option<Settled> {
    if step_ms.len() < 2 * IN_A_ROW {
        return None;
    }
    let steady = median(&step_ms[step_ms.len() / 2..])?;
    let steps = step_ms
        .windows(IN_A_ROW)
        .position(|window| window.iter().all(|&ms| ms <= TOLERANCE * steady))?;
    let cost_ms = step_ms[..steps].iter().map(|ms| ms - steady).sum::<f64>().max(0.0);
    Some(Settled { steps, cost_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warm_up_ends_with_three_steady_steps() {
        // One fast step among slow ones is no end.
        let times = [900.0, 300.0, 100.0, 200.0, 105.0, 100.0, 100.0, 100.0, 100.0, 100.0];
        let found = settled(&times).unwrap();
        assert_eq!(found.steps, 4);
        assert!((found.cost_ms - (800.0 + 200.0 + 0.0 + 100.0)).abs() < 1e-9);
    }

    #[test]
    fn steady_from_the_start_costs_nothing() {
        assert_eq!(settled(&[100.0; 6]), Some(Settled { steps: 0, cost_ms: 0.0 }));
    }

    #[test]
    fn what_never_settles_has_no_warm_up() {
        let times: Vec<f64> = (0..20).map(|i| if i % 2 == 0 { 100.0 } else { 300.0 }).collect();
        assert_eq!(settled(&times), None);
        assert_eq!(settled(&[100.0; 5]), None);
    }
}
