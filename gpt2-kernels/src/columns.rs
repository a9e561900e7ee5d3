//! Sums of columns, which are the derivatives of biases, and casts to `bf16`.

use crate::Tensor;
use crate::launch::{Kernel, Launch, Sources, empty, first_blocks, multiprocessors};
use burn::tensor::{DType, TensorMetadata};

const SOURCES: Sources = Sources::new(&[
    include_str!("cuda/common.cuh"),
    include_str!("cuda/elementwise.cuh"),
    include_str!("cuda/columns.cu"),
]);

/// Tensors of a launch that takes several.
const SLOTS: usize = 16;

const THREADS: usize = 256;

/// Columns that a block sums in the second stage.
const SUM_COLUMNS: usize = 32;

/// Elements that a block casts.
const CAST_CHUNK: usize = 8192;

/// The sums of the rows of up to 16 `f32` matrices, `[columns]` each.
pub(crate) fn sum_rows<const N: usize>(matrices: [&Tensor; N]) -> [Tensor; N] {
    const { assert!(N > 0 && N <= SLOTS) };
    let dims = matrices.map(|matrix| matrix.shape().dims::<2>());
    let sums = std::array::from_fn(|i| empty(matrices[0], &[dims[i][1]], DType::F32));
    let slot = |i: usize| i.min(N - 1);
    let blocks = dims.map(|[_, columns]| columns.div_ceil(SUM_COLUMNS));
    let (first, grid) = first_blocks(&blocks, SLOTS);
    let side = |axis: usize| (0..SLOTS).map(move |i| if i < N { dims[i][axis] } else { 0 });
    Launch::on(matrices[0])
        .buffers((0..SLOTS).map(|i| matrices[slot(i)]))
        .buffers((0..SLOTS).map(|i| &sums[slot(i)]))
        .words(side(0))
        .words(side(1))
        .words(first)
        .run(Kernel::new(SOURCES, "sum_rows", THREADS), [grid, 1, 1]);
    sums
}

/// `matrix`, `[N, M]`, as an operand in `dtype`, and the sums of its columns, `[M]` in `f32`, in one pass.
pub fn operand_with_sums(matrix: &Tensor, dtype: DType) -> (Tensor, Tensor) {
    let [rows, columns] = matrix.shape().dims();
    let narrow = matrix.dtype == DType::BF16;
    let (entry, width) = if narrow {
        ("column_partials_bf16", 256)
    } else {
        ("column_partials_f32", 128)
    };
    let (partials, rows_per_block, grid) = stages(matrix, width);
    let mut kernel = Kernel::new(SOURCES, entry, THREADS);
    let mut launch = Launch::on(matrix).buffer(matrix);
    let mut operand = matrix.clone();
    if !narrow {
        if dtype == DType::BF16 {
            operand = empty(matrix, &[rows, columns], DType::BF16);
        } else {
            kernel = kernel.define("SUMS_ONLY", 1);
            operand.dtype = dtype;
        }
        launch = launch.buffer(&operand);
    }
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
    let (first, grid) = first_blocks(&[count.div_ceil(CAST_CHUNK)], SLOTS);
    Launch::on(tensor)
        .buffers([tensor; SLOTS])
        .buffers([&copy; SLOTS])
        .words((0..SLOTS).map(|slot| if slot == 0 { count } else { 0 }))
        .words(first)
        .run(Kernel::new(SOURCES, "cast_bf16", THREADS), [grid, 1, 1]);
    copy
}
