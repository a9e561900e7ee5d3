//! LayerNorm and its derivatives, each in one pass over the rows.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the processor's vectors"
)]

use super::element::Element;
use super::math::vectorised;
use super::memory::{written, written_with};
use super::reduce::{dot, sum};
use crate::ops::reference::layer_norm::EPS;
use crate::ops::types::LayerNormGradients;

/// Rows that one task takes. Sums over all rows are made of this many at a time, so that they do not depend on the number
/// of threads.
const TASK_ROWS: usize = 32;

/// Rows of `x`, each as long as `weight`, normalised, scaled and shifted.
pub(super) fn value<E: Element>(x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<E> {
    let width = weight.len();
    let task = TASK_ROWS * width;
    written(x.len(), task, |i, out| {
        let x = &x[i * task..][..out.len()];
        vectorised(
            #[inline(always)]
            || {
                for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                    let (mean, per_deviation) = statistics(x);
                    for (((out, &x), &weight), &bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                        out.write(E::rounded((x - mean) * per_deviation * weight + bias));
                    }
                }
            },
        );
        // SAFETY: all of it was written just now, since the tasks are whole rows.
        unsafe { out.assume_init_mut() }
    })
}

/// The derivatives by `x`, on top of `start` where there is one, by gain and by offset.
pub(super) fn derivatives<E: Element>(
    x: &[f32],
    weight: &[f32],
    grad_output: &[E],
    start: Option<&[f32]>,
) -> LayerNormGradients<Vec<f32>> {
    let width = weight.len();
    let task = TASK_ROWS * width;
    let (grad_x, parts) = written_with(x.len(), task, |i, out| {
        let place = i * task..i * task + out.len();
        let grad_output = &grad_output[place.clone()];
        vectorised(
            #[inline(always)]
            || {
                for (out, &grad_output) in out.iter_mut().zip(grad_output) {
                    out.write(grad_output.wide());
                }
            },
        );
        // SAFETY: all of it was written just now.
        let out = unsafe { out.assume_init_mut() };
        let parts = vectorised(
            #[inline(always)]
            || {
                let parts = part(out, &x[place.clone()], weight);
                if let Some(start) = start {
                    add(out, &start[place.clone()]);
                }
                parts
            },
        );
        (out, parts)
    });
    let [mut grad_weight, mut grad_bias] = [vec![0.0; width], vec![0.0; width]];
    for [weight_part, bias_part] in parts {
        add(&mut grad_weight, &weight_part);
        add(&mut grad_bias, &bias_part);
    }
    LayerNormGradients {
        x: grad_x,
        weight: grad_weight,
        bias: grad_bias,
    }
}

/// Turns the gradient of the output, in `grad_x`, into that of `x`, and returns what these rows add to those of gain
/// and offset.
#[inline(always)]
fn part(grad_x: &mut [f32], x: &[f32], weight: &[f32]) -> [Vec<f32>; 2] {
    let width = weight.len();
    let [mut grad_weight, mut grad_bias] = [vec![0.0; width], vec![0.0; width]];
    for (grad_x, x) in grad_x.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
        let (mean, per_deviation) = statistics(x);
        let gains = grad_weight.iter_mut().zip(&mut grad_bias).zip(weight);
        for ((g, &x), ((grad_weight, grad_bias), &weight)) in grad_x.iter_mut().zip(x).zip(gains) {
            *grad_weight += *g * ((x - mean) * per_deviation);
            *grad_bias += *g;
            *g *= weight;
        }
        let mean_g = sum(grad_x, |g| g) / width as f32;
        // Σ g·n = (Σ g·x − mean·Σ g) / deviation
        let along = (dot(grad_x, x) / width as f32 - mean * mean_g) * per_deviation;
        for (g, &x) in grad_x.iter_mut().zip(x) {
            *g = (*g - mean_g - (x - mean) * per_deviation * along) * per_deviation;
        }
    }
    [grad_weight, grad_bias]
}

/// Mean, and the reciprocal of the deviation.
#[inline(always)]
fn statistics(x: &[f32]) -> (f32, f32) {
    let per_width = 1.0 / x.len() as f32;
    let mean = sum(x, |x| x) * per_width;
    let variance = sum(x, |x| (x - mean) * (x - mean)) * per_width;
    (mean, 1.0 / (variance + EPS as f32).sqrt())
}

#[inline(always)]
fn add(sum: &mut [f32], part: &[f32]) {
    for (sum, part) in sum.iter_mut().zip(part) {
        *sum += part;
    }
}
