//! One transformer block.

use crate::attention::CausalSelfAttention;
use crate::computation::{Computation, Operations};
use crate::kv_cache::LayerCache;
use crate::layers::{LayerNorm, is_active};
use crate::mlp::Mlp;
use crate::ops::convert::widen;
use crate::ops::{BlockShape, BlockWeights, Gpt2Backend, block};
use crate::variant::Activation;
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
    /// With a `cache`, `x` continues the sequence that the cache holds. Dropout, the cache, the reference and another activation
    /// or attention than OpenAI's go operation by operation, and keep all activations.
    ///
    /// # Shapes
    /// `x` and the result are `[B · T, C]`, in `f32`; `seq` is T.
    pub fn forward(
        &self,
        x: Tensor<B, 2>,
        seq: usize,
        by: Computation,
        cache: Option<&mut LayerCache<B>>,
    ) -> Tensor<B, 2> {
        let is_plain = by.operations == Operations::Reference || !self.has_kernels();
        let has_dropout = is_active(&self.resid_dropout, &x) || is_active(&self.attn.attn_dropout, &x);
        if cache.is_some() || has_dropout || is_plain {
            let by = Computation {
                precision: B::plain_precision(by.precision),
                ..by
            };
            let mixed = self.attn.forward(self.ln_1.forward(x.clone(), by), seq, by, cache);
            let x = x + self.resid_dropout.forward(widen(mixed));
            let fed = self.mlp.forward(self.ln_2.forward(x.clone(), by), by.operations);
            return x + self.resid_dropout.forward(widen(fed));
        }
        let weights = BlockWeights {
            ln_1: self.ln_1.primitives(),
            qkv: self.attn.c_attn.primitives(),
            attention_out: self.attn.c_proj.primitives(),
            ln_2: self.ln_2.primitives(),
            feed_in: self.mlp.c_fc.primitives(),
            feed_out: self.mlp.c_proj.primitives(),
        };
        let shape = BlockShape {
            seq,
            n_head: self.attn.n_head,
            precision: by.precision,
            recompute: by.recompute,
        };
        block(x, weights, shape)
    }

    /// Whether kernels compute the block as one.
    fn has_kernels(&self) -> bool {
        self.mlp.activation == Activation::GeluTanh && !self.attn.scales_queries()
    }
}
