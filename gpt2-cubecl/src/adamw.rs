//! AdamW (Loshchilov & Hutter 2019, algorithm 2) in one pass over a parameter, and the gradients' norm.

use crate::Tensor;
use crate::launch::{UNITS, array, cubes_over, empty, units};
use crate::reduce::sum_of_cube;
use burn::tensor::TensorMetadata;
use burn_cubecl::CubeRuntime;
use cubecl::prelude::*;

/// Cubes that share the squares of one tensor at most.
const NORM_CUBES: usize = 256;

/// The numbers of an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Decay of the gradient's running mean.
    pub beta1: f32,
    /// Decay of the squared gradient's running mean.
    pub beta2: f32,
    /// `1 − β₁`, which is not the same after rounding.
    pub beta1_rest: f32,
    /// `1 − β₂`.
    pub beta2_rest: f32,
    /// Added to the denominator.
    pub eps: f32,
    /// Multiplies the root of the squared mean: `1/√(1 − β₂ᵗ)`.
    pub square_correction: f32,
    /// Multiplies the quotient of the moments.
    pub step_size: f32,
    /// Multiplies the parameter.
    pub shrink: f32,
}

#[cube(launch_unchecked)]
fn update_kernel(
    parameter: &mut Array<f32>,
    gradient: &Array<f32>,
    mean: &mut Array<f32>,
    square: &mut Array<f32>,
    scale: &Array<f32>,
    beta1: f32,
    beta2: f32,
    beta1_rest: f32,
    beta2_rest: f32,
    eps: f32,
    square_correction: f32,
    step_size: f32,
    shrink: f32,
) {
    let i = ABSOLUTE_POS;
    let scale = scale[0];
    if i >= parameter.len() || scale == 0.0 {
        terminate!();
    }
    let slope = gradient[i] * scale;
    let running = mean[i] * beta1 + slope * beta1_rest;
    let spread = square[i] * beta2 + slope * slope * beta2_rest;
    mean[i] = running;
    square[i] = spread;
    parameter[i] = parameter[i] * shrink - step_size * running / (f32::sqrt(spread) * square_correction + eps);
}

/// Updates `parameter` and its moments in place, with the gradient multiplied by `scale`, `[1]`; leaves all as it is where that
/// is 0.
pub fn update<R: CubeRuntime>(
    parameter: &Tensor<R>,
    gradient: &Tensor<R>,
    mean: &Tensor<R>,
    square: &Tensor<R>,
    scale: &Tensor<R>,
    rule: Rule,
) {
    // SAFETY: no unit goes past the end of the tensors, which have one size.
    unsafe {
        update_kernel::launch_unchecked(
            &parameter.client,
            cubes_over(parameter),
            units(),
            array(parameter),
            array(gradient),
            array(mean),
            array(square),
            array(scale),
            rule.beta1,
            rule.beta2,
            rule.beta1_rest,
            rule.beta2_rest,
            rule.eps,
            rule.square_correction,
            rule.step_size,
            rule.shrink,
        );
    }
}

#[cube(launch_unchecked)]
fn squares_kernel(tensor: &Array<f32>, sums: &mut Array<f32>, first: usize, count: usize) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let stride = CUBE_COUNT * UNITS;
    let mut sum = 0.0f32;
    let mut i = ABSOLUTE_POS;
    while i < count {
        sum += tensor[i] * tensor[i];
        i += stride;
    }
    let sum = sum_of_cube(sum, &mut shared);
    if UNIT_POS == 0 {
        sums[first + CUBE_POS] = sum;
    }
}

/// One cube adds up all that there is.
#[cube(launch_unchecked)]
fn total_kernel(values: &Array<f32>, total: &mut Array<f32>, count: usize, factor: f32) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let mut sum = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < count {
        sum += values[i];
        i += UNITS;
    }
    let sum = sum_of_cube(sum, &mut shared);
    if UNIT_POS == 0 {
        total[0] = sum * factor;
    }
}

/// The sum of all elements of `values` times `factor`, `[1]`.
pub(crate) fn total<R: CubeRuntime>(values: &Tensor<R>, factor: f32) -> Tensor<R> {
    let total = empty(values, &[1]);
    let count = values.shape().num_elements();
    // SAFETY: no unit goes past the end.
    unsafe {
        total_kernel::launch_unchecked(
            &values.client,
            CubeCount::new_single(),
            units(),
            array(values),
            array(&total),
            count,
            factor,
        );
    }
    total
}

/// The sum of the squares of all elements of `tensors`, of which there is at least one: `[1]`.
pub fn squared_norm<R: CubeRuntime>(tensors: &[Tensor<R>]) -> Tensor<R> {
    let counts: Vec<usize> = tensors.iter().map(|tensor| tensor.shape().num_elements()).collect();
    let cubes = |count: usize| count.div_ceil(UNITS).clamp(1, NORM_CUBES);
    let sums = empty(&tensors[0], &[counts.iter().map(|&count| cubes(count)).sum()]);
    let mut first = 0;
    for (tensor, count) in tensors.iter().zip(counts) {
        let grid = CubeCount::new_1d(cubes(count) as u32);
        // SAFETY: no unit goes past the end, and each cube has a sum of its own.
        unsafe {
            squares_kernel::launch_unchecked(&tensor.client, grid, units(), array(tensor), array(&sums), first, count);
        }
        first += cubes(count);
    }
    total(&sums, 1.0)
}

#[cube(launch_unchecked)]
fn scale_kernel(
    loss: &Array<f32>,
    squared_norm: &Array<f32>,
    before: &Array<f32>,
    scale: &mut Array<f32>,
    max_norm: f32,
    micro_steps: f32,
    eps: f32,
    #[comptime] has_before: bool,
) {
    if UNIT_POS == 0 {
        let (loss, squared_norm) = (f32::abs(loss[0]), squared_norm[0]);
        // What is infinite, or no number, fails the comparison.
        let mut fine = loss <= f32::MAX && squared_norm <= f32::MAX;
        if comptime!(has_before) {
            fine = fine && before[0] != 0.0;
        }
        let norm = f32::sqrt(squared_norm) / micro_steps;
        let clip = select(max_norm > 0.0, min(max_norm / (norm + eps), 1.0), 1.0);
        scale[0] = select(fine, clip / micro_steps, 0.0);
    }
}

/// What multiplies the sum of the gradients of a step, `[1]`: `min(1, max_norm / (norm / micro_steps + eps)) / micro_steps`,
/// where `max_norm` 0 stands for none; 0 if the loss or the norm is not finite, or if `before` is 0.
pub fn gradient_scale<R: CubeRuntime>(
    loss: &Tensor<R>,
    squared_norm: &Tensor<R>,
    before: Option<&Tensor<R>>,
    [max_norm, micro_steps, eps]: [f32; 3],
) -> Tensor<R> {
    let scale = empty(loss, &[1]);
    // SAFETY: each tensor has an element.
    unsafe {
        scale_kernel::launch_unchecked(
            &loss.client,
            CubeCount::new_single(),
            units(),
            array(loss),
            array(squared_norm),
            array(before.unwrap_or(loss)),
            array(&scale),
            max_norm,
            micro_steps,
            eps,
            before.is_some(),
        );
    }
    scale
}
