//! Causal attention in `bf16` on the tile unit: as in [`super::attention`] a block of queries at a time. Scores and weights are
//! `f32`; weights are rounded where they are multiplied.

use super::attention::{
    BLOCK, Forward, Head, Mixed, blocks, derive_heads, mix_heads, softmax, softmax_again, softmax_backward,
};
use super::element::Element;
use super::math::vectorised;
use super::tile::{BAND, DEPTH};
use super::tiles::{Aligned, Operand, Role, multiply};
use half::bf16;
use ndarray::{Array4, ArrayView2, ArrayView3, ArrayView4, ArrayViewMut2, s};
use std::ops::Range;

/// Bands of a block of queries.
const BLOCK_BANDS: usize = BLOCK / BAND;

/// The mixed values of `qkv`, `[B, T, 3H, D]`.
pub(super) fn value(qkv: ArrayView4<bf16>) -> Mixed<bf16> {
    mix_heads(qkv, |memory: &mut MixMemory, head, out, log_sum| {
        memory.mix(&head, out, log_sum);
    })
}

/// The derivative by `qkv`, `[B, T, 3H, D]`; `out` and `grad_output` are `[B, T, H, D]`, `log_sum` `[B, H, T]`.
pub(super) fn derivative(
    qkv: ArrayView4<bf16>,
    out: ArrayView4<bf16>,
    log_sum: ArrayView3<f32>,
    grad_output: ArrayView4<bf16>,
) -> Array4<bf16> {
    derive_heads(
        qkv,
        out,
        log_sum,
        grad_output,
        |memory: &mut DerivativeMemory, forward, by| {
            memory.differentiate(&forward, by);
        },
    )
}

/// `length` elements in whole bands, or tiles.
fn whole(length: usize) -> usize {
    length.next_multiple_of(BAND)
}

/// The memory of the forward pass, used again for head after head.
#[derive(Default)]
struct MixMemory {
    /// By rows of the left operand; keys as a right operand, values turned.
    query: Operand,
    key: Operand,
    value: Operand,
    weights: Operand,
    scores: Aligned,
    mixed: Aligned,
}

impl MixMemory {
    /// Fills `out`, `[T, D]`, and `log_sum`, `[T]`.
    fn mix(&mut self, head: &Head<bf16>, mut out: ArrayViewMut2<bf16>, log_sum: &mut [f32]) {
        let (seq, head_dim) = head.query.dim();
        self.query.hold(head.query, Role::Left);
        self.key.hold(head.key, Role::Right);
        self.value.hold(head.value.t(), Role::Right);
        for (start, end) in blocks(seq) {
            let block = Block::new(start, end);
            let mut scores = self.scores.matrix(block.rows(), block.columns());
            block.scores(&self.query, &self.key, scores.view_mut());
            for (i, mut row) in scores.outer_iter_mut().take(end - start).enumerate() {
                let row = row.as_slice_mut().expect("rows of the buffer");
                log_sum[start + i] = softmax(row, start + i + 1, head.scale);
            }
            self.weights.hold(scores.slice(s![..end - start, ..end]), Role::Left);
            let mut mixed = self.mixed.matrix(block.rows(), whole(head_dim));
            Block::by_keys(&self.weights, &self.value, mixed.view_mut());
            round(mixed.view(), out.slice_mut(s![start..end, ..]));
        }
    }
}

/// The memory of the backward pass, used again for head after head.
#[derive(Default)]
struct DerivativeMemory {
    query: Operand,
    query_turned: Operand,
    key: Operand,
    key_turned: Operand,
    value: Operand,
    grad_output: Operand,
    grad_output_turned: Operand,
    /// The weights turned, or the derivative by the scores.
    left: Operand,
    weights: Aligned,
    grad_weights: Aligned,
    grad_query: Aligned,
    grad_key: Aligned,
    grad_value: Aligned,
}

impl DerivativeMemory {
    /// Fills the derivatives by query, key and value, `[T, D]` each.
    fn differentiate(
        &mut self,
        forward: &Forward<bf16>,
        [mut grad_query, grad_key, grad_value]: [ArrayViewMut2<bf16>; 3],
    ) {
        let head = &forward.head;
        let (seq, head_dim) = head.query.dim();
        let width = whole(head_dim);
        self.query.hold(head.query, Role::Left);
        self.query_turned.hold(head.query.t(), Role::Right);
        self.key.hold(head.key, Role::Right);
        self.key_turned.hold(head.key.t(), Role::Right);
        self.value.hold(head.value, Role::Right);
        self.grad_output.hold(forward.grad_output, Role::Left);
        self.grad_output_turned.hold(forward.grad_output.t(), Role::Right);
        let mut key_sums = self.grad_key.matrix(whole(seq), width);
        let mut value_sums = self.grad_value.matrix(whole(seq), width);
        key_sums.fill(0.0);
        value_sums.fill(0.0);
        for (start, end) in blocks(seq) {
            let block = Block::new(start, end);
            let mut weights = self.weights.matrix(block.rows(), block.columns());
            let mut grad_weights = self.grad_weights.matrix(block.rows(), block.columns());
            block.scores(&self.query, &self.key, weights.view_mut());
            for (i, mut row) in weights.outer_iter_mut().take(end - start).enumerate() {
                let row = row.as_slice_mut().expect("rows of the buffer");
                softmax_again(row, start + i + 1, head.scale, forward.log_sum[start + i]);
            }
            let weights = weights.slice(s![..end - start, ..end]);
            self.left.hold(weights.t(), Role::Left);
            block.by_queries(&self.left, &self.grad_output_turned, value_sums.view_mut());
            block.scores(&self.grad_output, &self.value, grad_weights.view_mut());
            let mut grad_scores = grad_weights.slice_mut(s![..end - start, ..end]);
            for (i, (mut row, weights)) in grad_scores.outer_iter_mut().zip(weights.outer_iter()).enumerate() {
                let (out, grad_output) = (forward.out.row(start + i), forward.grad_output.row(start + i));
                let mean = out
                    .iter()
                    .zip(grad_output)
                    .map(|(out, by)| out.wide() * by.wide())
                    .sum();
                let row = row.as_slice_mut().expect("rows of the buffer");
                softmax_backward(row, weights.to_slice().expect("rows of the buffer"), mean, head.scale);
            }
            self.left.hold(grad_scores.view(), Role::Left);
            let mut query_sums = self.grad_query.matrix(block.rows(), width);
            Block::by_keys(&self.left, &self.key_turned, query_sums.view_mut());
            round(query_sums.view(), grad_query.slice_mut(s![start..end, ..]));
            self.left.hold(grad_scores.t(), Role::Left);
            block.by_queries(&self.left, &self.query_turned, key_sums.view_mut());
        }
        round(key_sums.view(), grad_key);
        round(value_sums.view(), grad_value);
    }
}

/// A block of queries, and the keys that any of them sees.
struct Block {
    queries: Range<usize>,
    keys: Range<usize>,
}

impl Block {
    /// The queries `start..end` and the keys `..end`.
    fn new(start: usize, end: usize) -> Self {
        debug_assert!(start.is_multiple_of(BLOCK));
        let first = start / BLOCK * BLOCK_BANDS;
        Self {
            queries: first..first + (end - start).div_ceil(BAND),
            keys: 0..end.div_ceil(BAND),
        }
    }

    fn rows(&self) -> usize {
        self.queries.len() * BAND
    }

    fn columns(&self) -> usize {
        self.keys.len() * BAND
    }

    /// Products of this block's rows of a left operand with the keys' of a right one, over the channels.
    fn scores(&self, left: &Operand, right: &Operand, out: ArrayViewMut2<f32>) {
        let bands = [self.queries.clone(), self.keys.clone()];
        multiply([left, right], bands, [0, 0], left.steps(), true, out);
    }

    /// Sums over the keys: `left` is a block's, `right` has channels as lines.
    fn by_keys(left: &Operand, right: &Operand, out: ArrayViewMut2<f32>) {
        let bands = [0..left.bands(), 0..right.bands()];
        multiply([left, right], bands, [0, 0], left.steps(), true, out);
    }

    /// Sums over this block's queries, on top of what `out` holds: `left` is this block's turned, `right` has channels as lines.
    fn by_queries(&self, left: &Operand, right: &Operand, out: ArrayViewMut2<f32>) {
        const { assert!(BAND == DEPTH) };
        let out = out.slice_move(s![..left.bands() * BAND, ..]);
        let bands = [0..left.bands(), 0..right.bands()];
        multiply([left, right], bands, [0, self.queries.start], left.steps(), false, out);
    }
}

/// Rounds the first rows and columns of `sums` into `out`.
fn round(sums: ArrayView2<f32>, mut out: ArrayViewMut2<bf16>) {
    for (mut out, sums) in out.outer_iter_mut().zip(sums.outer_iter()) {
        let (out, sums) = (
            out.as_slice_mut().expect("channels side by side"),
            sums.to_slice().expect("rows of the buffer"),
        );
        vectorised(
            #[inline(always)]
            || {
                for (out, &sum) in out.iter_mut().zip(sums) {
                    *out = bf16::rounded(sum);
                }
            },
        );
    }
}
