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
    /// Multiplies the gradient.
    pub scale: f32,
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
    scale: f32,
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
    if i >= parameter.len() {
        terminate!();
    }
    let slope = gradient[i] * scale;
    let running = mean[i] * beta1 + slope * beta1_rest;
    let spread = square[i] * beta2 + slope * slope * beta2_rest;
    mean[i] = running;
    square[i] = spread;
    parameter[i] = parameter[i] * shrink - step_size * running / (f32::sqrt(spread) * square_correction + eps);
}

/// Updates `parameter` and its moments in place.
pub fn update<R: CubeRuntime>(
    parameter: &Tensor<R>,
    gradient: &Tensor<R>,
    mean: &Tensor<R>,
    square: &Tensor<R>,
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
            rule.scale,
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
