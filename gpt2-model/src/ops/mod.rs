//! Operations that a backend may compute in its own way.
//!
//! [`Gpt2Backend`] extends [`Backend`]; its default methods are the reference, written in plain tensors and always
//! compiled. A backend that can do better overrides them; the derivative lives in one place, for `Autodiff`.

mod affine;
mod attention;
mod autodiff;
mod block;
mod classifier;
#[cfg(feature = "cuda")]
mod cuda;
mod embedding;
mod feed_forward;
mod gelu;
#[cfg(feature = "host")]
#[expect(clippy::needless_pass_by_value, reason = "views of arrays are handles")]
mod host;
mod layer_norm;
pub mod training;
#[cfg(feature = "wgpu")]
mod wgpu;

#[cfg(feature = "cuda")]
pub use cuda::Cuda;
#[cfg(feature = "cuda")]
pub use gpt2_kernels::compiled as compiled_kernels;
#[cfg(feature = "host")]
pub use host::{HostTensor, multiplies_bf16 as cpu_multiplies_bf16};

#[cfg(feature = "wgpu")]
pub use wgpu::Wgpu;

use crate::precision::Precision;
use crate::recompute::Recompute;
use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{FloatDType, Int, Tensor, TensorMetadata, TensorPrimitive};

/// What the classifier needs to know beside its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassifierShape {
    /// Tokens; rows of the embedding past it take no part.
    pub vocab_size: usize,
    /// The type of the products.
    pub precision: Precision,
}

/// The classifier's loss and its derivatives.
#[derive(Debug, Clone)]
pub struct ClassifierGradients<B: Backend> {
    /// Mean cross-entropy in nats, `[1]`.
    pub loss: FloatTensor<B>,
    /// Of the loss by the hidden states, `[N, C]`, in their type.
    pub hidden: FloatTensor<B>,
    /// Of the loss by the embedding, `[Vp, C]`, `f32`.
    pub wte: FloatTensor<B>,
}

/// The derivatives of [`Gpt2Backend::affine`].
#[derive(Debug, Clone, Copy)]
pub struct AffineGradients<T> {
    /// By the input, `[N, in]`.
    pub x: T,
    /// By the weights, `[in, out]`, in `f32`.
    pub w: T,
    /// By the bias, `[out]`, in `f32`.
    pub bias: T,
}

/// What LayerNorm gives.
#[derive(Debug, Clone, Copy)]
pub struct Normalised<T> {
    /// The normalised rows, scaled and shifted, `[N, C]`.
    pub out: T,
    /// Each row's mean and the reciprocal of its deviation, `[N]` each, for a derivative that does not compute them anew.
    pub statistics: Option<[T; 2]>,
}

/// The derivatives of [`Gpt2Backend::normalise_rows`].
#[derive(Debug, Clone, Copy)]
pub struct LayerNormGradients<T> {
    /// By the input, `[N, C]`.
    pub x: T,
    /// By the gain, `[C]`.
    pub weight: T,
    /// By the offset, `[C]`.
    pub bias: T,
}

/// What attention gives.
#[derive(Debug, Clone, Copy)]
pub struct Attended<T> {
    /// The mixed values, `[B, T, C]`.
    pub out: T,
    /// For each row of scores the logarithm of the sum of their exponentials, `[B, H, T]`, `f32`: the derivative
    /// computes the attention weights anew from it.
    pub log_sum: T,
}

/// The derivatives of a block's feed-forward half by its parameters.
#[derive(Debug, Clone, Copy)]
pub struct FeedForwardGradients<T> {
    /// `[C, 4C]`.
    pub w_in: T,
    /// `[4C]`.
    pub bias_in: T,
    /// `[4C, C]`.
    pub w_out: T,
    /// `[C]`.
    pub bias_out: T,
}

/// The parameters of a block, or their derivatives: of LayerNorms gain and offset, `[C]`, of products weights and bias.
#[derive(Debug, Clone)]
pub struct BlockWeights<T> {
    /// Before the attention.
    pub ln_1: [T; 2],
    /// Query, key and value, `[C, 3C]`.
    pub qkv: [T; 2],
    /// After the attention, `[C, C]`.
    pub attention_out: [T; 2],
    /// Before the feed-forward half.
    pub ln_2: [T; 2],
    /// `[C, 4C]`.
    pub feed_in: [T; 2],
    /// `[4C, C]`.
    pub feed_out: [T; 2],
}

impl<T> BlockWeights<T> {
    /// `change` of each.
    pub(crate) fn map<U>(self, change: impl Fn(T) -> U) -> BlockWeights<U> {
        BlockWeights {
            ln_1: self.ln_1.map(&change),
            qkv: self.qkv.map(&change),
            attention_out: self.attention_out.map(&change),
            ln_2: self.ln_2.map(&change),
            feed_in: self.feed_in.map(&change),
            feed_out: self.feed_out.map(&change),
        }
    }

    /// All twelve, in the order of the fields.
    pub(crate) fn into_iter(self) -> impl Iterator<Item = T> {
        let Self {
            ln_1,
            qkv,
            attention_out,
            ln_2,
            feed_in,
            feed_out,
        } = self;
        [ln_1, qkv, attention_out, ln_2, feed_in, feed_out]
            .into_iter()
            .flatten()
    }
}

/// What a block needs to know beside its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockShape {
    /// T, the tokens of a sequence.
    pub seq: usize,
    /// Attention heads.
    pub n_head: usize,
    /// The type of the products.
    pub precision: Precision,
    /// What is not kept for the backward pass.
    pub recompute: Recompute,
}

/// A backend that can train a GPT-2.
///
/// Parameters, their derivatives and the residual stream are `f32`. Where an operation multiplies matrices, its input `x`
/// has the type of the product, and so have its result and its derivative by `x`; weights are rounded to that type.
pub trait Gpt2Backend: Backend {
    /// What comes nearest to `precision` where Burn's own operations compute, through which generation goes. They cannot be
    /// asked for TF32.
    fn plain_precision(precision: Precision) -> Precision {
        match precision {
            Precision::Tf32 => Precision::F32,
            other => other,
        }
    }

    /// Whether [`affine`](Self::affine) and its relatives multiply `x` by `w` with a kernel; else the reference does.
    fn supports_matmul(_x: &FloatTensor<Self>, _w: &FloatTensor<Self>) -> bool {
        false
    }

    /// Whether [`normalise_rows`](Self::normalise_rows) takes `x` with a kernel; else the reference does.
    fn supports_layer_norm(_x: &FloatTensor<Self>, _precision: Precision) -> bool {
        false
    }

    /// Whether [`causal_attention`](Self::causal_attention) takes `qkv` with a kernel; else the reference does.
    fn supports_attention(_qkv: &FloatTensor<Self>, _n_head: usize) -> bool {
        false
    }

    /// `hidden · wteᵀ`, where the logits themselves are asked for.
    ///
    /// # Shapes
    /// `hidden` is `[N, C]` and `wte` `[Vp, C]`, of one type; the result `[N, Vp]`.
    fn logits(hidden: FloatTensor<Self>, wte: FloatTensor<Self>) -> FloatTensor<Self> {
        classifier::logits::<Self>(hidden, wte)
    }

    /// Mean cross-entropy of `targets` under `softmax(hidden · wteᵀ)`, computed in chunks of rows so that the logits never
    /// stand in memory at once.
    ///
    /// # Shapes
    /// `hidden` is `[N, C]` and `wte` `[Vp, C]`; `targets` is `[N]`; the result `[1]`, in `f32`.
    fn classifier_loss(
        hidden: FloatTensor<Self>,
        wte: FloatTensor<Self>,
        targets: IntTensor<Self>,
        shape: ClassifierShape,
    ) -> FloatTensor<Self> {
        classifier::loss::<Self>(hidden, wte, targets, shape)
    }

    /// The same loss with its derivatives, which cost two more products a chunk and no second softmax.
    fn classifier_gradients(
        hidden: FloatTensor<Self>,
        wte: FloatTensor<Self>,
        targets: IntTensor<Self>,
        shape: ClassifierShape,
    ) -> ClassifierGradients<Self> {
        classifier::gradients::<Self>(hidden, wte, targets, shape)
    }

    /// The sum of a token's and its position's vector; the first position is `past`.
    ///
    /// # Shapes
    /// `wte` is `[Vp, C]`, `wpe` `[positions, C]`, `tokens` `[B, T]`; the result `[B, T, C]`.
    fn embed(
        wte: FloatTensor<Self>,
        wpe: FloatTensor<Self>,
        tokens: IntTensor<Self>,
        past: usize,
    ) -> FloatTensor<Self> {
        embedding::value::<Self>(wte, wpe, tokens, past)
    }

    /// The derivatives of [`Gpt2Backend::embed`] by both tables, times `upstream`; the one by `wte` on top of `sum` where there
    /// is one.
    ///
    /// # Shapes
    /// `tables` are `wte` and `wpe`; `upstream` is `[B, T, C]`; `sum` and the results have the tables' shapes.
    fn embed_backward(
        tables: [FloatTensor<Self>; 2],
        tokens: IntTensor<Self>,
        past: usize,
        upstream: FloatTensor<Self>,
        sum: Option<FloatTensor<Self>>,
    ) -> [FloatTensor<Self>; 2] {
        let [wte, wpe] = tables;
        let by_wpe = embedding::by_positions::<Self>(&wpe, upstream.clone(), past);
        [embedding::by_tokens::<Self>(wte, tokens, upstream, sum), by_wpe]
    }

    /// Weights in the type of the product that they are for, or as they are where the product itself rounds them.
    fn round_weights(w: FloatTensor<Self>, dtype: FloatDType) -> FloatTensor<Self> {
        Self::float_cast(w, dtype)
    }

    /// `tensor` times `factor`, which has one element, in the type of `tensor`.
    fn scale(tensor: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        scaled::<Self>(tensor, factor)
    }

    /// `x·w + bias`.
    ///
    /// # Shapes
    /// `x` is `[N, in]`, `w` `[in, out]`, `bias` `[out]`; the result `[N, out]`.
    fn affine(x: FloatTensor<Self>, w: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        affine::value::<Self>(x, w, bias)
    }

    /// `residual + x·w + bias`, in the residual's type.
    ///
    /// # Shapes
    /// `x` is `[N, in]`, `w` `[in, out]`, `bias` `[out]`; `residual` and the result `[N, out]`.
    fn affine_onto(
        residual: FloatTensor<Self>,
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        affine::onto::<Self>(residual, x, w, bias)
    }

    /// The derivatives of [`Gpt2Backend::affine`] and of [`Gpt2Backend::affine_onto`], times `upstream`.
    ///
    /// # Shapes
    /// `upstream` is `[N, out]`, of whichever type the result had.
    fn affine_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        upstream: FloatTensor<Self>,
    ) -> AffineGradients<FloatTensor<Self>> {
        affine::derivatives::<Self>(x, w, upstream)
    }

    /// `h = x·w + bias`, and GELU of `h`.
    ///
    /// # Shapes
    /// `x` is `[N, in]`, `w` `[in, out]`, `bias` `[out]`; the results `[N, out]`.
    fn affine_gelu(x: FloatTensor<Self>, w: FloatTensor<Self>, bias: FloatTensor<Self>) -> [FloatTensor<Self>; 2] {
        affine::with_gelu::<Self>(x, w, bias)
    }

    /// The derivatives of the feed-forward half of a block, `residual + gelu(x·w_in + bias_in)·w_out + bias_out`, by `x` and by
    /// the parameters, times `upstream`. GELU's output is computed anew where it is not given.
    ///
    /// # Shapes
    /// `x` and the derivative by it are `[N, C]`, `weights` `w_in` and `w_out`; `inner` is GELU's input, `[N, 4C]`, and
    /// `activated` its output; `upstream` is `[N, C]`, in `f32`.
    fn feed_forward_backward(
        x: FloatTensor<Self>,
        weights: [FloatTensor<Self>; 2],
        inner: FloatTensor<Self>,
        activated: Option<FloatTensor<Self>>,
        upstream: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FeedForwardGradients<FloatTensor<Self>>) {
        feed_forward::derivatives::<Self>(x, weights, inner, activated, upstream)
    }

    /// A transformer block: attention and the feed-forward half, each behind a LayerNorm and added to the residual stream.
    ///
    /// # Shapes
    /// `x` and the result are `[N, C]`, in `f32`.
    fn block(x: FloatTensor<Self>, weights: BlockWeights<FloatTensor<Self>>, shape: BlockShape) -> FloatTensor<Self> {
        block::value::<Self>(x, &weights, shape).0
    }

    /// Each row normalised to mean 0 and variance 1, times `weight`, plus `bias`, rounded to `precision`.
    ///
    /// # Shapes
    /// `x` is `[N, C]`, `weight` and `bias` `[C]`, all in `f32`; the result `[N, C]`.
    fn normalise_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        precision: Precision,
    ) -> Normalised<FloatTensor<Self>> {
        layer_norm::value::<Self>(x, weight, bias, precision)
    }

    /// The derivatives of [`Gpt2Backend::normalise_rows`], times `upstream`; the one by `x` on top of `sum` where there is
    /// one.
    ///
    /// # Shapes
    /// `upstream` is `[N, C]`, of the result's type; `sum` `[N, C]`, in `f32`.
    fn normalise_rows_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        statistics: Option<[FloatTensor<Self>; 2]>,
        upstream: FloatTensor<Self>,
        sum: Option<FloatTensor<Self>>,
    ) -> LayerNormGradients<FloatTensor<Self>> {
        let _ = statistics;
        layer_norm::derivatives::<Self>(x, weight, upstream, sum)
    }

    /// Causal attention of `n_head` heads: every position attends to itself and those before it.
    ///
    /// # Shapes
    /// `qkv` is `[B, T, 3C]`: query, key and value side by side, each with its heads one after the other.
    fn causal_attention(qkv: FloatTensor<Self>, n_head: usize) -> Attended<FloatTensor<Self>> {
        attention::value::<Self>(qkv, n_head)
    }

    /// The derivative of [`Gpt2Backend::causal_attention`] by `qkv`, times `upstream`.
    ///
    /// # Shapes
    /// `upstream` is `[B, T, C]`; the result `[B, T, 3C]`.
    fn causal_attention_backward(
        qkv: FloatTensor<Self>,
        _attended: Attended<FloatTensor<Self>>,
        upstream: FloatTensor<Self>,
        n_head: usize,
    ) -> FloatTensor<Self> {
        attention::derivative::<Self>(qkv, upstream, n_head)
    }

    /// GELU in GPT-2's tanh form, element by element.
    fn tanh_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::value::<Self>(x)
    }

    /// The derivative of [`Gpt2Backend::tanh_gelu`] at `x`, times `upstream`.
    fn tanh_gelu_backward(x: FloatTensor<Self>, upstream: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::derivative::<Self>(x, upstream)
    }
}

fn scaled<B: Backend>(tensor: FloatTensor<B>, factor: FloatTensor<B>) -> FloatTensor<B> {
    let ones = vec![1; tensor.shape().num_dims()];
    let factor = B::float_cast(factor, tensor.dtype().into());
    B::float_mul(tensor, B::float_reshape(factor, ones.into()))
}

/// [`Gpt2Backend::logits`] on tensors.
///
/// # Shapes
/// `hidden` is `[N, C]`, `wte` `[Vp, C]`; the result `[N, Vp]`.
pub fn logits<B: Gpt2Backend>(hidden: Tensor<B, 2>, wte: Tensor<B, 2>) -> Tensor<B, 2> {
    tensor(B::logits(primitive(hidden), primitive(wte)))
}

/// [`Gpt2Backend::classifier_loss`] on tensors.
///
/// # Shapes
/// `hidden` is `[N, C]`, `wte` `[Vp, C]`, `targets` `[N]`; the result `[1]`.
pub fn classifier_loss<B: Gpt2Backend>(
    hidden: Tensor<B, 2>,
    wte: Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    shape: ClassifierShape,
) -> Tensor<B, 1> {
    tensor(B::classifier_loss(
        primitive(hidden),
        primitive(wte),
        targets.into_primitive(),
        shape,
    ))
}

/// [`Gpt2Backend::tanh_gelu`] on tensors.
pub fn gelu<B: Gpt2Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    tensor(B::tanh_gelu(primitive(x)))
}

/// [`Gpt2Backend::affine`] on tensors.
///
/// # Shapes
/// `x` is `[N, in]`, `w` `[in, out]`, `bias` `[out]`; the result `[N, out]`.
pub fn affine<B: Gpt2Backend>(x: Tensor<B, 2>, w: Tensor<B, 2>, bias: Tensor<B, 1>) -> Tensor<B, 2> {
    tensor(B::affine(primitive(x), primitive(w), primitive(bias)))
}

/// [`Gpt2Backend::block`] on tensors.
///
/// # Shapes
/// `x` and the result are `[B · T, C]`, in `f32`.
pub fn block<B: Gpt2Backend>(
    x: Tensor<B, 2>,
    weights: BlockWeights<FloatTensor<B>>,
    shape: BlockShape,
) -> Tensor<B, 2> {
    tensor(B::block(primitive(x), weights, shape))
}

/// [`Gpt2Backend::embed`] on tensors.
///
/// # Shapes
/// `wte` is `[Vp, C]`, `wpe` `[positions, C]`, `tokens` `[B, T]`; the result `[B, T, C]`.
pub fn embed<B: Gpt2Backend>(
    wte: Tensor<B, 2>,
    wpe: Tensor<B, 2>,
    tokens: Tensor<B, 2, Int>,
    past: usize,
) -> Tensor<B, 3> {
    tensor(B::embed(primitive(wte), primitive(wpe), tokens.into_primitive(), past))
}

/// [`Gpt2Backend::normalise_rows`] on tensors.
///
/// # Shapes
/// `x` is `[N, C]`, `weight` and `bias` `[C]`; the result `[N, C]`, in the type of `precision`.
pub fn layer_norm<B: Gpt2Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    bias: Tensor<B, 1>,
    precision: Precision,
) -> Tensor<B, 2> {
    tensor(B::normalise_rows(primitive(x), primitive(weight), primitive(bias), precision).out)
}

/// [`Gpt2Backend::causal_attention`] on tensors.
///
/// # Shapes
/// `qkv` is `[B, T, 3C]`; the result `[B, T, C]`.
pub fn attention<B: Gpt2Backend>(qkv: Tensor<B, 3>, n_head: usize) -> Tensor<B, 3> {
    tensor(B::causal_attention(primitive(qkv), n_head).out)
}

fn primitive<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

fn tensor<B: Backend, const D: usize>(primitive: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}
