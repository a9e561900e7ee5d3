//! Sums of columns, which are the derivatives of biases, and casts to `bf16`.

use crate::Tensor;
use crate::launch::{Kernel, Launch, Sources, empty, first_blocks, multiprocessors};
use burn::tensor::{DType, TensorMetadata};
use std::cell::RefCell;
use std::marker::PhantomData;

const SOURCES: Sources = Sources::new(&[
    include_str!("cuda/common.cuh"),
    include_str!("cuda/elementwise.cuh"),
    include_str!("cuda/columns.cu"),
]);

const THREADS: usize = 256;

/// Columns that a block sums in the second stage.
const SUM_COLUMNS: usize = 32;

/// The most matrices of one launch of `sum_rows`: those of the backward pass of a block with another behind it.
const SUM_SLOTS: usize = 8;

/// Elements that a block casts.
const CAST_CHUNK: usize = 8192;

thread_local! {
    /// Matrices of this thread and the sums of their rows, which [`DeferredSums`] computes.
    static DEFERRED: RefCell<Option<Vec<[Tensor; 2]>>> = const { RefCell::new(None) };
}

/// While it lives, the sums over rows that this thread's kernels end with are deferred; when it goes, they are computed
/// by as few kernels as may be. Nothing may read one before.
#[derive(Debug)]
pub struct DeferredSums {
    /// They are those of one thread.
    _stays: PhantomData<*const ()>,
}

impl DeferredSums {
    /// Defers sums from now on.
    ///
    /// # Panics
    /// If they are deferred already: what is computed at the end of the inner one would be read before that of the outer.
    pub fn begin() -> Self {
        let before = DEFERRED.replace(Some(Vec::new()));
        assert!(before.is_none(), "sums are deferred once at a time");
        Self { _stays: PhantomData }
    }
}

impl Drop for DeferredSums {
    fn drop(&mut self) {
        let deferred = DEFERRED.take().unwrap_or_default();
        if !std::thread::panicking() {
            deferred.chunks(SUM_SLOTS).for_each(launch_sums);
        }
    }
}

/// The sums of the rows of `f32` matrices, `[columns]` each.
pub(crate) fn sum_rows<const N: usize>(matrices: [&Tensor; N]) -> [Tensor; N] {
    let sums = matrices.map(|matrix| empty(matrix, &[matrix.shape()[1]], DType::F32));
    let mut pairs: Vec<_> = matrices
        .into_iter()
        .zip(&sums)
        .map(|(matrix, sum)| [matrix.clone(), sum.clone()])
        .collect();
    DEFERRED.with_borrow_mut(|deferred| {
        if let Some(deferred) = deferred {
            deferred.append(&mut pairs);
        }
    });
    pairs.chunks(SUM_SLOTS).for_each(launch_sums);
    sums
}

/// Computes the sums of the rows of up to [`SUM_SLOTS`] matrices.
fn launch_sums(pairs: &[[Tensor; 2]]) {
    let slots = sum_slots(pairs.len());
    // Slots without a matrix have no blocks.
    let slot = |i: usize| &pairs[i.min(pairs.len() - 1)];
    let dims = |i: usize| slot(i)[0].shape().dims::<2>();
    let blocks: Vec<_> = (0..pairs.len()).map(|i| dims(i)[1].div_ceil(SUM_COLUMNS)).collect();
    let (first, grid) = first_blocks(&blocks, slots);
    Launch::on(&pairs[0][0])
        .buffers((0..slots).map(|i| &slot(i)[0]))
        .buffers((0..slots).map(|i| &slot(i)[1]))
        .words((0..slots).map(|i| dims(i)[0]))
        .words((0..slots).map(|i| dims(i)[1]))
        .words(first)
        .run(sum_rows_kernel(slots), [grid, 1, 1]);
}

/// `matrix`, `[N, M]`, as an operand in `dtype`, and the sums of its columns, `[M]` in `f32`, in one pass.
pub fn operand_with_sums(matrix: &Tensor, dtype: DType) -> (Tensor, Tensor) {
    let [rows, columns] = matrix.shape().dims();
    let narrow = matrix.dtype == DType::BF16;
    let (partials, rows_per_block, grid) = stages(matrix, if narrow { 256 } else { 128 });
    let mut launch = Launch::on(matrix).buffer(matrix);
    let mut operand = matrix.clone();
    let kernel = if narrow {
        partials_bf16_kernel()
    } else {
        let sums_only = dtype != DType::BF16;
        if sums_only {
            operand.dtype = dtype;
        } else {
            operand = empty(matrix, &[rows, columns], DType::BF16);
        }
        launch = launch.buffer(&operand);
        partials_f32_kernel(sums_only)
    };
    launch
        .buffer(&partials)
        .words([rows, columns, rows_per_block])
        .run(kernel, grid);
    let [sums] = sum_rows([&partials]);
    (operand, sums)
}

/// The first stage of a sum over rows: its result, the rows that a block adds up, and the grid of blocks that are
/// `width` columns wide.
fn stages(matrix: &Tensor, width: usize) -> (Tensor, usize, [usize; 3]) {
    let [rows, columns] = matrix.shape().dims();
    let across = columns.div_ceil(width);
    // Eight blocks fit a multiprocessor; each of eight warps has eight rows in flight.
    let wanted = (8 * multiprocessors(matrix) / across).clamp(1, 256);
    let rows_per_block = rows.div_ceil(wanted).next_multiple_of(64);
    let down = rows.div_ceil(rows_per_block);
    (
        empty(matrix, &[down, columns], DType::F32),
        rows_per_block,
        [across, down, 1],
    )
}

/// `tensor` in `bf16`.
pub fn round(tensor: &Tensor) -> Tensor {
    let shape = tensor.shape();
    let copy = empty(tensor, shape.as_slice(), DType::BF16);
    let count = shape.num_elements();
    Launch::on(tensor)
        .buffers([tensor, &copy])
        .word(count)
        .run(cast_kernel(), [count.div_ceil(CAST_CHUNK), 1, 1]);
    copy
}

/// How many matrices the kernel is made for that takes so many.
fn sum_slots(matrices: usize) -> usize {
    if matrices <= 3 { matrices } else { SUM_SLOTS }
}

fn sum_rows_kernel(matrices: usize) -> Kernel {
    Kernel::new(SOURCES, "sum_rows", THREADS).define("MATRICES", matrices)
}

fn partials_bf16_kernel() -> Kernel {
    Kernel::new(SOURCES, "column_partials_bf16", THREADS)
}

fn partials_f32_kernel(sums_only: bool) -> Kernel {
    let kernel = Kernel::new(SOURCES, "column_partials_f32", THREADS);
    if sums_only {
        return kernel.define("SUMS_ONLY", 1);
    }
    kernel
}

fn cast_kernel() -> Kernel {
    Kernel::new(SOURCES, "cast_bf16", THREADS)
}

/// Every kernel of this file, to be compiled by a test.
#[cfg(test)]
pub(crate) fn kernels() -> Vec<Kernel> {
    let sums = [1, 2, 3, SUM_SLOTS].map(sum_rows_kernel);
    let others = [
        partials_bf16_kernel(),
        partials_f32_kernel(false),
        partials_f32_kernel(true),
        cast_kernel(),
    ];
    sums.into_iter().chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn sums_take_a_kernel_that_is_compiled() {
        let slots: Vec<_> = (1..=SUM_SLOTS).map(sum_slots).collect();
        assert_eq!(slots, [1, 2, 3, 8, 8, 8, 8, 8]);
    }

    #[test]
    fn sums_are_deferred_once_at_a_time() {
        drop(DeferredSums::begin());
        let nested = || [DeferredSums::begin(), DeferredSums::begin()];
        assert!(catch_unwind(nested).is_err());
        // After a panic nothing is left deferred.
        drop(DeferredSums::begin());
    }
}
