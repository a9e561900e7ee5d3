//! Sums of columns, which are the derivatives of biases, and casts to `bf16`.

use crate::Tensor;
use crate::launch::{Kernel, Launch, Sources, empty, first_blocks, multiprocessors};
use burn::tensor::{DType, TensorMetadata};
use std::cell::RefCell;

const SOURCES: Sources = Sources::new(&[
    include_str!("cuda/common.cuh"),
    include_str!("cuda/elementwise.cuh"),
    include_str!("cuda/columns.cu"),
]);

const THREADS: usize = 256;

/// Columns that a block sums in the second stage.
const SUM_COLUMNS: usize = 32;

/// Matrices of such a launch: as many as the backward pass of a transformer block has.
const SUM_SLOTS: usize = 8;

/// Elements that a block casts.
const CAST_CHUNK: usize = 8192;

thread_local! {
    /// Matrices of this thread and the sums of their rows, which [`DeferredSums`] computes.
    static DEFERRED: RefCell<Option<Vec<[Tensor; 2]>>> = const { RefCell::new(None) };
}

/// While it lives, the sums over rows that this thread's kernels end with are deferred; when it goes, they are computed by as
/// few kernels as may be. Nothing may read one before.
#[derive(Debug)]
pub struct DeferredSums(());

impl DeferredSums {
    /// Defers sums from now on. Within another one's life, that one's end is what counts.
    pub fn begin() -> Option<Self> {
        DEFERRED.with_borrow_mut(|deferred| {
            let is_first = deferred.is_none();
            deferred.get_or_insert_default();
            is_first.then_some(Self(()))
        })
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
    let slots = if pairs.len() <= 3 { pairs.len() } else { SUM_SLOTS };
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
    vec![
        sum_rows_kernel(1),
        sum_rows_kernel(2),
        sum_rows_kernel(3),
        sum_rows_kernel(SUM_SLOTS),
        partials_bf16_kernel(),
        partials_f32_kernel(false),
        partials_f32_kernel(true),
        cast_kernel(),
    ]
}
