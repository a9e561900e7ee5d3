//! The reference causal attention and its derivative, which recomputes the attention weights instead of keeping them.

use crate::ops::convert::{join_heads, primitive, round_like, split_heads, tensor, widen};
use crate::ops::types::Attended;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Bool, Tensor};

pub(in crate::ops) fn value<B: Backend>(qkv: FloatTensor<B>, n_head: usize) -> Attended<FloatTensor<B>> {
    let heads = Heads::<B>::new(qkv, n_head);
    let (weights, log_sum) = heads.weights();
    let mixed = round_like(weights, &heads.value).matmul(heads.value);
    Attended {
        out: primitive(join_heads(mixed)),
        log_sum: primitive(log_sum),
    }
}

pub(in crate::ops) fn derivative<B: Backend>(
    qkv: FloatTensor<B>,
    grad_output: FloatTensor<B>,
    n_head: usize,
) -> FloatTensor<B> {
    let heads = Heads::<B>::new(qkv, n_head);
    let (weights, _) = heads.weights();
    let grad_output = tensor::<B, 3>(grad_output);
    let [batch, seq, width] = grad_output.dims();
    let grad_output = grad_output
        .reshape([batch, seq, n_head, width / n_head])
        .swap_dims(1, 2); // [B, H, T, D]
    let grad_value = round_like(weights.clone(), &grad_output)
        .swap_dims(2, 3)
        .matmul(grad_output.clone());
    let grad_weights = widen(grad_output.matmul(heads.value.clone().swap_dims(2, 3))); // [B, H, T, T]
    let mean = (grad_weights.clone() * weights.clone()).sum_dim(3);
    let grad_scores = round_like(weights * (grad_weights - mean) * heads.scale, &heads.query);
    let grad_query = grad_scores.clone().matmul(heads.key);
    let grad_key = grad_scores.swap_dims(2, 3).matmul(heads.query);
    let joined = [grad_query, grad_key, grad_value].map(join_heads).to_vec();
    primitive(Tensor::cat(joined, 2))
}

/// Query, key and value of each head, `[B, H, T, D]`.
struct Heads<B: Backend> {
    query: Tensor<B, 4>,
    key: Tensor<B, 4>,
    value: Tensor<B, 4>,
    /// `1/√D`.
    scale: f64,
}

impl<B: Backend> Heads<B> {
    fn new(qkv: FloatTensor<B>, n_head: usize) -> Self {
        let [query, key, value] = split_heads(tensor(qkv), n_head);
        let [_, _, _, head_dim] = query.dims();
        Self {
            query,
            key,
            value,
            scale: 1.0 / (head_dim as f64).sqrt(),
        }
    }

    /// The attention weights, `[B, H, T, T]`, and the logarithm of what they were divided by, `[B, H, T]`; both `f32`.
    fn weights(&self) -> (Tensor<B, 4>, Tensor<B, 3>) {
        let [_, _, seq, _] = self.query.dims();
        let scores = widen(self.query.clone().matmul(self.key.clone().swap_dims(2, 3))) * self.scale;
        let mask = Tensor::<B, 2, Bool>::tril_mask([seq, seq], 0, &scores.device());
        let scores = scores.mask_fill(mask.unsqueeze(), f32::NEG_INFINITY);
        let max = scores.clone().max_dim(3);
        let exponentials = (scores - max.clone()).exp();
        let sum = exponentials.clone().sum_dim(3);
        let log_sum = (sum.clone().log() + max).squeeze_dim(3);
        (exponentials / sum, log_sum)
    }
}
