//! Matrix products: BLAS does the arithmetic on one thread each, rayon hands out parts of the result.
//!
//! How the sums over the inner dimension are made up depends on the shapes alone, so the result does not depend on the number
//! of threads.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

/// Multiplications below which a second thread is not worth waking.
const WORTH_SPLITTING: usize = 1 << 18;

/// Parts are a multiple of this many rows or columns, as BLAS kernels compute blocks.
const GRAIN: usize = 48;

/// Parts that a long inner dimension is cut into. Fixed, so that the sums do not depend on the number of threads.
const INNER_PARTS: usize = 8;

/// What a result holds before it is written. Not zero: zeroed memory is mapped, and cleared, page by page as it is first
/// touched, and a hole in a result should show.
pub(super) const UNWRITTEN: f32 = f32::NAN;

/// `out = a·b + beta·out`; with a `beta` of 0, what `out` holds is not read.
///
/// # Shapes
/// `a` is `[m, k]`, `b` `[k, n]`, `out` `[m, n]`, in any layout whose inner stride is 1 one way or the other.
pub(super) fn product(a: ArrayView2<f32>, b: ArrayView2<f32>, beta: f32, mut out: ArrayViewMut2<f32>) {
    let (rows, columns) = out.dim();
    let threads = rayon::current_num_threads();
    let inner = a.ncols();
    if inner >= 2 * INNER_PARTS * rows.max(columns) {
        // Each thread would copy all of one operand for few multiplications with each element.
        let part = inner.div_ceil(INNER_PARTS);
        let parts: Vec<_> = a
            .axis_chunks_iter(Axis(1), part)
            .zip(b.axis_chunks_iter(Axis(0), part))
            .collect();
        let sums: Vec<_> = parts.into_par_iter().map(|(a, b)| a.dot(&b)).collect();
        if beta == 0.0 {
            out.fill(0.0); // what it held may be no number
        } else {
            out *= beta;
        }
        for sum in sums {
            out += &sum;
        }
    } else if threads == 1 || rows * columns * inner < WORTH_SPLITTING {
        general_mat_mul(1.0, &a, &b, beta, &mut out);
    } else if rows >= columns {
        let part = rows.div_ceil(threads).next_multiple_of(GRAIN);
        let parts: Vec<_> = out
            .axis_chunks_iter_mut(Axis(0), part)
            .zip(a.axis_chunks_iter(Axis(0), part))
            .collect();
        parts
            .into_par_iter()
            .for_each(|(mut out, a)| general_mat_mul(1.0, &a, &b, beta, &mut out));
    } else {
        let part = columns.div_ceil(threads).next_multiple_of(GRAIN);
        let parts: Vec<_> = out
            .axis_chunks_iter_mut(Axis(1), part)
            .zip(b.axis_chunks_iter(Axis(1), part))
            .collect();
        parts
            .into_par_iter()
            .for_each(|(mut out, b)| general_mat_mul(1.0, &a, &b, beta, &mut out));
    }
}
