//! Reductions written so that they vectorise: independent sums, added up at the end.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the processor's vectors"
)]

use super::element::Element;
use ndarray::{ArrayView2, s};
use rayon::prelude::*;

/// Independent accumulators of a reduction.
const LANES: usize = 16;

/// The sum of `f` of each element.
#[inline(always)]
pub(super) fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|&x| f(x)).sum::<f32>()
}

/// The sum of the products of two vectors of one length.
#[inline(always)]
pub(super) fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>());
    for (x, y) in x.iter().zip(y) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += x * y;
        }
    }
    lanes.iter().sum::<f32>() + x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum::<f32>()
}

/// The sums of a matrix's columns, in parallel; how each is made up depends on the matrix alone.
pub(super) fn sum_rows<E: Element>(matrix: ArrayView2<E>) -> Vec<f32> {
    /// Columns of a task: whole lines of the cache, and few enough for all threads to have some.
    const TASK: usize = 128;
    let mut sums = vec![0.0; matrix.ncols()];
    sums.par_chunks_mut(TASK).enumerate().for_each(|(i, sums)| {
        let columns = i * TASK..i * TASK + sums.len();
        for row in matrix.slice(s![.., columns]).outer_iter() {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value.wide();
            }
        }
    });
    sums
}

/// The largest element.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Replaces each element by `f` of it and returns the sum of the results.
#[inline(always)]
pub(super) fn map_sum(x: &mut [f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *x = f(*x);
            *lane += *x;
        }
    }
    let mut sum = 0.0;
    for x in rest {
        *x = f(*x);
        sum += *x;
    }
    lanes.iter().sum::<f32>() + sum
}
