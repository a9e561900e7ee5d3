//! Sums of columns, which are the derivatives of biases, and casts to `bf16`.

use crate::Tensor;
use crate::launch::{Kernel, Launch, Sources, empty, first_blocks, multiprocessors};
use burn::tensor::{DType, TensorMetadata};

const SOURCES: Sources = Sources::new(&[
    include_str!("cuda/common.cuh"),
    include_str!("cuda/elementwise.cuh"),
    include_str!("cuda/columns.cu"),
]);

const THREADS: usize = 256;

/// Columns that a block sums in the second stage.
const SUM_COLUMNS: usize = 32;

/// Elements that a block casts.
const CAST_CHUNK: usize = 8192;

/// The sums of the rows of one to three `f32` matrices, `[columns]` each.
pub(crate) fn sum_rows<const N: usize>(matrices: [&Tensor; N]) -> [Tensor; N] {
    const { assert!(N >= 1 && N <= 3) };
    let dims = matrices.map(|matrix| matrix.shape().dims::<2>());
    let sums = std::array::from_fn(|i| empty(matrices[0], &[dims[i][1]], DType::F32));
    let blocks = dims.map(|[_, columns]| columns.div_ceil(SUM_COLUMNS));
    let (first, grid) = first_blocks(&blocks, N);
    Launch::on(matrices[0])
        .buffers(matrices)
        .buffers(&sums)
        .words(dims.map(|[rows, _]| rows))
        .words(dims.map(|[_, columns]| columns))
        .words(first)
        .run(sum_rows_kernel(N), [grid, 1, 1]);
    sums
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
        partials_bf16_kernel(),
        partials_f32_kernel(false),
        partials_f32_kernel(true),
        cast_kernel(),
    ]
}
