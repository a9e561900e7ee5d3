//! Causal multi-head self-attention.

use crate::computation::Computation;
use crate::kv_cache::LayerCache;
use crate::layers::{Linear, is_active};
use crate::ops::convert::{join_heads, round, split_heads, widen};
use crate::ops::{Gpt2Backend, attention};
use crate::precision::Precision;
use burn::module::Module;
use burn::nn::Dropout;
use burn::tensor::activation::softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Tensor};

/// Attention whose query, key and value come from one product, as in GPT-2.
#[derive(Module, Debug)]
pub struct CausalSelfAttention<B: Backend> {
    /// Query, key and value side by side: `[C, 3C]`.
    pub c_attn: Linear<B>,
    /// Output projection: `[C, C]`.
    pub c_proj: Linear<B>,
    /// On the attention weights.
    pub attn_dropout: Dropout,
    /// Attention heads.
    pub n_head: usize,
    /// On the scores, besides the division by the root of the head's width: 1 in OpenAI's models.
    pub score_factor: f64,
}

impl<B: Gpt2Backend> CausalSelfAttention<B> {
    /// Attends every position to itself and those before it, mixes the heads' values and projects them. With a `cache`, `x`
    /// continues the sequence that the cache holds.
    ///
    /// # Shapes
    /// `x` and the result are `[B · T, C]`; `seq` is T.
    pub fn forward(
        &self,
        x: Tensor<B, 2>,
        seq: usize,
        by: Computation,
        cache: Option<&mut LayerCache<B>>,
    ) -> Tensor<B, 2> {
        let qkv = self.c_attn.forward(x, by.operations);
        let [tokens, width] = qkv.dims();
        let qkv = self.scale_queries(qkv.reshape([tokens / seq, seq, width])); // [B, T, 3C]
        let continues = cache.as_ref().is_some_and(|cache| cache.len() > 0);
        let mixed = if continues || is_active(&self.attn_dropout, &qkv) {
            self.attend(qkv, by.precision, cache)
        } else {
            if let Some(cache) = cache {
                let [_, key, value] = split_heads(qkv.clone(), self.n_head);
                cache.append(key, value);
            }
            attention(by.operations, qkv, self.n_head)
        };
        self.c_proj.forward(mixed.reshape([tokens, width / 3]), by.operations)
    }

    /// The factor on the scores, put on the queries, where there is one.
    fn scale_queries(&self, qkv: Tensor<B, 3>) -> Tensor<B, 3> {
        if !self.scales_queries() {
            return qkv;
        }
        let width = qkv.dims()[2] / 3;
        let [query, others] = [qkv.clone().narrow(2, 0, width), qkv.narrow(2, width, 2 * width)];
        Tensor::cat(vec![query * self.score_factor, others], 2)
    }

    /// Whether there is a factor on the scores.
    pub(crate) fn scales_queries(&self) -> bool {
        self.score_factor.to_bits() != 1.0_f64.to_bits()
    }

    /// Attention in plain tensors, to what a cache holds too, and with dropout on the attention weights.
    fn attend(&self, qkv: Tensor<B, 3>, precision: Precision, cache: Option<&mut LayerCache<B>>) -> Tensor<B, 3> {
        let [query, key, value] = split_heads(qkv, self.n_head); // [B, H, T, D]
        let [_, _, seq, head_dim] = query.dims();
        let past = cache.as_ref().map_or(0, |cache| cache.len());
        let [key, value] = match cache {
            Some(cache) => cache.append(key, value),
            None => [key, value],
        };
        let scores = query.matmul(key.clone().swap_dims(2, 3)) / (head_dim as f64).sqrt(); // [B, H, T, keys]
        let mask = Tensor::<B, 2, Bool>::tril_mask([seq, key.dims()[2]], past as i64, &scores.device());
        let weights = softmax(widen(scores).mask_fill(mask.unsqueeze(), f32::NEG_INFINITY), 3);
        let weights = round(self.attn_dropout.forward(weights), precision);
        join_heads(weights.matmul(value))
    }
}
