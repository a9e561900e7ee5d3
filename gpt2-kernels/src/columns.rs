//! Sums of columns, which are the derivatives of biases, and casts to `bf16`.

use crate::Tensor;
use crate::launch::{Kernel, Launch, Sources, empty, first_blocks, multiprocessors};
use burn::tensor::{DType, TensorMetadata};

const SOURCES: Sources = Sources::new(&[include_str!("cuda/elementwise.cuh"), include_str!("cuda/columns.cu")]);

/// Tensors of a launch that takes several.
const SLOTS: usize = 16;

const THREADS: usize = 256;

/// Columns that a block sums in the second stage.
const SUM_COLUMNS: usize = 32;

/// Elements that a block casts.
const CAST_CHUNK: usize = 8192;

/// A matrix whose rows are to be added up.
#[derive(Debug)]
pub(crate) struct Sum(Tensor);

impl Sum {
    pub(crate) fn new(matrix: Tensor) -> Self {
        Self(matrix)
    }

    fn dims(&self) -> [usize; 2] {
        self.0.shape().dims()
    }
}

/// The sums of the rows of up to 16 `f32` matrices, `[columns]` each.
pub(crate) fn sum_rows<const N: usize>(matrices: [Sum; N]) -> [Tensor; N] {
    const { assert!(N > 0 && N <= SLOTS) };
    let first = &matrices[0].0;
    let sums = std::array::from_fn(|i| empty(first, &[matrices[i].dims()[1]], DType::F32));
    let mut launch = Launch::on(first);
    for slot in 0..SLOTS {
        launch = launch.buffer(&matrices[slot.min(N - 1)].0);
    }
    for slot in 0..SLOTS {
        launch = launch.buffer(&sums[slot.min(N - 1)]);
    }
    for axis in 0..2 {
        launch = launch.words((0..SLOTS).map(|slot| matrices.get(slot).map_or(0, |matrix| matrix.dims()[axis])));
    }
    let blocks: Vec<_> = matrices
        .iter()
        .map(|matrix| matrix.dims()[1].div_ceil(SUM_COLUMNS))
        .collect();
    let (first, grid) = first_blocks(&blocks, SLOTS);
    launch
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
        }
        launch = launch.buffer(&operand);
    }
    launch
        .buffer(&partials)
        .words([rows, columns, rows_per_block])
        .run(kernel, grid);
    let [sums] = sum_rows([Sum(partials)]);
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
    let mut launch = Launch::on(tensor);
    for _ in 0..SLOTS {
        launch = launch.buffer(tensor);
    }
    for _ in 0..SLOTS {
        launch = launch.buffer(&copy);
    }
    let count = shape.num_elements();
    let (first, grid) = first_blocks(&[count.div_ceil(CAST_CHUNK)], SLOTS);
    launch
        .words((0..SLOTS).map(|slot| if slot == 0 { count } else { 0 }))
        .words(first)
        .run(Kernel::new(SOURCES, "cast_bf16", THREADS), [grid, 1, 1]);
    copy
}
