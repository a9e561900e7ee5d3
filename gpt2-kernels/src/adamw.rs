//! AdamW over many tensors, and the norm of their gradients.

use crate::Tensor;
use crate::launch::{Kernel, Launch, Sources, empty, first_blocks};
use burn::tensor::{DType, TensorMetadata};

const SOURCES: Sources = Sources::new(&[
    include_str!("cuda/common.cuh"),
    include_str!("cuda/elementwise.cuh"),
    include_str!("cuda/adamw.cu"),
]);

const THREADS: usize = 256;

/// Tensors of a launch that adds up squares, and the elements of a block.
const SQUARE_SLOTS: usize = 32;
const SQUARE_CHUNK: usize = 16384;

/// Tensors of a launch that updates, and the elements of a block.
const UPDATE_SLOTS: usize = 16;
const UPDATE_CHUNK: usize = 1024;

/// Tensors of a launch that adds gradients, and the elements of a block.
const ADD_SLOTS: usize = 16;
const ADD_CHUNK: usize = 4096;

/// The numbers of an update, as algorithm 2 of Loshchilov & Hutter (2019) has them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Decay of the gradient's running mean.
    pub beta1: f64,
    /// Decay of the squared gradient's running mean.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Divides the root of the squared mean.
    pub square_correction: f64,
    /// Multiplies the quotient of the moments.
    pub step_size: f64,
    /// Multiplies the parameters that decay.
    pub shrink: f64,
}

/// A parameter with what its update needs. All tensors have the same number of elements, in `f32` but for the operand.
#[derive(Debug, Clone)]
pub struct Slot {
    /// Written.
    pub parameter: Tensor,
    /// Read.
    pub gradient: Tensor,
    /// Running mean of the gradient, written.
    pub mean: Tensor,
    /// Running mean of the squared gradient, written.
    pub square: Tensor,
    /// The parameter in `bf16`, written.
    pub operand: Option<Tensor>,
    /// Whether it shrinks.
    pub decays: bool,
}

/// Updates each parameter and its moments in place, with the gradients multiplied by `scale`, `[1]` in `f32`; leaves all as it
/// is where that is 0.
pub fn update(slots: &[Slot], scale: &Tensor, rule: &Rule) {
    let (with_operands, others): (Vec<_>, Vec<_>) = slots.iter().partition(|slot| slot.operand.is_some());
    for slots in [with_operands, others]
        .iter()
        .flat_map(|slots| slots.chunks(UPDATE_SLOTS))
    {
        let slot = |i: usize| slots[i.min(slots.len() - 1)];
        let count = |i: usize| slots.get(i).map_or(0, |slot| slot.parameter.shape().num_elements());
        let fields: [fn(&Slot) -> &Tensor; 4] = [
            |slot| &slot.parameter,
            |slot| &slot.gradient,
            |slot| &slot.mean,
            |slot| &slot.square,
        ];
        let mut launch = Launch::on(&slots[0].parameter);
        for field in fields {
            launch = launch.buffers((0..UPDATE_SLOTS).map(|i| field(slot(i))));
        }
        launch = launch.buffers((0..UPDATE_SLOTS).filter_map(|i| slot(i).operand.as_ref()));
        launch = launch.buffer(scale);
        let blocks: Vec<_> = (0..slots.len()).map(|i| count(i).div_ceil(UPDATE_CHUNK)).collect();
        let (first, grid) = first_blocks(&blocks, UPDATE_SLOTS);
        launch = launch.words((0..UPDATE_SLOTS).map(count)).words(first);
        launch = launch.words((0..UPDATE_SLOTS).map(|i| slots.get(i).map_or(0, |slot| slot.decays.into())));
        for number in [
            rule.beta1,
            rule.beta2,
            rule.eps,
            rule.square_correction,
            rule.step_size,
            rule.shrink,
        ] {
            launch = launch.real(number);
        }
        launch.run(update_kernel(slots[0].operand.is_some()), [grid, 1, 1]);
    }
}

/// Adds each of `gradients` to the one of `sums` of the same shape, in place. All are `f32`.
pub fn add(sums: &[Tensor], gradients: &[Tensor]) {
    for (sums, gradients) in sums.chunks(ADD_SLOTS).zip(gradients.chunks(ADD_SLOTS)) {
        let slot = |i: usize| i.min(sums.len() - 1);
        let counts: Vec<_> = sums.iter().map(|sum| sum.shape().num_elements()).collect();
        let blocks: Vec<_> = counts.iter().map(|count| count.div_ceil(ADD_CHUNK)).collect();
        let (first, grid) = first_blocks(&blocks, ADD_SLOTS);
        Launch::on(&sums[0])
            .buffers((0..ADD_SLOTS).map(|i| &sums[slot(i)]))
            .buffers((0..ADD_SLOTS).map(|i| &gradients[slot(i)]))
            .words((0..ADD_SLOTS).map(|i| counts.get(i).copied().unwrap_or(0)))
            .words(first)
            .run(add_kernel(), [grid, 1, 1]);
    }
}

/// The sum of the squares of all elements of `tensors`, `[1]` in `f32`.
pub fn squared_norm(tensors: &[Tensor]) -> Tensor {
    let blocks = |tensor: &Tensor| tensor.shape().num_elements().div_ceil(SQUARE_CHUNK);
    let total = tensors.iter().map(blocks).sum();
    let partials = empty(&tensors[0], &[total], DType::F32);
    let mut first_partial = 0;
    for tensors in tensors.chunks(SQUARE_SLOTS) {
        let mut launch = Launch::on(&partials);
        for i in 0..SQUARE_SLOTS {
            launch = launch.buffer(&tensors[i.min(tensors.len() - 1)]);
        }
        let counts = (0..SQUARE_SLOTS).map(|i| tensors.get(i).map_or(0, |tensor| tensor.shape().num_elements()));
        let blocks: Vec<_> = tensors.iter().map(blocks).collect();
        let (first, grid) = first_blocks(&blocks, SQUARE_SLOTS);
        launch
            .buffer(&partials)
            .words(counts)
            .words(first)
            .word(first_partial)
            .run(square_sums_kernel(), [grid, 1, 1]);
        first_partial += grid;
    }
    let square_norm = empty(&partials, &[1], DType::F32);
    Launch::on(&partials)
        .buffers([&partials, &square_norm])
        .word(total)
        .run(sum_partials_kernel(), [1, 1, 1]);
    square_norm
}

/// What multiplies the sum of the gradients of a step, `[1]` in `f32`: `min(1, max_norm / (norm / micro_steps + eps)) /
/// micro_steps`, where `max_norm` 0 stands for none; 0 if the loss or the norm is not finite, or if `before` is 0.
pub fn gradient_scale(
    loss: &Tensor,
    squared_norm: &Tensor,
    before: Option<&Tensor>,
    [max_norm, micro_steps, eps]: [f64; 3],
) -> Tensor {
    let scale = empty(loss, &[1], DType::F32);
    Launch::on(loss)
        .buffers([loss, squared_norm, before.unwrap_or(loss), &scale])
        .word(before.is_some().into())
        .real(max_norm)
        .real(micro_steps)
        .real(eps)
        .run(gradient_scale_kernel(), [1, 1, 1]);
    scale
}

fn update_kernel(writes_operands: bool) -> Kernel {
    let kernel = Kernel::new(SOURCES, "adamw", THREADS);
    if writes_operands {
        return kernel.define("OPERANDS", 1);
    }
    kernel
}

fn add_kernel() -> Kernel {
    Kernel::new(SOURCES, "add_gradients", THREADS)
}

fn square_sums_kernel() -> Kernel {
    Kernel::new(SOURCES, "square_sums", THREADS)
}

fn sum_partials_kernel() -> Kernel {
    Kernel::new(SOURCES, "sum_partials", 1024)
}

fn gradient_scale_kernel() -> Kernel {
    Kernel::new(SOURCES, "gradient_scale", 32)
}

/// Every kernel of this file.
pub(crate) fn kernels() -> Vec<Kernel> {
    vec![
        update_kernel(false),
        update_kernel(true),
        add_kernel(),
        square_sums_kernel(),
        sum_partials_kernel(),
        gradient_scale_kernel(),
    ]
}
