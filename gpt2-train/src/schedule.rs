//! The learning rate as a pure function of the step. No state, no I/O: resuming at any step gives the same rate.

use crate::config::ScheduleKind;
use std::f64::consts::PI;

/// Warm-up, then one of four shapes, then [`min_lr`](Self::min_lr) for ever.
///
/// ```
/// use gpt2_train::{config::ScheduleKind, schedule::LrSchedule};
///
/// let schedule = LrSchedule {
///     kind: ScheduleKind::Cosine,
///     lr: 6e-4,
///     min_lr: 0.0,
///     warmup: 700,
///     decay_steps: 18_865,
///     decay_fraction: 0.2,
/// };
/// assert_eq!(schedule.lr(699), 6e-4);
/// assert_eq!(schedule.lr(18_865), 0.0);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LrSchedule {
    /// The shape after the warm-up.
    pub kind: ScheduleKind,
    /// The highest rate, reached at the end of the warm-up.
    pub lr: f64,
    /// The rate at and after `decay_steps`. A constant schedule never goes there.
    pub min_lr: f64,
    /// Length of the linear warm-up, in optimizer steps.
    pub warmup: u64,
    /// The step at which the decay ends, counted from the start of the run.
    pub decay_steps: u64,
    /// The last part of `decay_steps` in which WSD decays, in `(0, 1]`.
    pub decay_fraction: f64,
}

impl LrSchedule {
    /// The rate of optimizer step `step`, counted from 0.
    ///
    /// The warm-up is llm.c's (`schedulers.h`): `lr · (step + 1) / warmup`, so that the first step does move the weights and
    /// step `warmup - 1` is the first at the full rate. Cosine is SGDR's single half-wave (Loshchilov and Hutter 2017, eq. 5);
    /// WSD holds the rate and then falls with `1 - √x` (Hägele et al. 2024, section 3).
    pub fn lr(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.lr * (step + 1) as f64 / self.warmup as f64;
        }
        let remaining = match self.kind {
            ScheduleKind::Constant => return self.lr,
            // Burn's cosine turns round at its end and rises again; a run that is prolonged must stay low instead.
            _ if step >= self.decay_steps => 0.0,
            ScheduleKind::Linear => 1.0 - self.progress(step, self.warmup as f64),
            ScheduleKind::Cosine => 0.5 * (1.0 + (PI * self.progress(step, self.warmup as f64)).cos()),
            ScheduleKind::Wsd => 1.0 - self.progress(step, self.stable_until()).sqrt(),
        };
        self.min_lr + remaining * (self.lr - self.min_lr)
    }

    /// How far `step` is between `start` and the end of the decay, in `[0, 1]`.
    fn progress(&self, step: u64, start: f64) -> f64 {
        ((step as f64 - start) / (self.decay_steps as f64 - start)).clamp(0.0, 1.0)
    }

    /// The step at which WSD starts to decay: never inside the warm-up.
    fn stable_until(&self) -> f64 {
        ((1.0 - self.decay_fraction) * self.decay_steps as f64).max(self.warmup as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedule(kind: ScheduleKind) -> LrSchedule {
        LrSchedule {
            kind,
            lr: 1e-3,
            min_lr: 1e-4,
            warmup: 10,
            decay_steps: 110,
            decay_fraction: 0.2,
        }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-15
    }

    #[test]
    fn the_warm_up_is_llm_c_s() {
        let s = schedule(ScheduleKind::Cosine);
        assert!(close(s.lr(0), 1e-4));
        assert!(close(s.lr(4), 5e-4));
        assert!(close(s.lr(9), 1e-3));
        assert!(close(s.lr(10), 1e-3));
    }

    #[test]
    fn each_shape_at_its_middle_and_end() {
        assert!(close(schedule(ScheduleKind::Cosine).lr(60), 5.5e-4));
        assert!(close(schedule(ScheduleKind::Linear).lr(60), 5.5e-4));
        assert!(close(schedule(ScheduleKind::Constant).lr(1_000_000), 1e-3));
        let wsd = schedule(ScheduleKind::Wsd);
        assert!(close(wsd.lr(88), 1e-3));
        // A quarter of the way through the decay (88..110) half of the distance is gone: √0.25 = 0.5.
        let quarter = LrSchedule {
            decay_steps: 100,
            ..wsd
        };
        assert!(close(quarter.lr(85), 5.5e-4));
        for kind in [ScheduleKind::Cosine, ScheduleKind::Linear, ScheduleKind::Wsd] {
            assert!(close(schedule(kind).lr(110), 1e-4));
        }
    }

    #[test]
    fn no_warm_up_starts_at_the_full_rate() {
        assert!(close(
            LrSchedule {
                warmup: 0,
                ..schedule(ScheduleKind::Cosine)
            }
            .lr(0),
            1e-3
        ));
    }

    fn any_schedule() -> impl Strategy<Value = LrSchedule> {
        let kinds = prop_oneof![
            Just(ScheduleKind::Cosine),
            Just(ScheduleKind::Linear),
            Just(ScheduleKind::Constant),
            Just(ScheduleKind::Wsd)
        ];
        (
            kinds,
            1e-8..1.0_f64,
            0.0..=1.0_f64,
            0..2_000_u64,
            0..20_000_u64,
            0.001..=1.0_f64,
        )
            .prop_map(|(kind, lr, min_share, warmup, after, decay_fraction)| LrSchedule {
                kind,
                lr,
                min_lr: lr * min_share,
                warmup,
                decay_steps: warmup + after,
                decay_fraction,
            })
    }

    proptest! {
        #[test]
        fn the_rate_is_positive_and_never_above_its_peak(s in any_schedule(), step in 0..50_000_u64) {
            let rate = s.lr(step);
            prop_assert!(rate.is_finite() && rate >= 0.0 && rate <= s.lr * (1.0 + 1e-12), "{rate}");
        }

        #[test]
        fn it_rises_in_the_warm_up_and_never_again(s in any_schedule(), step in 0..50_000_u64) {
            let (now, next) = (s.lr(step), s.lr(step + 1));
            if step + 1 < s.warmup {
                prop_assert!(next > now);
            } else if step >= s.warmup {
                prop_assert!(next <= now * (1.0 + 1e-12), "{now} then {next}");
            }
        }

        #[test]
        fn it_stays_at_the_minimum_after_the_end(s in any_schedule(), beyond in 0..1_000_000_u64) {
            let expected = if s.kind == ScheduleKind::Constant { s.lr } else { s.min_lr };
            prop_assert_eq!(s.lr(s.decay_steps + beyond).to_bits(), expected.to_bits());
        }
    }
}
