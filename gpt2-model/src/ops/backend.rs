//! The operations that a backend may compute in its own way.

use super::block;
use super::convert;
use super::reference::{affine, attention, classifier, embedding, feed_forward, gelu, layer_norm, scale};
use super::types::{
    AffineGradients, Attended, BlockShape, BlockWeights, ClassifierGradients, ClassifierShape, DecodeKernels,
    FeedForwardGradients, GradOutput, LayerNormGradients, Normalised,
};
use crate::config::Gpt2Config;
use crate::precision::Precision;
use burn::tensor::FloatDType;
use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};

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

    /// The type of the operands of products of `precision`, by which the operations know it.
    fn operand_type(precision: Precision) -> FloatDType {
        precision.operands()
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

    /// Kernels that compute one position of a model of this shape at a time, if there are any; else generation goes
    /// operation by operation.
    fn decode_kernels(_config: &Gpt2Config) -> Option<DecodeKernels<Self>> {
        None
    }

    /// `hidden · wteᵀ`, where the logits themselves are asked for.
    ///
    /// # Shapes
    /// `hidden` is `[N, C]` and `wte` `[Vp, C]`, of one type; the result `[N, Vp]`.
    fn logits(hidden: FloatTensor<Self>, wte: FloatTensor<Self>) -> FloatTensor<Self> {
        classifier::logits::<Self>(hidden, wte)
    }

    /// Mean cross-entropy of `targets` under `softmax(hidden · wteᵀ)`, computed in chunks of rows so that the logits are
    /// never all in memory.
    ///
    /// # Shapes
    /// `hidden` is `[N, C]` and `wte` `[Vp, C]`; `operand` is `wte` in the type of the products, where that is there already;
    /// `targets` is `[N]`; the result `[1]`, in `f32`.
    fn classifier_loss(
        hidden: FloatTensor<Self>,
        wte: FloatTensor<Self>,
        operand: Option<FloatTensor<Self>>,
        targets: IntTensor<Self>,
        shape: ClassifierShape,
    ) -> FloatTensor<Self> {
        classifier::loss::<Self>(hidden, operand.unwrap_or(wte), targets, shape)
    }

    /// The cross-entropy of each of `targets`, in chunks of rows as [`Gpt2Backend::classifier_loss`] and with its memory. Its
    /// derivatives are not computed: no gradient comes from it.
    ///
    /// # Shapes
    /// `hidden` is `[N, C]` and `wte` `[Vp, C]`; `targets` is `[N]`; the result `[N]`, in `f32`.
    fn token_losses(
        hidden: FloatTensor<Self>,
        wte: FloatTensor<Self>,
        targets: IntTensor<Self>,
        shape: ClassifierShape,
    ) -> FloatTensor<Self> {
        classifier::token_losses::<Self>(hidden, wte, targets, shape)
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

    /// The derivatives of [`Gpt2Backend::embed`] by both tables, times `grad_output`; the one by `wte` on top of `sum`
    /// where there is one.
    ///
    /// # Shapes
    /// `tables` are `wte` and `wpe`; `grad_output` is `[B, T, C]`; `sum` and the results have the tables' shapes.
    fn embed_backward(
        tables: [FloatTensor<Self>; 2],
        tokens: IntTensor<Self>,
        past: usize,
        grad_output: FloatTensor<Self>,
        sum: Option<FloatTensor<Self>>,
    ) -> [FloatTensor<Self>; 2] {
        let [wte, wpe] = tables;
        let grad_wpe = embedding::by_positions::<Self>(&wpe, grad_output.clone(), past);
        [embedding::by_tokens::<Self>(wte, tokens, grad_output, sum), grad_wpe]
    }

    /// Weights in the type of the product that they are for, or as they are where the product itself rounds them.
    fn round_weights(w: FloatTensor<Self>, dtype: FloatDType) -> FloatTensor<Self> {
        Self::float_cast(w, dtype)
    }

    /// The elements of `tensor` in order, copied to the host (a host–device sync).
    fn to_host(tensor: FloatTensor<Self>) -> Vec<f32> {
        convert::to_host::<Self>(tensor)
    }

    /// `tensor` times `factor`, which has one element, in the type of `tensor`.
    fn scale(tensor: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        scale::value::<Self>(tensor, factor)
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

    /// The derivatives of [`Gpt2Backend::affine`] and of [`Gpt2Backend::affine_onto`], times `grad_output`.
    ///
    /// # Shapes
    /// `grad_output` is `[N, out]`, of whichever type the result had.
    fn affine_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        grad_output: FloatTensor<Self>,
    ) -> AffineGradients<FloatTensor<Self>> {
        affine::derivatives::<Self>(x, w, grad_output)
    }

    /// `h = x·w + bias`, and GELU of `h`.
    ///
    /// # Shapes
    /// `x` is `[N, in]`, `w` `[in, out]`, `bias` `[out]`; the results `[N, out]`.
    fn affine_gelu(x: FloatTensor<Self>, w: FloatTensor<Self>, bias: FloatTensor<Self>) -> [FloatTensor<Self>; 2] {
        affine::with_gelu::<Self>(x, w, bias)
    }

    /// The derivatives of the feed-forward half of a block, `residual + gelu(x·w_in + bias_in)·w_out + bias_out`, by `x` and by
    /// the parameters, times `grad_output`. GELU's output is recomputed where it is not given.
    ///
    /// # Shapes
    /// `x` and the derivative by it are `[N, C]`, `weights` `w_in` and `w_out`; `inner` is GELU's input, `[N, 4C]`, and
    /// `activated` its output; `grad_output` is `[N, C]`, in `f32`, and `operand` the same as a product takes it, where
    /// what made it has that.
    fn feed_forward_backward(
        x: FloatTensor<Self>,
        weights: [FloatTensor<Self>; 2],
        inner: FloatTensor<Self>,
        activated: Option<FloatTensor<Self>>,
        grad_output: FloatTensor<Self>,
        _operand: Option<GradOutput<FloatTensor<Self>>>,
    ) -> (FloatTensor<Self>, FeedForwardGradients<FloatTensor<Self>>) {
        feed_forward::derivatives::<Self>(x, weights, inner, activated, grad_output)
    }

    /// A transformer block: attention and the feed-forward half, each behind a LayerNorm and added to the residual stream.
    ///
    /// # Shapes
    /// `x` and the result are `[N, C]`, in `f32`. `operands` are the weights of the four products in the type of the products,
    /// where they are there already.
    fn block(
        x: FloatTensor<Self>,
        weights: BlockWeights<FloatTensor<Self>>,
        operands: [Option<FloatTensor<Self>>; 4],
        shape: BlockShape,
    ) -> FloatTensor<Self> {
        let weights = weights.with_operands(operands);
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

    /// The derivatives of [`Gpt2Backend::normalise_rows`], times `grad_output`; the one by `x` on top of `sum` where
    /// there is one.
    ///
    /// # Shapes
    /// `grad_output` is `[N, C]`, of the result's type; `sum` `[N, C]`, in `f32`.
    fn normalise_rows_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        statistics: Option<[FloatTensor<Self>; 2]>,
        grad_output: FloatTensor<Self>,
        sum: Option<FloatTensor<Self>>,
    ) -> LayerNormGradients<FloatTensor<Self>> {
        let _ = statistics;
        layer_norm::derivatives::<Self>(x, weight, grad_output, sum)
    }

    /// Until what it gives is dropped, the gradients of biases, gains and offsets, which are sums over rows, may be left to
    /// be computed together then. Nothing may read one before.
    fn defer_sums() -> impl Sized {}

    /// Causal attention of `n_head` heads: every position attends to itself and those before it.
    ///
    /// # Shapes
    /// `qkv` is `[B, T, 3C]`: query, key and value side by side, each with its heads one after the other.
    fn causal_attention(qkv: FloatTensor<Self>, n_head: usize) -> Attended<FloatTensor<Self>> {
        attention::value::<Self>(qkv, n_head)
    }

    /// The derivative of [`Gpt2Backend::causal_attention`] by `qkv`, times `grad_output`.
    ///
    /// # Shapes
    /// `grad_output` is `[B, T, C]`; the result `[B, T, 3C]`.
    fn causal_attention_backward(
        qkv: FloatTensor<Self>,
        _attended: Attended<FloatTensor<Self>>,
        grad_output: FloatTensor<Self>,
        n_head: usize,
    ) -> FloatTensor<Self> {
        attention::derivative::<Self>(qkv, grad_output, n_head)
    }

    /// [`Gpt2Backend::normalise_rows_backward`], and the gradient of `x` as the product in front of it takes it.
    fn normalise_rows_backward_for_product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        statistics: Option<[FloatTensor<Self>; 2]>,
        grad_output: FloatTensor<Self>,
        sum: Option<FloatTensor<Self>>,
    ) -> (LayerNormGradients<FloatTensor<Self>>, GradOutput<FloatTensor<Self>>) {
        let found = Self::normalise_rows_backward(x, weight, statistics, grad_output, sum);
        let grad_x = found.x.clone().into();
        (found, grad_x)
    }

    /// [`Gpt2Backend::affine_backward`] from what [`Gpt2Backend::normalise_rows_backward_for_product`] gave.
    fn affine_backward_from(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        grad_output: GradOutput<FloatTensor<Self>>,
    ) -> AffineGradients<FloatTensor<Self>> {
        Self::affine_backward(x, w, grad_output.value)
    }

    /// GELU in GPT-2's tanh form, element by element.
    fn tanh_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::value::<Self>(x)
    }

    /// The derivative of [`Gpt2Backend::tanh_gelu`] at `x`, times `grad_output`.
    fn tanh_gelu_backward(x: FloatTensor<Self>, grad_output: FloatTensor<Self>) -> FloatTensor<Self> {
        gelu::derivative::<Self>(x, grad_output)
    }
}
