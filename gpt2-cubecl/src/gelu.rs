//! GELU in GPT-2's tanh form (Hendrycks & Gimpel 2016), element by element.

use crate::Tensor;
use crate::launch::{array, cubes_over, empty_of, units};
use burn::tensor::TensorMetadata;
use burn_cubecl::CubeRuntime;
use cubecl::prelude::*;

/// `√(2/π)`.
const INNER: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

/// GELU's value.
#[cube]
pub(crate) fn value(x: f32) -> f32 {
    0.5 * x * (1.0 + inner_tanh(x))
}

/// GELU's derivative.
#[cube]
pub(crate) fn slope(x: f32) -> f32 {
    let tanh = inner_tanh(x);
    0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * INNER * (1.0 + 3.0 * CUBIC * x * x)
}

/// `tanh(√(2/π)·(x + 0.044715·x³))`.
#[cube]
fn inner_tanh(x: f32) -> f32 {
    let inner = INNER * (x + CUBIC * x * x * x);
    // The result is 1 long before, and not every device has an infinity for what would overflow.
    1.0 - 2.0 / (1.0 + f32::exp(min(2.0 * inner, 40.0)))
}

#[cube(launch_unchecked)]
fn forward_kernel(x: &Array<f32>, out: &mut Array<f32>) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = value(x[ABSOLUTE_POS]);
    }
}

#[cube(launch_unchecked)]
fn backward_kernel(x: &Array<f32>, grad_output: &Array<f32>, out: &mut Array<f32>) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = grad_output[ABSOLUTE_POS] * slope(x[ABSOLUTE_POS]);
    }
}

/// GELU of each element.
pub fn forward<R: CubeRuntime>(x: &Tensor<R>) -> Tensor<R> {
    let out = empty_of(x, x.shape().as_slice(), x.dtype);
    // SAFETY: no unit goes past the end of its tensors, which are of one size.
    unsafe { forward_kernel::launch_unchecked(&x.client, cubes_over(x), units(), array(x), array(&out)) };
    out
}

/// The derivative of [`forward`] at `x`, times `grad_output`.
pub fn backward<R: CubeRuntime>(x: &Tensor<R>, grad_output: &Tensor<R>) -> Tensor<R> {
    let out = empty_of(x, x.shape().as_slice(), x.dtype);
    // SAFETY: no unit goes past the end of its tensors, which are of one size.
    unsafe {
        backward_kernel::launch_unchecked(
            &x.client,
            cubes_over(x),
            units(),
            array(x),
            array(grad_output),
            array(&out),
        );
    };
    out
}
