//! LayerNorm and its derivatives, each in one pass over the rows.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the processor's vectors"
)]

use super::math::vectorised;
use super::product::UNWRITTEN;
use super::reduce::{dot, sum};
use crate::ops::LayerNormGradients;
use crate::ops::layer_norm::EPS;
use rayon::prelude::*;

/// Rows that one task takes. Sums over all rows are made of this many at a time, so that they do not depend on the number
/// of threads.
const TASK_ROWS: usize = 32;

/// Rows of `x`, each as long as `weight`, normalised, scaled and shifted.
pub(super) fn value(x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let width = weight.len();
    let mut out = vec![UNWRITTEN; x.len()];
    out.par_chunks_mut(TASK_ROWS * width)
        .zip(x.par_chunks(TASK_ROWS * width))
        .for_each(|(out, x)| {
            vectorised(
                #[inline(always)]
                || {
                    for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                        let (mean, per_deviation) = statistics(x);
                        for ((out, &x), (&weight, &bias)) in out.iter_mut().zip(x).zip(weight.iter().zip(bias)) {
                            *out = (x - mean) * per_deviation * weight + bias;
                        }
                    }
                },
            );
        });
    out
}

/// The derivatives by `x`, gain and offset.
pub(super) fn derivatives(x: &[f32], weight: &[f32], upstream: &[f32]) -> LayerNormGradients<Vec<f32>> {
    let width = weight.len();
    let mut by_x = vec![UNWRITTEN; x.len()];
    let parts: Vec<[Vec<f32>; 2]> = by_x
        .par_chunks_mut(TASK_ROWS * width)
        .zip(x.par_chunks(TASK_ROWS * width))
        .zip(upstream.par_chunks(TASK_ROWS * width))
        .map(|((by_x, x), upstream)| {
            vectorised(
                #[inline(always)]
                || part(by_x, x, weight, upstream),
            )
        })
        .collect();
    let [mut by_weight, mut by_bias] = [vec![0.0; width], vec![0.0; width]];
    for [weight_part, bias_part] in parts {
        add(&mut by_weight, &weight_part);
        add(&mut by_bias, &bias_part);
    }
    LayerNormGradients {
        x: by_x,
        weight: by_weight,
        bias: by_bias,
    }
}

/// Fills `by_x` and returns what these rows add to the derivatives by gain and offset.
#[inline(always)]
fn part(by_x: &mut [f32], x: &[f32], weight: &[f32], upstream: &[f32]) -> [Vec<f32>; 2] {
    let width = weight.len();
    let [mut by_weight, mut by_bias] = [vec![0.0; width], vec![0.0; width]];
    let rows = by_x.chunks_exact_mut(width).zip(x.chunks_exact(width));
    for ((by_x, x), upstream) in rows.zip(upstream.chunks_exact(width)) {
        let (mean, per_deviation) = statistics(x);
        // `by_x` holds g, the upstream times the gain, until both of its means are known.
        for ((g, &upstream), &weight) in by_x.iter_mut().zip(upstream).zip(weight) {
            *g = upstream * weight;
        }
        let mean_g = sum(by_x, |g| g) / width as f32;
        // Σ g·n = (Σ g·x − mean·Σ g) / deviation
        let along = (dot(by_x, x) / width as f32 - mean * mean_g) * per_deviation;
        for ((g, &x), (&upstream, (by_weight, by_bias))) in by_x
            .iter_mut()
            .zip(x)
            .zip(upstream.iter().zip(by_weight.iter_mut().zip(&mut by_bias)))
        {
            let normal = (x - mean) * per_deviation;
            *g = (*g - mean_g - normal * along) * per_deviation;
            *by_weight += upstream * normal;
            *by_bias += upstream;
        }
    }
    [by_weight, by_bias]
}

/// Mean, and the reciprocal of the deviation.
#[inline(always)]
fn statistics(x: &[f32]) -> (f32, f32) {
    let per_width = 1.0 / x.len() as f32;
    let mean = sum(x, |x| x) * per_width;
    let variance = sum(x, |x| (x - mean) * (x - mean)) * per_width;
    (mean, 1.0 / (variance + EPS as f32).sqrt())
}

fn add(sum: &mut [f32], part: &[f32]) {
    for (sum, part) in sum.iter_mut().zip(part) {
        *sum += part;
    }
}
