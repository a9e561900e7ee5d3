//! LayerNorm.

use crate::Tensor;
use crate::columns::sum_rows;
use crate::launch::{Kernel, Launch, Sources, empty, is_wide, multiprocessors};
use burn::tensor::{DType, TensorMetadata};

const SOURCES: Sources = Sources::new(&[
    include_str!("cuda/common.cuh"),
    include_str!("cuda/elementwise.cuh"),
    include_str!("cuda/layer_norm.cu"),
]);

/// Rows that a block of the forward kernel normalises, one a warp.
const FORWARD_ROWS: usize = 4;

/// Normalised rows, and the statistics that [`backward`] wants back.
#[derive(Debug, Clone)]
pub struct Normalised {
    /// `[N, C]`, `bf16` or `f32`.
    pub out: Tensor,
    /// Means, `[N]`, `f32`.
    pub mean: Tensor,
    /// Reciprocals of the deviations, `[N]`, `f32`.
    pub rstd: Tensor,
}

/// Derivatives by the input, gain and offset, all `f32`.
#[derive(Debug, Clone)]
pub struct Gradients {
    /// `[N, C]`.
    pub x: Tensor,
    /// The same in `bf16`, and the sums of its columns, `[C]` in `f32`, where they were asked for.
    pub operand: Option<[Tensor; 2]>,
    /// `[C]`.
    pub gain: Tensor,
    /// `[C]`.
    pub offset: Tensor,
}

/// Normalises the rows of `x`, `[N, C]`, with `gain` and `offset`, `[C]`, and rounds them to `dtype`.
pub fn forward(x: &Tensor, gain: &Tensor, offset: &Tensor, dtype: DType) -> Normalised {
    let [rows, channels] = x.shape().dims();
    let normalised = Normalised {
        out: empty(x, &[rows, channels], dtype),
        mean: empty(x, &[rows], DType::F32),
        rstd: empty(x, &[rows], DType::F32),
    };
    Launch::on(x)
        .buffers([x, gain, offset, &normalised.out, &normalised.mean, &normalised.rstd])
        .word(rows)
        .run(
            forward_kernel(channels, is_wide(dtype)),
            [rows.div_ceil(FORWARD_ROWS), 1, 1],
        );
    normalised
}

/// The derivatives of [`forward`] times `grad_output`, `[N, C]`; the one by `x` is added to `sum`, `[N, C]` in `f32`,
/// where there is one, and takes its place in memory where no other tensor shares it. `with_operand` asks for it as a
/// product takes it.
pub fn backward(
    grad_output: &Tensor,
    x: &Tensor,
    gain: &Tensor,
    [mean, rstd]: [&Tensor; 2],
    sum: Option<Tensor>,
    with_operand: bool,
) -> Gradients {
    let [rows, channels] = x.shape().dims();
    let kernel = backward_kernel(channels, is_wide(grad_output.dtype), sum.is_some(), with_operand);
    // As many blocks as the multiprocessors hold at once.
    let blocks = match channels {
        0..=512 => 3,
        513..=2560 => 2,
        _ => 1,
    };
    let grid = multiprocessors(x) * blocks;
    let fresh = || empty(x, &[rows, channels], DType::F32);
    let (residual, grad_x) = match sum {
        Some(sum) if sum.can_mut() => (sum.clone(), sum),
        Some(sum) => (sum, fresh()),
        None => (x.clone(), fresh()),
    };
    let partials = || empty(x, &[grid, channels], DType::F32);
    let [grad_gain, grad_offset] = [(); 2].map(|()| partials());
    let launch = Launch::on(x).buffers([
        grad_output,
        x,
        gain,
        mean,
        rstd,
        &residual,
        &grad_x,
        &grad_gain,
        &grad_offset,
    ]);
    if !with_operand {
        launch.word(rows).run(kernel, [grid, 1, 1]);
        let [gain, offset] = sum_rows([&grad_gain, &grad_offset]);
        return Gradients {
            x: grad_x,
            operand: None,
            gain,
            offset,
        };
    }
    let (operand, of_operand) = (empty(x, &[rows, channels], DType::BF16), partials());
    launch
        .buffers([&operand, &of_operand])
        .word(rows)
        .run(kernel, [grid, 1, 1]);
    let [gain, offset, sums] = sum_rows([&grad_gain, &grad_offset, &of_operand]);
    Gradients {
        x: grad_x,
        operand: Some([operand, sums]),
        gain,
        offset,
    }
}

fn forward_kernel(channels: usize, is_f32: bool) -> Kernel {
    let kernel = Kernel::new(SOURCES, "layer_norm_forward", 32 * FORWARD_ROWS).define("CHANNELS", channels);
    if is_f32 {
        return kernel.define("OUTPUT_F32", 1);
    }
    kernel
}

fn backward_kernel(channels: usize, is_f32: bool, add_residual: bool, with_operand: bool) -> Kernel {
    let threads = (channels / 4).next_multiple_of(32);
    let mut kernel = Kernel::new(SOURCES, "layer_norm_backward", threads).define("CHANNELS", channels);
    if is_f32 {
        kernel = kernel.define("GRAD_OUTPUT_F32", 1);
    }
    if add_residual {
        kernel = kernel.define("ADD_RESIDUAL", 1);
    }
    if with_operand {
        kernel = kernel.define("OPERAND", 1);
    }
    kernel
}

/// Every kernel of this file, to be compiled by a test.
#[cfg(test)]
pub(crate) fn kernels() -> Vec<Kernel> {
    let of = |channels| {
        let forward = [false, true].map(|is_f32| forward_kernel(channels, is_f32));
        let backward = crate::nvrtc::BOTH_FLAGS.map(|(is_f32, add)| backward_kernel(channels, is_f32, add, false));
        let with_operand = backward_kernel(channels, false, true, true);
        forward.into_iter().chain(backward).chain([with_operand])
    };
    crate::nvrtc::CHANNELS.into_iter().flat_map(of).collect()
}
