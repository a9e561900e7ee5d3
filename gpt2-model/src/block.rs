//! One transformer block.

use crate::attention::CausalSelfAttention;
use crate::kv_cache::LayerCache;
use crate::layers::{LayerNorm, acts, widen};
use crate::mlp::Mlp;
use crate::ops::Gpt2Backend;
use crate::precision::Precision;
use crate::recompute::Recompute;
use burn::module::Module;
use burn::nn::Dropout;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Attention and feed-forward, each behind a LayerNorm (pre-LN) and added to the residual stream.
#[derive(Module, Debug)]
pub struct Block<B: Backend> {
    /// Before the attention.
    pub ln_1: LayerNorm<B>,
    /// The attention.
    pub attn: CausalSelfAttention<B>,
    /// Before the feed-forward.
    pub ln_2: LayerNorm<B>,
    /// The feed-forward.
    pub mlp: Mlp<B>,
    /// On what each half adds to the residual stream.
    pub resid_dropout: Dropout,
}

impl<B: Gpt2Backend> Block<B> {
    /// # Shapes
    /// `x` and the result are `[B · T, C]`, in `f32`; `seq` is T.
    pub fn forward(
        &self,
        x: Tensor<B, 2>,
        seq: usize,
        precision: Precision,
        recompute: Recompute,
        cache: Option<&mut LayerCache<B>>,
    ) -> Tensor<B, 2> {
        let normal = self.ln_1.forward(x.clone(), precision);
        let mixed = self.attn.mix(normal, seq, precision, cache);
        if acts(&self.resid_dropout, &x) {
            let x = x + self.resid_dropout.forward(widen(self.attn.c_proj.forward(mixed)));
            let fed = self.mlp.forward(self.ln_2.forward(x.clone(), precision));
            x + self.resid_dropout.forward(widen(fed))
        } else {
            let x = self.attn.c_proj.forward_onto(x, mixed);
            let normal = self.ln_2.forward(x.clone(), precision);
            self.mlp.forward_onto(x, normal, recompute)
        }
    }
}
