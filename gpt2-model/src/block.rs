//! One transformer block.

use crate::attention::CausalSelfAttention;
use crate::computation::{Computation, Operations};
use crate::kv_cache::LayerCache;
use crate::layers::{LayerNorm, Linear};
use crate::mlp::Mlp;
use crate::ops::convert::{primitive, tensor, widen};
use crate::ops::{BlockShape, BlockWeights, DecodeKernels, DecodeShape, Gpt2Backend, block};
use crate::precision::Precision;
use crate::variant::Activation;
use burn::module::Module;
use burn::nn::Dropout;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;

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

impl<B: Backend> Block<B> {
    /// The products' weights and biases, in the order in which they are computed.
    pub(crate) fn products(&self) -> [&Linear<B>; 4] {
        [&self.attn.c_attn, &self.attn.c_proj, &self.mlp.c_fc, &self.mlp.c_proj]
    }

    pub(crate) fn products_mut(&mut self) -> [&mut Linear<B>; 4] {
        let (attn, mlp) = (&mut self.attn, &mut self.mlp);
        [&mut attn.c_attn, &mut attn.c_proj, &mut mlp.c_fc, &mut mlp.c_proj]
    }
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
        self.forward_behind(false, x, seq, by, cache)
    }

    /// [`Self::forward`], told whether `x` is what the block in front gave and nothing else reads.
    pub(crate) fn forward_behind(
        &self,
        follows_block: bool,
        x: Tensor<B, 2>,
        seq: usize,
        by: Computation,
        cache: Option<&mut LayerCache<B>>,
    ) -> Tensor<B, 2> {
        if cache.is_some() || !self.is_one_operation(by.operations, B::ad_enabled(&x.device())) {
            let by = Computation {
                precision: B::plain_precision(by.precision),
                ..by
            };
            let mixed = self.attn.forward(self.ln_1.forward(x.clone(), by), seq, by, cache);
            let x = x + self.resid_dropout.forward(widen(mixed));
            let fed = self.mlp.forward(self.ln_2.forward(x.clone(), by), by.operations);
            return x + self.resid_dropout.forward(widen(fed));
        }
        let shape = BlockShape {
            seq,
            n_head: self.attn.n_head,
            precision: by.precision,
            recompute: by.recompute,
            follows_block,
        };
        let operands = self.products().map(|product| product.operand_in(by.precision));
        block(x, self.primitives(), operands, shape)
    }

    /// [`Self::forward`] of one position of each sequence, by kernels for it.
    ///
    /// # Shapes
    /// `x` and the result are `[B, C]`, in `f32`.
    pub(crate) fn decode(
        &self,
        kernels: &DecodeKernels<B>,
        x: Tensor<B, 2>,
        precision: Precision,
        cache: &mut LayerCache<B>,
    ) -> Tensor<B, 2> {
        let [batch, width] = x.dims();
        let heads = self.attn.n_head;
        let new = [batch, heads, 1, width / heads];
        let shape = DecodeShape {
            past: cache.len(),
            precision,
        };
        let held = cache.take(new, B::operand_type(precision).into(), &x.device());
        let operands = self
            .products()
            .map(|product| product.operand_in(precision).map(primitive));
        let weights = self.primitives().with_operands(operands);
        let (x, held) = (kernels.block)(primitive(x), weights, held.map(primitive), shape);
        cache.give_back(held.map(tensor), 1);
        tensor(x)
    }

    /// Its parameters, for kernels.
    fn primitives(&self) -> BlockWeights<FloatTensor<B>> {
        BlockWeights {
            ln_1: self.ln_1.primitives(),
            qkv: self.attn.c_attn.primitives(),
            attention_out: self.attn.c_proj.primitives(),
            ln_2: self.ln_2.primitives(),
            feed_in: self.mlp.c_fc.primitives(),
            feed_out: self.mlp.c_proj.primitives(),
        }
    }

    /// Whether kernels compute the block as one.
    pub(crate) fn is_one_operation(&self, operations: Operations, is_training: bool) -> bool {
        let dropouts = [&self.resid_dropout, &self.attn.attn_dropout];
        let drops = is_training && dropouts.iter().any(|dropout| dropout.prob > 0.0);
        let has_kernels = self.mlp.activation == Activation::GeluTanh && !self.attn.scales_queries();
        operations == Operations::Kernels && has_kernels && !drops
    }
}
