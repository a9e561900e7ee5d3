//! Causal attention on arrays: a block of queries at a time, whose scores stay in the cache. Query, key and value are read
//! where they lie in the packed product.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the processor's vectors"
)]

use super::math::{exp, vectorised};
use super::reduce::{dot, map_sum, max};
use ndarray::linalg::general_mat_mul;
use ndarray::{
    Array3, Array4, ArrayView2, ArrayView3, ArrayView4, ArrayViewMut, ArrayViewMut1, ArrayViewMut2, ArrayViewMut4,
    Axis, RemoveAxis, s,
};
use rayon::prelude::*;

/// Queries in a block: enough that packing the keys for BLAS costs little beside the product, and with a thousand keys the
/// scores are 512 KiB, which a core's own cache holds twice.
pub(super) const BLOCK: usize = 128;

/// What [`value`] gives: the mixed values `[B, T, H, D]`, and the logarithms of the sums `[B, H, T]`.
type Mixed = (Array4<f32>, Array3<f32>);

/// `qkv` is `[B, T, 3H, D]`.
pub(super) fn value(qkv: ArrayView4<f32>) -> Mixed {
    let (batch, seq, heads, head_dim) = qkv.dim();
    let heads = heads / 3;
    let mut out = Array4::zeros((batch, seq, heads, head_dim));
    let mut log_sum = Array3::zeros((batch, heads, seq));
    let outputs = by_head(out.view_mut()).into_iter().zip(log_sum.rows_mut());
    let tasks: Vec<_> = outputs.enumerate().collect();
    tasks
        .into_par_iter()
        .for_each_init(Vec::new, |buffer, (i, (out, log_sum))| {
            let qkv = qkv.index_axis_move(Axis(0), i / heads);
            Head::new(qkv, i % heads).mix(out, log_sum, buffer);
        });
    (out, log_sum)
}

/// The derivative by `qkv`, `[B, T, 3H, D]`; `out` and `upstream` are `[B, T, H, D]`.
pub(super) fn derivative(
    qkv: ArrayView4<f32>,
    out: ArrayView4<f32>,
    log_sum: ArrayView3<f32>,
    upstream: ArrayView4<f32>,
) -> Array4<f32> {
    let heads = qkv.dim().2 / 3;
    let mut by_qkv = Array4::zeros(qkv.dim());
    let mut tasks = Vec::with_capacity(qkv.dim().0 * heads);
    let mut by = by_head(by_qkv.view_mut()).into_iter();
    for batch in 0..qkv.dim().0 {
        let mut of_kind = || by.by_ref().take(heads).collect::<Vec<_>>();
        let (by_query, by_key, by_value) = (of_kind(), of_kind(), of_kind());
        for (head, by) in by_query.into_iter().zip(by_key).zip(by_value).enumerate() {
            let ((by_query, by_key), by_value) = by;
            let forward = Forward {
                head: Head::new(qkv.index_axis_move(Axis(0), batch), head),
                out: out.slice_move(s![batch, .., head, ..]),
                log_sum: log_sum.slice(s![batch, head, ..]).to_vec(),
                upstream: upstream.slice_move(s![batch, .., head, ..]),
            };
            tasks.push((forward, [by_query, by_key, by_value]));
        }
    }
    tasks
        .into_par_iter()
        .for_each_init(Default::default, |buffers, (forward, by)| {
            forward.derivative(by, buffers);
        });
    by_qkv
}

/// Query, key and value of one head, `[T, D]`.
struct Head<'a> {
    query: ArrayView2<'a, f32>,
    key: ArrayView2<'a, f32>,
    value: ArrayView2<'a, f32>,
    /// `1/√D`.
    scale: f32,
}

impl<'a> Head<'a> {
    /// `qkv` is `[T, 3H, D]`.
    fn new(qkv: ArrayView3<'a, f32>, head: usize) -> Self {
        let (_, heads, head_dim) = qkv.dim();
        let part = |i: usize| qkv.index_axis_move(Axis(1), i * heads / 3 + head);
        Self {
            query: part(0),
            key: part(1),
            value: part(2),
            scale: 1.0 / (head_dim as f32).sqrt(),
        }
    }

    /// Fills `out`, `[T, D]`, and `log_sum`, `[T]`.
    fn mix(&self, mut out: ArrayViewMut2<f32>, mut log_sum: ArrayViewMut1<f32>, buffer: &mut Vec<f32>) {
        for (start, end) in blocks(self.query.nrows()) {
            let mut scores = matrix(buffer, end - start, end);
            self.scores(start, end, &mut scores);
            for (i, mut row) in scores.outer_iter_mut().enumerate() {
                let row = row.as_slice_mut().expect("rows of the buffer");
                log_sum[start + i] = vectorised(
                    #[inline(always)]
                    || softmax(row, start + i + 1, 1.0),
                );
            }
            let mut out = out.slice_mut(s![start..end, ..]);
            general_mat_mul(1.0, &scores, &self.value.slice(s![..end, ..]), 0.0, &mut out);
        }
    }

    /// Scaled products of the queries `start..end` with the keys `..end`; those of later keys are there too.
    fn scores(&self, start: usize, end: usize, scores: &mut ArrayViewMut2<f32>) {
        let (query, key) = (self.query.slice(s![start..end, ..]), self.key.slice(s![..end, ..]));
        general_mat_mul(self.scale, &query, &key.t(), 0.0, scores);
    }
}

/// One head's forward pass, and the derivative by what it gave.
struct Forward<'a> {
    head: Head<'a>,
    /// `[T, D]`.
    out: ArrayView2<'a, f32>,
    /// `[T]`.
    log_sum: Vec<f32>,
    /// `[T, D]`.
    upstream: ArrayView2<'a, f32>,
}

impl Forward<'_> {
    /// Adds to the derivatives by query, key and value, `[T, D]` each.
    fn derivative(&self, by: [ArrayViewMut2<f32>; 3], buffers: &mut [Vec<f32>; 2]) {
        let [mut by_query, mut by_key, mut by_value] = by;
        let [weights_buffer, by_weights_buffer] = buffers;
        for (start, end) in blocks(self.out.nrows()) {
            let mut weights = matrix(weights_buffer, end - start, end);
            let mut by_weights = matrix(by_weights_buffer, end - start, end);
            let upstream = self.upstream.slice(s![start..end, ..]);
            self.head.scores(start, end, &mut weights);
            for (i, mut row) in weights.outer_iter_mut().enumerate() {
                let (row, log_sum) = (row.as_slice_mut().expect("rows of the buffer"), self.log_sum[start + i]);
                vectorised(
                    #[inline(always)]
                    || {
                        let (seen, unseen) = row.split_at_mut(start + i + 1);
                        for score in seen {
                            *score = exp((*score - log_sum).min(0.0)); // rounding may put it above
                        }
                        unseen.fill(0.0);
                    },
                );
            }
            let mut value_part = by_value.slice_mut(s![..end, ..]);
            general_mat_mul(1.0, &weights.t(), &upstream, 1.0, &mut value_part);
            let value = self.head.value.slice(s![..end, ..]);
            general_mat_mul(1.0, &upstream, &value.t(), 0.0, &mut by_weights);
            for (i, (mut row, weights)) in by_weights.outer_iter_mut().zip(weights.outer_iter()).enumerate() {
                // Σ weight·derivative over the keys, which is also the product of the output with its derivative.
                let (out, upstream) = (self.out.row(start + i), upstream.row(i));
                let mean = dot(
                    out.as_slice().expect("rows of the output"),
                    upstream.as_slice().expect("rows of the upstream"),
                );
                let (row, weights) = (
                    row.as_slice_mut().expect("rows of the buffer"),
                    weights.as_slice().expect("rows of the buffer"),
                );
                let scale = self.head.scale;
                vectorised(
                    #[inline(always)]
                    || {
                        for (by, &weight) in row.iter_mut().zip(weights) {
                            *by = weight * (*by - mean) * scale;
                        }
                    },
                );
            }
            let key = self.head.key.slice(s![..end, ..]);
            let mut query_part = by_query.slice_mut(s![start..end, ..]);
            general_mat_mul(1.0, &by_weights, &key, 0.0, &mut query_part);
            let query = self.head.query.slice(s![start..end, ..]);
            let mut key_part = by_key.slice_mut(s![..end, ..]);
            general_mat_mul(1.0, &by_weights.t(), &query, 1.0, &mut key_part);
        }
    }
}

/// Turns the first `seen` scores, times `scale`, into weights of sum 1, sets the others to 0, and returns the logarithm of
/// the sum.
#[inline(always)]
pub(super) fn softmax(row: &mut [f32], seen: usize, scale: f32) -> f32 {
    let (seen, unseen) = row.split_at_mut(seen);
    let max = max(seen);
    let sum = map_sum(seen, |score| exp((score - max) * scale));
    let factor = 1.0 / sum;
    for weight in seen {
        *weight *= factor;
    }
    unseen.fill(0.0);
    sum.ln() + max * scale
}

pub(super) fn blocks(seq: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..seq)
        .step_by(BLOCK)
        .map(move |start| (start, seq.min(start + BLOCK)))
}

/// A matrix in `buffer`, which grows as needed.
fn matrix(buffer: &mut Vec<f32>, rows: usize, columns: usize) -> ArrayViewMut2<'_, f32> {
    if buffer.len() < rows * columns {
        buffer.resize(rows * columns, 0.0);
    }
    ArrayViewMut2::from_shape((rows, columns), &mut buffer[..rows * columns])
        .expect("as many elements as the shape has")
}

/// The heads of `[B, T, H, D]`, `[T, D]` each, sequence after sequence.
pub(super) fn by_head<E>(array: ArrayViewMut4<'_, E>) -> Vec<ArrayViewMut2<'_, E>> {
    let sequences = split(array, 0).into_iter();
    sequences.flat_map(|sequence| split(sequence, 1)).collect()
}

/// The parts of `array` along `axis`, which is taken out of their shape.
fn split<E, D: RemoveAxis>(mut array: ArrayViewMut<'_, E, D>, axis: usize) -> Vec<ArrayViewMut<'_, E, D::Smaller>> {
    let axis = Axis(axis);
    let mut parts = Vec::with_capacity(array.len_of(axis));
    while array.len_of(axis) > 0 {
        let (first, rest) = array.split_at(axis, 1);
        parts.push(first.index_axis_move(axis, 0));
        array = rest;
    }
    parts
}
