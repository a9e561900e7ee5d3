//! Causal attention on arrays: a block of queries at a time, whose scores stay in the cache. Query, key and value are read
//! where they lie in the packed product.

use super::element::Element;
use super::math::{exp, vectorised};
use super::reduce::{dot, map_sum, max};
use ndarray::linalg::general_mat_mul;
use ndarray::{
    Array3, Array4, ArrayView2, ArrayView3, ArrayView4, ArrayViewMut, ArrayViewMut2, ArrayViewMut4, Axis, RemoveAxis, s,
};
use rayon::prelude::*;

/// Queries in a block: enough that packing the keys for BLAS costs little beside the product, and with a thousand keys the
/// scores are 512 KiB, which a core's own cache holds twice.
pub(super) const BLOCK: usize = 128;

/// The mixed values `[B, T, H, D]`, and the logarithms of the sums `[B, H, T]`.
pub(super) type Mixed<E> = (Array4<E>, Array3<f32>);

/// The mixed values of `qkv`, `[B, T, 3H, D]`.
pub(super) fn value(qkv: ArrayView4<f32>) -> Mixed<f32> {
    mix_heads(qkv, |buffer, head, out, log_sum| mix(buffer, &head, out, log_sum))
}

/// The derivative by `qkv`, `[B, T, 3H, D]`; `out` and `grad_output` are `[B, T, H, D]`, `log_sum` `[B, H, T]`.
pub(super) fn derivative(
    qkv: ArrayView4<f32>,
    out: ArrayView4<f32>,
    log_sum: ArrayView3<f32>,
    grad_output: ArrayView4<f32>,
) -> Array4<f32> {
    derive_heads(qkv, out, log_sum, grad_output, |buffers, forward, by| {
        differentiate(buffers, &forward, by);
    })
}

/// Query, key and value of one head, `[T, D]`.
pub(super) struct Head<'a, E> {
    pub query: ArrayView2<'a, E>,
    pub key: ArrayView2<'a, E>,
    pub value: ArrayView2<'a, E>,
    /// The factor of the scores, `1/√D`.
    pub scale: f32,
}

impl<'a, E> Head<'a, E> {
    /// `qkv` is `[B, T, 3H, D]`.
    fn new(qkv: ArrayView4<'a, E>, sequence: usize, head: usize) -> Self {
        let (_, _, heads, head_dim) = qkv.dim();
        let qkv = qkv.index_axis_move(Axis(0), sequence);
        let part = |i: usize| qkv.index_axis_move(Axis(1), i * heads / 3 + head);
        Self {
            query: part(0),
            key: part(1),
            value: part(2),
            scale: 1.0 / (head_dim as f32).sqrt(),
        }
    }
}

/// One head's forward pass, and the derivative by what it gave.
pub(super) struct Forward<'a, E> {
    pub head: Head<'a, E>,
    /// `[T, D]`.
    pub out: ArrayView2<'a, E>,
    /// `[T]`.
    pub log_sum: &'a [f32],
    /// `[T, D]`.
    pub grad_output: ArrayView2<'a, E>,
}

/// Lets `mix` fill the values `[T, D]` and the logarithms of the sums `[T]` of every head of `qkv`, `[B, T, 3H, D]`, on all
/// threads; each piece of work hands its memory `S` from head to head.
pub(super) fn mix_heads<E: Element, S: Default>(
    qkv: ArrayView4<E>,
    mix: impl Fn(&mut S, Head<E>, ArrayViewMut2<E>, &mut [f32]) + Sync,
) -> Mixed<E> {
    let (batch, seq, heads, head_dim) = qkv.dim();
    let heads = heads / 3;
    let mut out = Array4::from_elem((batch, seq, heads, head_dim), E::rounded(0.0));
    let mut log_sum = Array3::zeros((batch, heads, seq));
    let outputs = by_head(out.view_mut()).into_iter().zip(log_sum.rows_mut());
    let tasks: Vec<_> = outputs.enumerate().collect();
    tasks
        .into_par_iter()
        .for_each_init(S::default, |memory, (i, (out, log_sum))| {
            let log_sum = log_sum.into_slice().expect("a row in one piece");
            mix(memory, Head::new(qkv, i / heads, i % heads), out, log_sum);
        });
    (out, log_sum)
}

/// Lets `differentiate` add to the derivatives by query, key and value, `[T, D]` each and zero, of every head of `qkv`,
/// `[B, T, 3H, D]`; as [`mix_heads`] does.
pub(super) fn derive_heads<E: Element, S: Default>(
    qkv: ArrayView4<E>,
    out: ArrayView4<E>,
    log_sum: ArrayView3<f32>,
    grad_output: ArrayView4<E>,
    differentiate: impl Fn(&mut S, Forward<E>, [ArrayViewMut2<E>; 3]) + Sync,
) -> Array4<E> {
    let (batch, _, heads, _) = qkv.dim();
    let heads = heads / 3;
    let mut grad_qkv = Array4::from_elem(qkv.dim(), E::rounded(0.0));
    let mut tasks = Vec::with_capacity(batch * heads);
    let mut parts = by_head(grad_qkv.view_mut()).into_iter();
    for sequence in 0..batch {
        let mut of_kind = || parts.by_ref().take(heads).collect::<Vec<_>>();
        let (queries, keys, values) = (of_kind(), of_kind(), of_kind());
        for (head, ((query, key), value)) in queries.into_iter().zip(keys).zip(values).enumerate() {
            tasks.push((sequence, head, [query, key, value]));
        }
    }
    tasks
        .into_par_iter()
        .for_each_init(S::default, |memory, (sequence, head, by)| {
            let log_sum = log_sum.slice(s![sequence, head, ..]);
            let forward = Forward {
                head: Head::new(qkv, sequence, head),
                out: out.slice_move(s![sequence, .., head, ..]),
                log_sum: log_sum.to_slice().expect("a row in one piece"),
                grad_output: grad_output.slice_move(s![sequence, .., head, ..]),
            };
            differentiate(memory, forward, by);
        });
    grad_qkv
}

/// Fills `out`, `[T, D]`, and `log_sum`, `[T]`.
fn mix(buffer: &mut Vec<f32>, head: &Head<f32>, mut out: ArrayViewMut2<f32>, log_sum: &mut [f32]) {
    for (start, end) in blocks(head.query.nrows()) {
        let mut weights = matrix(buffer, end - start, end);
        scores(head, start, end, &mut weights);
        for (i, mut row) in weights.outer_iter_mut().enumerate() {
            let row = row.as_slice_mut().expect("rows of the buffer");
            log_sum[start + i] = softmax(row, start + i + 1, 1.0);
        }
        let mut out = out.slice_mut(s![start..end, ..]);
        general_mat_mul(1.0, &weights, &head.value.slice(s![..end, ..]), 0.0, &mut out);
    }
}

/// Adds to the derivatives by query, key and value, `[T, D]` each.
fn differentiate(buffers: &mut [Vec<f32>; 2], forward: &Forward<f32>, by: [ArrayViewMut2<f32>; 3]) {
    let [mut grad_query, mut grad_key, mut grad_value] = by;
    let [weights_buffer, by_weights_buffer] = buffers;
    let head = &forward.head;
    for (start, end) in blocks(forward.out.nrows()) {
        let mut weights = matrix(weights_buffer, end - start, end);
        let mut grad_weights = matrix(by_weights_buffer, end - start, end);
        let grad_output = forward.grad_output.slice(s![start..end, ..]);
        scores(head, start, end, &mut weights);
        for (i, mut row) in weights.outer_iter_mut().enumerate() {
            let row = row.as_slice_mut().expect("rows of the buffer");
            softmax_again(row, start + i + 1, 1.0, forward.log_sum[start + i]);
        }
        let mut value_part = grad_value.slice_mut(s![..end, ..]);
        general_mat_mul(1.0, &weights.t(), &grad_output, 1.0, &mut value_part);
        let value = head.value.slice(s![..end, ..]);
        general_mat_mul(1.0, &grad_output, &value.t(), 0.0, &mut grad_weights);
        for (i, (mut row, weights)) in grad_weights.outer_iter_mut().zip(weights.outer_iter()).enumerate() {
            let (out, grad_output) = (forward.out.row(start + i), grad_output.row(i));
            let mean = dot(
                out.as_slice().expect("rows of the output"),
                grad_output.as_slice().expect("rows of the grad_output"),
            );
            let row = row.as_slice_mut().expect("rows of the buffer");
            softmax_backward(row, weights.to_slice().expect("rows of the buffer"), mean, head.scale);
        }
        let key = head.key.slice(s![..end, ..]);
        let mut query_part = grad_query.slice_mut(s![start..end, ..]);
        general_mat_mul(1.0, &grad_weights, &key, 0.0, &mut query_part);
        let query = head.query.slice(s![start..end, ..]);
        let mut key_part = grad_key.slice_mut(s![..end, ..]);
        general_mat_mul(1.0, &grad_weights.t(), &query, 1.0, &mut key_part);
    }
}

/// Scaled products of the queries `start..end` with the keys `..end`; those of later keys are there too.
fn scores(head: &Head<f32>, start: usize, end: usize, scores: &mut ArrayViewMut2<f32>) {
    let (query, key) = (head.query.slice(s![start..end, ..]), head.key.slice(s![..end, ..]));
    general_mat_mul(head.scale, &query, &key.t(), 0.0, scores);
}

/// Turns the first `seen` scores, times `scale`, into weights of sum 1, sets the others to 0, and returns the logarithm of
/// the sum.
pub(super) fn softmax(row: &mut [f32], seen: usize, scale: f32) -> f32 {
    vectorised(
        #[inline(always)]
        || {
            let (seen, unseen) = row.split_at_mut(seen);
            let max = max(seen);
            let sum = map_sum(seen, |score| exp((score - max) * scale));
            let factor = 1.0 / sum;
            for weight in seen {
                *weight *= factor;
            }
            unseen.fill(0.0);
            sum.ln() + max * scale
        },
    )
}

/// The weights of [`softmax`] once more, from the logarithm of the sum that it returned.
pub(super) fn softmax_again(row: &mut [f32], seen: usize, scale: f32, log_sum: f32) {
    vectorised(
        #[inline(always)]
        || {
            let (seen, unseen) = row.split_at_mut(seen);
            for score in seen {
                *score = exp((*score * scale - log_sum).min(0.0)); // rounding may put it above
            }
            unseen.fill(0.0);
        },
    );
}

/// Turns the derivatives by the weights into those by the scores, which were multiplied by `scale`; `mean` is Σ
/// weight·derivative over the keys, which is also the product of the query's output with its derivative.
pub(super) fn softmax_backward(row: &mut [f32], weights: &[f32], mean: f32, scale: f32) {
    vectorised(
        #[inline(always)]
        || {
            for (by, &weight) in row.iter_mut().zip(weights) {
                *by = weight * (*by - mean) * scale;
            }
        },
    );
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
fn by_head<E>(array: ArrayViewMut4<'_, E>) -> Vec<ArrayViewMut2<'_, E>> {
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
