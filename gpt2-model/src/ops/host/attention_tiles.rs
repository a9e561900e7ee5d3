//! Causal attention in `bf16` on the tile unit: as in [`super::attention`] a block of queries at a time. Scores and weights are
//! `f32`; weights are rounded where they are multiplied.

use super::attention::{BLOCK, blocks, by_head, softmax};
use super::element::Element;
use super::math::{exp, vectorised};
use super::tiles::{Aligned, BAND, DEPTH, Operand, Role, multiply};
use half::bf16;
use ndarray::{Array3, Array4, ArrayView2, ArrayView3, ArrayView4, ArrayViewMut2, Axis, s};
use rayon::prelude::*;
use std::ops::Range;

/// Bands of a block of queries.
const BLOCK_BANDS: usize = BLOCK / BAND;

/// The mixed values `[B, T, H, D]`, and the logarithms of the sums `[B, H, T]`; `qkv` is `[B, T, 3H, D]`.
pub(super) fn value(qkv: ArrayView4<bf16>) -> (Array4<bf16>, Array3<f32>) {
    let (batch, seq, heads, head_dim) = qkv.dim();
    let heads = heads / 3;
    let mut out = Array4::from_elem((batch, seq, heads, head_dim), bf16::ZERO);
    let mut log_sum = Array3::zeros((batch, heads, seq));
    let tasks: Vec<_> = by_head(out.view_mut())
        .into_iter()
        .zip(log_sum.rows_mut())
        .enumerate()
        .collect();
    tasks
        .into_par_iter()
        .for_each_init(Forward::default, |forward, (i, (out, mut log_sum))| {
            let [query, key, value] = parts(qkv, heads, i);
            let log_sum = log_sum.as_slice_mut().expect("a row");
            forward.mix([query, key, value], out, log_sum);
        });
    (out, log_sum)
}

/// The derivative by `qkv`, `[B, T, 3H, D]`; `out` and `upstream` are `[B, T, H, D]`, `log_sum` `[B, H, T]`.
pub(super) fn derivative(
    qkv: ArrayView4<bf16>,
    out: ArrayView4<bf16>,
    log_sum: ArrayView3<f32>,
    upstream: ArrayView4<bf16>,
) -> Array4<bf16> {
    let heads = qkv.dim().2 / 3;
    let mut by_qkv = Array4::from_elem(qkv.dim(), bf16::ZERO);
    let mut tasks = Vec::new();
    let mut by = by_head(by_qkv.view_mut()).into_iter();
    for batch in 0..qkv.dim().0 {
        let mut of_kind = || by.by_ref().take(heads).collect::<Vec<_>>();
        let (queries, keys, values) = (of_kind(), of_kind(), of_kind());
        for (head, by) in queries.into_iter().zip(keys).zip(values).enumerate() {
            tasks.push((batch, head, by));
        }
    }
    tasks
        .into_par_iter()
        .for_each_init(Backward::default, |backward, (batch, head, ((query, key), value))| {
            let log_sum = log_sum.slice(s![batch, head, ..]);
            let given = Given {
                parts: parts(qkv, heads, batch * heads + head),
                out: out.slice_move(s![batch, .., head, ..]),
                upstream: upstream.slice_move(s![batch, .., head, ..]),
                log_sum: log_sum.to_slice().expect("a row"),
            };
            backward.derivative(&given, [query, key, value]);
        });
    by_qkv
}

/// Query, key and value, `[T, D]`, of the `i`th head of all sequences.
fn parts(qkv: ArrayView4<bf16>, heads: usize, i: usize) -> [ArrayView2<bf16>; 3] {
    let of_sequence = qkv.index_axis_move(Axis(0), i / heads);
    [0, 1, 2].map(|part| of_sequence.index_axis_move(Axis(1), part * heads + i % heads))
}

/// The factor of the scores, `1/√D`.
fn scale(head_dim: usize) -> f32 {
    1.0 / (head_dim as f32).sqrt()
}

/// `length` elements in whole bands, or tiles.
fn whole(length: usize) -> usize {
    length.next_multiple_of(BAND)
}

/// The memory of the forward pass, used again for head after head.
#[derive(Default)]
struct Forward {
    /// By rows of the left operand; keys as a right operand, values turned.
    query: Operand,
    key: Operand,
    value: Operand,
    weights: Operand,
    scores: Aligned,
    mixed: Aligned,
}

impl Forward {
    /// Fills `out`, `[T, D]`, and `log_sum`, `[T]`.
    fn mix(&mut self, [query, key, value]: [ArrayView2<bf16>; 3], mut out: ArrayViewMut2<bf16>, log_sum: &mut [f32]) {
        let (seq, head_dim) = query.dim();
        let scale = scale(head_dim);
        self.query.hold(query, Role::Left);
        self.key.hold(key, Role::Right);
        self.value.hold(value.t(), Role::Right);
        for (start, end) in blocks(seq) {
            let block = Block::new(start, end);
            let mut scores = self.scores.matrix(block.rows(), block.columns());
            block.scores(&self.query, &self.key, scores.view_mut());
            for (i, mut row) in scores.outer_iter_mut().take(end - start).enumerate() {
                let row = row.as_slice_mut().expect("rows of the buffer");
                log_sum[start + i] = vectorised(
                    #[inline(always)]
                    || softmax(row, start + i + 1, scale),
                );
            }
            self.weights.hold(scores.slice(s![..end - start, ..end]), Role::Left);
            let mut mixed = self.mixed.matrix(block.rows(), whole(head_dim));
            Block::by_keys(&self.weights, &self.value, mixed.view_mut());
            round(mixed.view(), out.slice_mut(s![start..end, ..]));
        }
    }
}

/// What the derivative of a head is made of.
struct Given<'a> {
    /// Query, key and value, `[T, D]`.
    parts: [ArrayView2<'a, bf16>; 3],
    /// `[T, D]`.
    out: ArrayView2<'a, bf16>,
    /// `[T, D]`.
    upstream: ArrayView2<'a, bf16>,
    /// `[T]`.
    log_sum: &'a [f32],
}

/// The memory of the backward pass, used again for head after head.
#[derive(Default)]
struct Backward {
    query: Operand,
    query_turned: Operand,
    key: Operand,
    key_turned: Operand,
    value: Operand,
    upstream: Operand,
    upstream_turned: Operand,
    /// The weights turned, or the derivative by the scores.
    left: Operand,
    weights: Aligned,
    by_weights: Aligned,
    by_query: Aligned,
    by_key: Aligned,
    by_value: Aligned,
}

impl Backward {
    /// Fills the derivatives by query, key and value, `[T, D]` each.
    fn derivative(&mut self, given: &Given, [mut by_query, by_key, by_value]: [ArrayViewMut2<bf16>; 3]) {
        let [query, key, value] = given.parts;
        let (seq, head_dim) = query.dim();
        let (scale, width) = (scale(head_dim), whole(head_dim));
        self.query.hold(query, Role::Left);
        self.query_turned.hold(query.t(), Role::Right);
        self.key.hold(key, Role::Right);
        self.key_turned.hold(key.t(), Role::Right);
        self.value.hold(value, Role::Right);
        self.upstream.hold(given.upstream, Role::Left);
        self.upstream_turned.hold(given.upstream.t(), Role::Right);
        let mut key_sums = self.by_key.matrix(whole(seq), width);
        let mut value_sums = self.by_value.matrix(whole(seq), width);
        key_sums.fill(0.0);
        value_sums.fill(0.0);
        for (start, end) in blocks(seq) {
            let block = Block::new(start, end);
            let mut weights = self.weights.matrix(block.rows(), block.columns());
            let mut by_weights = self.by_weights.matrix(block.rows(), block.columns());
            block.scores(&self.query, &self.key, weights.view_mut());
            for (i, mut row) in weights.outer_iter_mut().take(end - start).enumerate() {
                let (row, log_sum) = (
                    row.as_slice_mut().expect("rows of the buffer"),
                    given.log_sum[start + i],
                );
                vectorised(
                    #[inline(always)]
                    || {
                        let (seen, unseen) = row.split_at_mut(start + i + 1);
                        for score in seen {
                            *score = exp((*score * scale - log_sum).min(0.0)); // rounding may put it above
                        }
                        unseen.fill(0.0);
                    },
                );
            }
            let weights = weights.slice(s![..end - start, ..end]);
            self.left.hold(weights.t(), Role::Left);
            block.by_queries(&self.left, &self.upstream_turned, value_sums.view_mut());
            block.scores(&self.upstream, &self.value, by_weights.view_mut());
            let mut by_scores = by_weights.slice_mut(s![..end - start, ..end]);
            for (i, (mut row, weights)) in by_scores.outer_iter_mut().zip(weights.outer_iter()).enumerate() {
                // Σ weight·derivative over the keys, which is also the product of the output with its derivative.
                let (out, upstream) = (given.out.row(start + i), given.upstream.row(start + i));
                let mean: f32 = out.iter().zip(upstream).map(|(out, by)| out.wide() * by.wide()).sum();
                let row = row.as_slice_mut().expect("rows of the buffer");
                let weights = weights.to_slice().expect("rows of the buffer");
                vectorised(
                    #[inline(always)]
                    || {
                        for (by, &weight) in row.iter_mut().zip(weights) {
                            *by = weight * (*by - mean) * scale;
                        }
                    },
                );
            }
            self.left.hold(by_scores.view(), Role::Left);
            let mut query_sums = self.by_query.matrix(block.rows(), width);
            Block::by_keys(&self.left, &self.key_turned, query_sums.view_mut());
            round(query_sums.view(), by_query.slice_mut(s![start..end, ..]));
            self.left.hold(by_scores.t(), Role::Left);
            block.by_queries(&self.left, &self.query_turned, key_sums.view_mut());
        }
        round(key_sums.view(), by_key);
        round(value_sums.view(), by_value);
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
