//! Sums of columns, which are the derivatives of biases.

use crate::Tensor;
use crate::launch::{UNITS, array, cubes, empty, of_type, units};
use burn::tensor::TensorMetadata;
use burn_cubecl::CubeRuntime;
use cubecl::prelude::*;

/// Columns of a cube.
pub(crate) const ACROSS: usize = 32;
/// Units that share a column.
pub(crate) const LANES: usize = UNITS / ACROSS;
/// Rows that a cube adds up.
pub(crate) const ROWS: usize = 256;

/// Which column and rows a unit adds up: the column, its lane, the first row of the cube and the one past its last.
#[derive(CubeType, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) column: usize,
    pub(crate) lane: usize,
    pub(crate) band: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

#[cube]
pub(crate) fn place(rows: usize, columns: usize) -> Place {
    let blocks = columns.div_ceil(ACROSS);
    let (band, block) = (CUBE_POS / blocks, CUBE_POS % blocks);
    let start = band * ROWS;
    Place {
        column: block * ACROSS + UNIT_POS as usize % ACROSS,
        lane: UNIT_POS as usize / ACROSS,
        band,
        start,
        end: min(start + ROWS, rows),
    }
}

/// The sum of `value` over the lanes of a column, on the first of them.
#[cube]
pub(crate) fn sum_of_lanes(value: f32, shared: &mut SharedMemory<f32>) -> f32 {
    let unit = UNIT_POS as usize;
    sync_cube();
    shared[unit] = value;
    sync_cube();
    let mut sum = 0.0f32;
    if unit < ACROSS {
        #[unroll]
        for lane in 0..LANES {
            sum += shared[lane * ACROSS + unit];
        }
    }
    sum
}

#[cube(launch_unchecked)]
fn sum_kernel<E: Float>(matrix: &Array<E>, sums: &mut Array<f32>, start: usize, rows: usize, columns: usize) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let place = place(rows, columns);
    let mut sum = 0.0f32;
    if place.column < columns {
        let mut row = place.start + place.lane;
        while row < place.end {
            sum += f32::cast_from(matrix[row * columns + place.column]);
            row += LANES;
        }
    }
    let sum = sum_of_lanes(sum, &mut shared);
    if place.lane == 0 && place.column < columns && place.start < rows {
        sums[start + place.band * columns + place.column] = sum;
    }
}

/// Bands of rows that are added up by themselves first, and the cubes of a pass over all of them.
pub(crate) fn bands(rows: usize, columns: usize) -> (usize, CubeCount) {
    let bands = rows.div_ceil(ROWS);
    (bands, cubes(bands * columns.div_ceil(ACROSS)))
}

/// The sum of the rows of `matrix`, `[N, M]`: `[M]`.
pub fn sums<R: CubeRuntime>(matrix: &Tensor<R>) -> Tensor<R> {
    let sums = empty(matrix, &[matrix.shape()[1]]);
    sums_into(matrix, &sums, 0);
    sums
}

/// Writes the sum of the rows of `matrix`, `[N, M]`, to `out` from its element `start`.
pub(crate) fn sums_into<R: CubeRuntime>(matrix: &Tensor<R>, out: &Tensor<R>, start: usize) {
    let [rows, columns] = matrix.shape().dims();
    let (bands, count) = bands(rows, columns);
    let last = bands == 1;
    let sums = if last {
        out.clone()
    } else {
        empty(matrix, &[bands, columns])
    };
    // SAFETY: a unit stays in its column and in the rows of its cube.
    unsafe {
        of_type!(matrix, sum_kernel)(
            &matrix.client,
            count,
            units(),
            array(matrix),
            array(&sums),
            if last { start } else { 0 },
            rows,
            columns,
        );
    }
    if !last {
        sums_into(&sums, out, start);
    }
}
