//! Elementary functions that vectorise, and loops compiled for the vectors that the processor has.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the processor's vectors"
)]

use super::element::Element;
use super::memory::written;
use pulp::Arch;
use std::sync::LazyLock;

static ARCH: LazyLock<Arch> = LazyLock::new(|| narrower(std::env::var("GPT2_CPU_VECTORS").ok().as_deref()));

/// The vectors that `GPT2_CPU_VECTORS` asks for (`scalar`, `avx2`, `avx512`), so that studies can compare them; without it
/// the widest.
///
/// # Panics
/// If the processor has none of that kind, or the word is another: a study must not measure something else unsaid.
fn narrower(asked: Option<&str>) -> Arch {
    match asked {
        None => Arch::new(),
        Some("scalar") => Arch::Scalar,
        #[cfg(target_arch = "x86_64")]
        Some("avx2") => {
            Arch::V3(pulp::x86::V3::try_new().expect("GPT2_CPU_VECTORS is avx2, which this processor lacks"))
        }
        #[cfg(target_arch = "x86_64")]
        Some("avx512") => {
            Arch::V4(pulp::x86::V4::try_new().expect("GPT2_CPU_VECTORS is avx512, which this processor lacks"))
        }
        Some(other) => panic!("GPT2_CPU_VECTORS is {other:?}, expected scalar, avx2 or avx512"),
    }
}

/// Runs `work` as compiled for this processor's widest vectors. What `work` calls must be inlined into it.
#[inline(always)]
pub(super) fn vectorised<T>(work: impl FnOnce() -> T) -> T {
    ARCH.dispatch(work)
}

/// Elements that one task of [`map`] and [`zip`] takes: far more than it costs to hand out a task, and few enough to stay in
/// the cache.
const TASK: usize = 1 << 14;

/// `f` of each element, in parallel.
pub(super) fn map<E: Element, F: Element>(x: &[E], f: impl Fn(f32) -> f32 + Sync) -> Vec<F> {
    written(x.len(), TASK, |task, out| {
        let x = &x[task * TASK..][..out.len()];
        vectorised(
            #[inline(always)]
            || {
                for (out, &x) in out.iter_mut().zip(x) {
                    out.write(F::rounded(f(x.wide())));
                }
            },
        );
        // SAFETY: all of it was written just now.
        unsafe { out.assume_init_mut() }
    })
}

/// `f` of each pair of elements, in parallel.
pub(super) fn zip<E: Element>(x: &[E], y: &[E], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<E> {
    assert_eq!(x.len(), y.len(), "pairs");
    written(x.len(), TASK, |task, out| {
        let place = task * TASK..task * TASK + out.len();
        let (x, y) = (&x[place.clone()], &y[place]);
        vectorised(
            #[inline(always)]
            || {
                for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
                    out.write(E::rounded(f(x.wide(), y.wide())));
                }
            },
        );
        // SAFETY: all of it was written just now.
        unsafe { out.assume_init_mut() }
    })
}

/// Below this, [`exp`] is 0. Numbers near the smallest that `f32` holds in full precision become smaller still when they are
/// normalised, and arithmetic with those takes a hundred times as long.
const NEGLIGIBLE: f32 = -80.0;

/// `eˣ` for `x ≤ 0` to about one part in 10⁷, written without branches or calls so that it vectorises:
/// `x = k·ln 2 + r` with `|r| ≤ ln 2 / 2`, a Taylor polynomial for `eʳ`, and `2ᵏ` built in the exponent's bits.
/// A NaN stays NaN.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    /// ln 2 in two parts, so that `k·ln 2` is exact in the first (Cody & Waite 1980).
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Adding and subtracting 1.5·2²³ rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let negligible = x < NEGLIGIBLE;
    let x = if negligible { NEGLIGIBLE } else { x };
    let k = (x * LOG2_E + ROUND) - ROUND;
    let r = x - k * LN_2_HIGH - k * LN_2_LOW;
    let p = 1.0
        + r * (1.0
            + r * (0.5
                + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r * (1.0 / 5040.0)))))));
    // SAFETY: `k` is within [-126, 0], or NaN from a NaN input, for which any integer will do since `p` is NaN too.
    let k = unsafe { (if k.is_nan() { 0.0 } else { k }).to_int_unchecked::<i32>() };
    let e = p * f32::from_bits(((k + 127) << 23).cast_unsigned());
    if negligible { 0.0 } else { e }
}

/// `tanh x` from `e^(−2|x|)`; the error is below 2·10⁻⁷.
#[inline(always)]
pub(super) fn tanh(x: f32) -> f32 {
    let e = exp(-2.0 * x.abs());
    ((1.0 - e) / (1.0 + e)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_to_the_last_bits() {
        let mut worst = 0.0_f64;
        for i in 0..=800_000 {
            let x = -(i as f32) / 10_000.0;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2e-7, "relative error {worst}");
        assert_eq!([exp(-80.1), exp(f32::NEG_INFINITY)].map(f32::to_bits), [0, 0]);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_is_accurate_to_the_last_bits() {
        for i in -200_000..=200_000 {
            let x = i as f32 / 10_000.0;
            let error = (f64::from(tanh(x)) - f64::from(x).tanh()).abs();
            assert!(error < 2e-7, "tanh {x} is off by {error}");
        }
        assert!(tanh(f32::NAN).is_nan());
    }
}
