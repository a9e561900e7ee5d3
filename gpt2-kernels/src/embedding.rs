//! The sum of token and position embeddings.

use crate::Tensor;
use crate::launch::{Kernel, Launch, Sources, empty};
use burn::tensor::{DType, TensorMetadata};

const SOURCES: Sources = Sources::new(&[
    include_str!("cuda/common.cuh"),
    include_str!("cuda/elementwise.cuh"),
    include_str!("cuda/embedding.cu"),
]);

/// Rows of a block of the forward kernel.
const FORWARD_ROWS: usize = 4;

/// Tokens of the vocabulary that a block sorts, and its threads.
const SORT_BINS: usize = 256;
const SORT_THREADS: usize = 1024;

/// The vectors of `tokens`, `[B, T]` in `i32`, and of their positions from `past` on: `[B, T, C]` in `f32`.
pub fn forward(wte: &Tensor, wpe: &Tensor, tokens: &Tensor, past: usize) -> Tensor {
    let ([batch, seq], [_, channels]) = (tokens.shape().dims(), wte.shape().dims());
    let rows = batch * seq;
    let x = empty(wte, &[batch, seq, channels], DType::F32);
    Launch::on(wte)
        .buffers([tokens, wte, wpe, &x])
        .words([rows, seq, past])
        .run(forward_kernel(channels), [rows.div_ceil(FORWARD_ROWS), 1, 1]);
    x
}

/// Adds `grad_output`, `[B, T, C]`, to the rows of `grad_wte`, `[Vp, C]`, by token, and up by position: `[positions,
/// C]`, the first row that of the first position of the batch.
pub fn backward(tokens: &Tensor, grad_output: &Tensor, grad_wte: &Tensor, positions: usize) -> Tensor {
    let ([batch, seq], [vocab, channels]) = (tokens.shape().dims(), grad_wte.shape().dims());
    let rows = batch * seq;
    let [order, sorted] = [DType::U32, DType::I32].map(|dtype| empty(grad_output, &[rows], dtype));
    let grad_wpe = empty(grad_output, &[positions, channels], DType::F32);
    let sort_blocks = vocab.div_ceil(SORT_BINS);
    let sum_blocks = (positions * channels / 4).div_ceil(SORT_THREADS);
    Launch::on(grad_output)
        .buffers([tokens, grad_output, &order, &sorted, &grad_wpe])
        .words([rows, sort_blocks, seq, positions])
        .run(sort_kernel(channels), [sort_blocks + sum_blocks, 1, 1]);
    let span = match rows {
        0..=4096 => 8,
        4097..=16384 => 16,
        _ => 32,
    };
    let spans = rows.div_ceil(span);
    let [spans_kernel, finish_kernel] = sum_kernels(channels);
    let partials = empty(grad_output, &[2, spans, channels], DType::F32);
    Launch::on(grad_output)
        .buffers([&order, &sorted, grad_output, grad_wte, &partials])
        .words([rows, span])
        .run(spans_kernel, [spans, 1, 1]);
    Launch::on(grad_output)
        .buffers([&sorted, &partials, grad_wte])
        .words([rows, span])
        .run(finish_kernel, [spans, 1, 1]);
    grad_wpe
}

fn forward_kernel(channels: usize) -> Kernel {
    Kernel::new(SOURCES, "embedding_forward", 32 * FORWARD_ROWS).define("CHANNELS", channels)
}

fn sort_kernel(channels: usize) -> Kernel {
    Kernel::new(SOURCES, "embedding_sort", SORT_THREADS).define("CHANNELS", channels)
}

/// The sums of spans of sorted rows, and what is left where a token's rows cross spans.
fn sum_kernels(channels: usize) -> [Kernel; 2] {
    let threads = (channels / 4).next_multiple_of(32);
    ["embedding_spans", "embedding_finish"]
        .map(|entry| Kernel::new(SOURCES, entry, threads).define("CHANNELS", channels))
}

/// Every kernel of this file, to be compiled by a test.
#[cfg(test)]
pub(crate) fn kernels() -> Vec<Kernel> {
    let of = |channels| {
        let [spans, finish] = sum_kernels(channels);
        [forward_kernel(channels), sort_kernel(channels), spans, finish]
    };
    crate::nvrtc::CHANNELS.into_iter().flat_map(of).collect()
}
