//! Matrix products: BLAS does the arithmetic on one thread each, rayon hands out parts of the result.
//!
//! How the sums over the inner dimension are made up depends on the shapes alone, so the result does not depend on the number
//! of threads.

use super::memory::initialised;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;
use std::mem::MaybeUninit;
#[cfg(feature = "blis")]
use std::sync::LazyLock;

/// Multiplications below which a second thread is not worth waking.
const WORTH_SPLITTING: usize = 1 << 18;

/// Parts are a multiple of this many rows or columns, as BLAS kernels compute blocks.
const GRAIN: usize = 48;

/// Parts that a long inner dimension is cut into. Fixed, so that the sums do not depend on the number of threads.
const INNER_PARTS: usize = 8;

/// What a product is added to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start<'a> {
    /// Nothing; what the result held is not read.
    Nothing,
    /// What the result holds.
    Result(Written),
    /// A row for every row of the result.
    Row(&'a [f32]),
    /// A matrix of the result's shape, whose rows each lie in one piece, and a row for every row of it.
    Onto(ArrayView2<'a, f32>, &'a [f32]),
}

/// That the result of a product holds numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written(());

impl Written {
    /// # Safety
    /// Every element of the result that this goes with must have been written.
    pub(super) unsafe fn promise() -> Self {
        Self(())
    }
}

impl Start<'_> {
    /// For the columns `first..` of the result.
    pub(super) fn columns(self, first: usize) -> Self {
        match self {
            Start::Row(row) => Start::Row(&row[first..]),
            Start::Onto(matrix, row) => Start::Onto(matrix.slice_move(s![.., first..]), &row[first..]),
            other => other,
        }
    }

    /// For the rows `first..` of the result.
    pub(super) fn rows(self, first: usize) -> Self {
        match self {
            Start::Onto(matrix, row) => Start::Onto(matrix.slice_move(s![first.., ..]), row),
            other => other,
        }
    }
}

/// `a·b`, added to `start`.
///
/// # Shapes
/// `a` is `[m, k]`, `b` `[k, n]`, the result `[m, n]`.
pub(super) fn product(a: ArrayView2<f32>, b: ArrayView2<f32>, start: Start) -> Array2<f32> {
    let mut out = Array2::uninit((a.nrows(), b.ncols()));
    product_into(a, b, start, out.view_mut());
    // SAFETY: `product_into` writes every element.
    unsafe { out.assume_init() }
}

/// Writes `a·b`, added to `start`, to every element of `out`, whose rows must each lie in one piece.
///
/// # Shapes
/// `a` is `[m, k]`, `b` `[k, n]`, `out` `[m, n]`.
pub(super) fn product_into(
    a: ArrayView2<f32>,
    b: ArrayView2<f32>,
    start: Start,
    mut out: ArrayViewMut2<MaybeUninit<f32>>,
) {
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
        let sums: Vec<_> = parts
            .into_par_iter()
            .map(|(a, b)| {
                let mut sum = Array2::uninit((rows, columns));
                multiply(a, b, Start::Nothing, sum.view_mut());
                // SAFETY: `multiply` writes every element.
                unsafe { sum.assume_init() }
            })
            .collect();
        let mut out = begin(start, out);
        for sum in sums {
            out += &sum;
        }
    } else if threads == 1 || rows * columns * inner < WORTH_SPLITTING {
        multiply(a, b, start, out);
    } else if rows >= columns {
        let part = rows.div_ceil(threads).next_multiple_of(GRAIN);
        let parts: Vec<_> = out
            .axis_chunks_iter_mut(Axis(0), part)
            .zip(a.axis_chunks_iter(Axis(0), part))
            .enumerate()
            .collect();
        parts
            .into_par_iter()
            .for_each(|(i, (out, a))| multiply(a, b, start.rows(i * part), out));
    } else {
        let part = columns.div_ceil(threads).next_multiple_of(GRAIN);
        let parts: Vec<_> = out
            .axis_chunks_iter_mut(Axis(1), part)
            .zip(b.axis_chunks_iter(Axis(1), part))
            .enumerate()
            .collect();
        parts
            .into_par_iter()
            .for_each(|(i, (out, b))| multiply(a, b, start.columns(i * part), out));
    }
}

/// [`product_into`] on this thread.
fn multiply(a: ArrayView2<f32>, b: ArrayView2<f32>, start: Start, mut out: ArrayViewMut2<MaybeUninit<f32>>) {
    let beta = match start {
        Start::Nothing => 0.0,
        Start::Result(_) => 1.0,
        Start::Row(_) | Start::Onto(..) => {
            begin(start, out.view_mut());
            1.0
        }
    };
    let ((m, k), n) = (a.dim(), b.ncols());
    assert_eq!((b.nrows(), out.dim()), (k, (m, n)), "shapes of a product");
    if m == 0 || n == 0 {
        return;
    }
    #[cfg(feature = "blis")]
    if uses_blas() {
        return sgemm(a, b, beta, &mut out);
    }
    multiply_without_blas(a, b, beta, &mut out);
}

/// Whether products go to the BLAS. `GPT2_CPU_BLAS=none` lets studies compare it with none.
///
/// # Panics
/// If that variable holds another word.
#[cfg(feature = "blis")]
fn uses_blas() -> bool {
    static USES: LazyLock<bool> = LazyLock::new(|| match std::env::var("GPT2_CPU_BLAS").ok().as_deref() {
        None | Some("blis") => true,
        Some("none") => false,
        Some(other) => panic!("GPT2_CPU_BLAS is {other:?}, expected blis or none"),
    });
    *USES
}

/// `out = a·b + beta·out`, none of them empty; with a `beta` of 0, `out` may be unwritten, and else must not be.
#[cfg(feature = "blis")]
fn sgemm(a: ArrayView2<f32>, b: ArrayView2<f32>, beta: f32, out: &mut ArrayViewMut2<MaybeUninit<f32>>) {
    use cblas_sys::{CBLAS_LAYOUT::CblasRowMajor, cblas_sgemm};
    let narrow = |length: usize| i32::try_from(length).expect("BLAS counts in 32 bits");
    let ((m, k), n) = (a.dim(), b.ncols());
    let ((a_order, lda, a), (b_order, ldb, b)) = (operand(a), operand(b));
    assert!(n == 1 || out.strides()[1] == 1, "rows in one piece");
    let ldc = if m == 1 { n } else { out.strides()[0].cast_unsigned() };
    // SAFETY: the shapes fit, as `multiply` asserts; `operand` gives each matrix's order and the distance of its lines; BLAS
    // does not read `out` if `beta` is 0.
    unsafe {
        cblas_sgemm(
            CblasRowMajor,
            a_order,
            b_order,
            narrow(m),
            narrow(n),
            narrow(k),
            1.0,
            a.as_ptr(),
            narrow(lda),
            b.as_ptr(),
            narrow(ldb),
            beta,
            out.as_mut_ptr().cast(),
            narrow(ldc),
        );
    }
}

/// How BLAS reads a matrix, and the distance of its lines. One whose lines do not lie in one piece is copied.
#[cfg(feature = "blis")]
fn operand(matrix: ArrayView2<f32>) -> (cblas_sys::CBLAS_TRANSPOSE, usize, ndarray::CowArray<f32, ndarray::Ix2>) {
    use cblas_sys::CBLAS_TRANSPOSE::{CblasNoTrans, CblasTrans};
    let (rows, columns) = matrix.dim();
    let by = |axis: usize| matrix.strides()[axis].cast_unsigned();
    let positive = matrix.strides().iter().all(|&stride| stride > 0);
    if positive && (columns == 1 || by(1) == 1) && (rows == 1 || by(0) >= columns) {
        (CblasNoTrans, if rows == 1 { columns } else { by(0) }, matrix.into())
    } else if positive && (rows == 1 || by(0) == 1) && (columns == 1 || by(1) >= rows) {
        (CblasTrans, if columns == 1 { rows } else { by(1) }, matrix.into())
    } else {
        (CblasNoTrans, columns, matrix.as_standard_layout().into_owned().into())
    }
}

/// [`sgemm`] in Rust, on this thread and, unless `MATMUL_NUM_THREADS` is 1, on those of matrixmultiply.
fn multiply_without_blas(a: ArrayView2<f32>, b: ArrayView2<f32>, beta: f32, out: &mut ArrayViewMut2<MaybeUninit<f32>>) {
    let ((m, k), n) = (a.dim(), b.ncols());
    let [a_strides, b_strides] = [a.strides(), b.strides()];
    let (out_rows, out_columns) = (out.strides()[0], out.strides()[1]);
    // SAFETY: the shapes fit, as `multiply` asserts, and the strides are those of the views; `out` is not read if `beta` is 0.
    unsafe {
        matrixmultiply::sgemm(
            m,
            k,
            n,
            1.0,
            a.as_ptr(),
            a_strides[0],
            a_strides[1],
            b.as_ptr(),
            b_strides[0],
            b_strides[1],
            beta,
            out.as_mut_ptr().cast(),
            out_rows,
            out_columns,
        );
    }
}

/// What a sum starts from, written to every element of `out`.
pub(super) fn begin<'a>(start: Start, mut out: ArrayViewMut2<'a, MaybeUninit<f32>>) -> ArrayViewMut2<'a, f32> {
    match start {
        Start::Nothing => out.fill(MaybeUninit::new(0.0)),
        Start::Result(_) => {}
        Start::Row(row) => {
            for mut line in out.outer_iter_mut() {
                for (out, &value) in line.iter_mut().zip(row) {
                    out.write(value);
                }
            }
        }
        Start::Onto(matrix, row) => {
            for (mut line, matrix) in out.outer_iter_mut().zip(matrix.outer_iter()) {
                for ((out, &matrix), &value) in line.iter_mut().zip(matrix).zip(row) {
                    out.write(matrix + value);
                }
            }
        }
    }
    // SAFETY: every element was written here, or before, as `Written` promises.
    unsafe { initialised(out) }
}
