//! Operations that a backend may compute in its own way.
//!
//! [`Gpt2Backend`] extends [`Backend`]; its default methods are the reference, written in plain tensors and always
//! compiled. A backend that can do better overrides them; the derivative lives in one place, for `Autodiff`.

mod affine;
mod attention;
mod autodiff;
mod backends;
mod classifier;
mod gelu;
#[cfg(feature = "host")]
#[expect(clippy::needless_pass_by_value, reason = "views of arrays are handles")]
mod host;
mod layer_norm;
mod lookup;

#[cfg(feature = "host")]
pub use host::HostTensor;

use crate::precision::Precision;
use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{Int, Tensor, TensorMetadata, TensorPrimitive};

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
    /// Of the loss by the hidden states, `[N, C]`, `f32`.
    pub hidden: FloatTensor<B>,
    /// Of the loss by the embedding, `[Vp, C]`, `f32`.
    pub wte: FloatTensor<B>,
}

/// Something for each operand of [`Gpt2Backend::affine`]: whether its derivative is wanted, or the derivative.
#[derive(Debug, Clone, Copy, Default)]
pub struct AffineGradients<T> {
    /// Of the input, `[N, in]`.
    pub x: T,
    /// Of the weights, `[in, out]`.
    pub w: T,
    /// Of the bias, `[out]`.
    pub bias: T,
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

/// A backend that can train a GPT-2.
pub trait Gpt2Backend: Backend {
    /// Mean cross-entropy of `targets` under `softmax(hidden · wteᵀ)`, computed in chunks of rows so that the logits never
    /// stand in memory at once.
    ///
    /// # Shapes
    /// `hidden` is `[N, C]` and `wte` `[Vp, C]`, both `f32`; `targets` is `[N]`; the result `[1]`.
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

    /// Rows of `table` by index.
    ///
    /// # Shapes
    /// `table` is `[rows, C]`, `indices` `[B, T]`; the result `[B, T, C]`.
    fn lookup(table: FloatTensor<Self>, indices: IntTensor<Self>) -> FloatTensor<Self> {
        Self::embedding(table, indices)
    }

    /// The derivative of [`Gpt2Backend::lookup`] by the table: `upstream` added up by row, on top of `sum` where there is
    /// one.
    ///
    /// # Shapes
    /// `upstream` is `[B, T, C]`; `sum` and the result have the table's shape.
    fn lookup_backward(
        table: FloatTensor<Self>,
        indices: IntTensor<Self>,
        upstream: FloatTensor<Self>,
        sum: Option<FloatTensor<Self>>,
    ) -> FloatTensor<Self> {
        lookup::derivative::<Self>(table, indices, upstream, sum)
    }

    /// `tensor` times `factor`, which has one element.
    fn scale(tensor: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        scaled::<Self>(tensor, factor)
    }

    /// `x·w + bias`.
    ///
    /// # Shapes
    /// `x` is `[N, in]`, `w` `[in, out]`, `bias` `[out]`; the result `[N, out]`. All are of one type.
    fn affine(x: FloatTensor<Self>, w: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        affine::value::<Self>(x, w, bias)
    }

    /// The derivatives of [`Gpt2Backend::affine`], times `upstream`: those that are asked for.
    ///
    /// # Shapes
    /// `upstream` is `[N, out]`.
    fn affine_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        upstream: FloatTensor<Self>,
        wanted: AffineGradients<bool>,
    ) -> AffineGradients<Option<FloatTensor<Self>>> {
        affine::derivatives::<Self>(x, w, upstream, wanted)
    }

    /// Each row normalised to mean 0 and variance 1, times `weight`, plus `bias`. All tensors are `f32`.
    ///
    /// # Shapes
    /// `x` is `[N, C]`, `weight` and `bias` `[C]`; the result `[N, C]`.
    fn normalise_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        layer_norm::value::<Self>(x, weight, bias)
    }

    /// The derivatives of [`Gpt2Backend::normalise_rows`], times `upstream`.
    ///
    /// # Shapes
    /// `upstream` is `[N, C]`.
    fn normalise_rows_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        upstream: FloatTensor<Self>,
    ) -> LayerNormGradients<FloatTensor<Self>> {
        layer_norm::derivatives::<Self>(x, weight, upstream)
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
    B::float_mul(tensor, B::float_reshape(factor, ones.into()))
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
    let loss = B::classifier_loss(
        hidden.into_primitive().tensor(),
        wte.into_primitive().tensor(),
        targets.into_primitive(),
        shape,
    );
    Tensor::from_primitive(TensorPrimitive::Float(loss))
}

/// [`Gpt2Backend::tanh_gelu`] on tensors.
pub fn gelu<B: Gpt2Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(B::tanh_gelu(x.into_primitive().tensor())))
}

/// [`Gpt2Backend::affine`] on tensors.
///
/// # Shapes
/// `x` is `[N, in]`, `w` `[in, out]`, `bias` `[out]`; the result `[N, out]`.
pub fn affine<B: Gpt2Backend>(x: Tensor<B, 2>, w: Tensor<B, 2>, bias: Tensor<B, 1>) -> Tensor<B, 2> {
    let result = B::affine(
        x.into_primitive().tensor(),
        w.into_primitive().tensor(),
        bias.into_primitive().tensor(),
    );
    Tensor::from_primitive(TensorPrimitive::Float(result))
}

/// [`Gpt2Backend::lookup`] on tensors.
///
/// # Shapes
/// `table` is `[rows, C]`, `indices` `[B, T]`; the result `[B, T, C]`.
pub fn lookup<B: Gpt2Backend>(table: Tensor<B, 2>, indices: Tensor<B, 2, Int>) -> Tensor<B, 3> {
    let result = B::lookup(table.into_primitive().tensor(), indices.into_primitive());
    Tensor::from_primitive(TensorPrimitive::Float(result))
}

/// [`Gpt2Backend::normalise_rows`] on tensors.
///
/// # Shapes
/// `x` is `[N, C]`, `weight` and `bias` `[C]`; the result `[N, C]`.
pub fn layer_norm<B: Gpt2Backend>(x: Tensor<B, 2>, weight: Tensor<B, 1>, bias: Tensor<B, 1>) -> Tensor<B, 2> {
    let result = B::normalise_rows(
        x.into_primitive().tensor(),
        weight.into_primitive().tensor(),
        bias.into_primitive().tensor(),
    );
    Tensor::from_primitive(TensorPrimitive::Float(result))
}

/// [`Gpt2Backend::causal_attention`] on tensors.
///
/// # Shapes
/// `qkv` is `[B, T, 3C]`; the result `[B, T, C]`.
pub fn attention<B: Gpt2Backend>(qkv: Tensor<B, 3>, n_head: usize) -> Tensor<B, 3> {
    let attended = B::causal_attention(qkv.into_primitive().tensor(), n_head);
    Tensor::from_primitive(TensorPrimitive::Float(attended.out))
}
