//! LayerNorm (Ba, Kiros & Hinton 2016) over the last axis, and its derivatives.

use crate::Tensor;
use crate::columns::{self, LANES, place, sum_of_lanes};
use crate::launch::{UNITS, array, cubes, empty, owned, units};
use crate::reduce::sum_of_cube;
use burn::tensor::TensorMetadata;
use burn_cubecl::CubeRuntime;
use cubecl::prelude::*;

/// LayerNorm's epsilon in every published GPT-2.
const EPS: f32 = 1e-5;

/// A row's mean, and the reciprocal of its deviation.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct Statistics {
    pub(crate) mean: f32,
    pub(crate) rstd: f32,
}

/// Those of the row of `x` that begins at `start`, on every unit of a cube.
#[cube]
pub(crate) fn statistics(x: &Array<f32>, start: usize, width: usize, shared: &mut SharedMemory<f32>) -> Statistics {
    let unit = UNIT_POS as usize;
    let mut sum = 0.0f32;
    let mut i = unit;
    while i < width {
        sum += x[start + i];
        i += UNITS;
    }
    let mean = sum_of_cube(sum, shared) / width as f32;
    let mut squares = 0.0f32;
    i = unit;
    while i < width {
        let centred = x[start + i] - mean;
        squares += centred * centred;
        i += UNITS;
    }
    let variance = sum_of_cube(squares, shared) / width as f32;
    Statistics {
        mean,
        rstd: 1.0 / f32::sqrt(variance + EPS),
    }
}

#[cube(launch_unchecked)]
fn forward_kernel(
    x: &Array<f32>,
    gain: &Array<f32>,
    offset: &Array<f32>,
    out: &mut Array<f32>,
    means: &mut Array<f32>,
    rstds: &mut Array<f32>,
    rows: usize,
    width: usize,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let unit = UNIT_POS as usize;
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let found = statistics(x, start, width, &mut shared);
    let (mean, rstd) = (found.mean, found.rstd);
    let mut i = unit;
    while i < width {
        out[start + i] = (x[start + i] - mean) * rstd * gain[i] + offset[i];
        i += UNITS;
    }
    if unit == 0 {
        means[row] = mean;
        rstds[row] = rstd;
    }
}

/// `grad_x` holds what is added to, or nothing that counts.
#[cube(launch_unchecked)]
fn grad_x_kernel(
    grad_output: &Array<f32>,
    x: &Array<f32>,
    gain: &Array<f32>,
    means: &Array<f32>,
    rstds: &Array<f32>,
    grad_x: &mut Array<f32>,
    rows: usize,
    width: usize,
    #[comptime] adds: bool,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let unit = UNIT_POS as usize;
    let (mean, rstd) = (means[row], rstds[row]);
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let mut sum = 0.0f32;
    let mut along = 0.0f32;
    let mut i = unit;
    while i < width {
        let scaled = grad_output[start + i] * gain[i];
        sum += scaled;
        along += scaled * (x[start + i] - mean) * rstd;
        i += UNITS;
    }
    let sum = sum_of_cube(sum, &mut shared) / width as f32;
    let along = sum_of_cube(along, &mut shared) / width as f32;
    i = unit;
    while i < width {
        let normal = (x[start + i] - mean) * rstd;
        let slope = (grad_output[start + i] * gain[i] - sum - normal * along) * rstd;
        if adds {
            grad_x[start + i] += slope;
        } else {
            grad_x[start + i] = slope;
        }
        i += UNITS;
    }
}

/// The first stage of the sums over rows: the derivatives by gain and offset, a band of rows at a time.
#[cube(launch_unchecked)]
fn grad_parameters_kernel(
    grad_output: &Array<f32>,
    x: &Array<f32>,
    means: &Array<f32>,
    rstds: &Array<f32>,
    grad_gain: &mut Array<f32>,
    grad_offset: &mut Array<f32>,
    rows: usize,
    width: usize,
) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let place = place(rows, width);
    let mut gain = 0.0f32;
    let mut offset = 0.0f32;
    if place.column < width {
        let mut row = place.start + place.lane;
        while row < place.end {
            let at = row * width + place.column;
            offset += grad_output[at];
            gain += grad_output[at] * (x[at] - means[row]) * rstds[row];
            row += LANES;
        }
    }
    let gain = sum_of_lanes(gain, &mut shared);
    let offset = sum_of_lanes(offset, &mut shared);
    if place.lane == 0 && place.column < width && place.start < rows {
        grad_gain[place.band * width + place.column] = gain;
        grad_offset[place.band * width + place.column] = offset;
    }
}

/// What [`forward`] gives.
#[derive(Debug)]
pub struct Normal<R: CubeRuntime> {
    /// The normalised rows, scaled and shifted, `[N, C]`.
    pub out: Tensor<R>,
    /// Each row's mean, `[N]`.
    pub mean: Tensor<R>,
    /// The reciprocal of each row's deviation, `[N]`.
    pub rstd: Tensor<R>,
}

/// What [`backward`] gives.
#[derive(Debug)]
pub struct Gradients<R: CubeRuntime> {
    /// By the input, `[N, C]`.
    pub x: Tensor<R>,
    /// By the gain, `[C]`.
    pub gain: Tensor<R>,
    /// By the offset, `[C]`.
    pub offset: Tensor<R>,
}

/// Each row of `x`, `[N, C]`, with mean 0 and variance 1, times `gain`, plus `offset`, `[C]` both.
pub fn forward<R: CubeRuntime>(x: &Tensor<R>, gain: &Tensor<R>, offset: &Tensor<R>) -> Normal<R> {
    let [rows, width] = x.shape().dims();
    let (out, mean, rstd) = (empty(x, &[rows, width]), empty(x, &[rows]), empty(x, &[rows]));
    // SAFETY: a cube stays in its row.
    unsafe {
        forward_kernel::launch_unchecked(
            &x.client,
            cubes(rows),
            units(),
            array(x),
            array(gain),
            array(offset),
            array(&out),
            array(&mean),
            array(&rstd),
            rows,
            width,
        );
    }
    Normal { out, mean, rstd }
}

/// The derivatives of [`forward`] times `grad_output`, `[N, C]`; the one by `x` on top of `sum` where there is one.
pub fn backward<R: CubeRuntime>(
    grad_output: &Tensor<R>,
    x: &Tensor<R>,
    gain: &Tensor<R>,
    [mean, rstd]: [&Tensor<R>; 2],
    sum: Option<Tensor<R>>,
) -> Gradients<R> {
    let [rows, width] = x.shape().dims();
    let adds = sum.is_some();
    let grad_x = sum.map_or_else(|| empty(x, &[rows, width]), owned);
    // SAFETY: a cube stays in its row.
    unsafe {
        grad_x_kernel::launch_unchecked(
            &x.client,
            cubes(rows),
            units(),
            array(grad_output),
            array(x),
            array(gain),
            array(mean),
            array(rstd),
            array(&grad_x),
            rows,
            width,
            adds,
        );
    }
    let (bands, count) = columns::bands(rows, width);
    let [grad_gain, grad_offset] = [(); 2].map(|()| empty(x, &[bands, width]));
    // SAFETY: a unit stays in its column and in the rows of its cube.
    unsafe {
        grad_parameters_kernel::launch_unchecked(
            &x.client,
            count,
            units(),
            array(grad_output),
            array(x),
            array(mean),
            array(rstd),
            array(&grad_gain),
            array(&grad_offset),
            rows,
            width,
        );
    }
    Gradients {
        x: grad_x,
        gain: columns::sums(&grad_gain),
        offset: columns::sums(&grad_offset),
    }
}
