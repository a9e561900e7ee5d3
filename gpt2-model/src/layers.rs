//! The three parametrised layers that GPT-2 is made of, holding Hugging Face's names and layouts.

use crate::ops::{Gpt2Backend, affine, layer_norm};
use crate::precision::Precision;
use burn::module::{Module, Param};
use burn::nn::Dropout;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, FloatDType, Tensor, TensorData};

/// A table of vectors: token or position embedding.
#[derive(Module, Debug)]
pub struct Embedding<B: Backend> {
    /// `[rows, C]`.
    pub weight: Param<Tensor<B, 2>>,
}

/// An affine map `y = x·W + b`, stored as GPT-2's `Conv1D` is: `W` is `[in, out]`.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// `[in, out]`.
    pub weight: Param<Tensor<B, 2>>,
    /// `[out]`.
    pub bias: Param<Tensor<B, 1>>,
}

impl<B: Gpt2Backend> Linear<B> {
    /// The product and the bias, in the type of `x`.
    ///
    /// # Shapes
    /// `x` is `[N, in]`; the result `[N, out]`.
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        affine(x, self.weight.val(), self.bias.val())
    }

    /// Weights and bias, for a block that is computed as one.
    pub(crate) fn primitives(&self) -> [FloatTensor<B>; 2] {
        primitives(self.weight.val(), self.bias.val())
    }
}

/// Layer normalisation over the last axis, in `f32` whatever the precision of the products.
#[derive(Module, Debug)]
pub struct LayerNorm<B: Backend> {
    /// Gain, `[C]`.
    pub weight: Param<Tensor<B, 1>>,
    /// Offset, `[C]`.
    pub bias: Param<Tensor<B, 1>>,
}

impl<B: Gpt2Backend> LayerNorm<B> {
    /// Normalises each vector to mean 0 and variance 1, then scales and shifts it, and rounds it to `precision`.
    ///
    /// # Shapes
    /// `x` and the result are `[N, C]`.
    pub fn forward(&self, x: Tensor<B, 2>, precision: Precision) -> Tensor<B, 2> {
        layer_norm(x, self.weight.val(), self.bias.val(), precision)
    }

    /// Gain and offset, for a block that is computed as one.
    pub(crate) fn primitives(&self) -> [FloatTensor<B>; 2] {
        primitives(self.weight.val(), self.bias.val())
    }
}

fn primitives<B: Backend, const D: usize>(weight: Tensor<B, D>, bias: Tensor<B, 1>) -> [FloatTensor<B>; 2] {
    [weight.into_primitive().tensor(), bias.into_primitive().tensor()]
}

/// `x` in the type of the products, as Burn's own take it.
pub(crate) fn round<B: Backend, const D: usize>(x: Tensor<B, D>, precision: Precision) -> Tensor<B, D> {
    match precision {
        Precision::F32 | Precision::Tf32 => x,
        Precision::Bf16 if x.dtype() == DType::BF16 => x,
        Precision::Bf16 => x.cast(FloatDType::BF16),
    }
}

/// `x` in the type of `other`.
pub(crate) fn round_like<B: Backend, const D: usize, const E: usize>(
    x: Tensor<B, D>,
    other: &Tensor<B, E>,
) -> Tensor<B, D> {
    if other.dtype() == DType::BF16 {
        round(x, Precision::Bf16)
    } else {
        x
    }
}

/// `[B, T, C]` → `[B·T, C]`.
pub(crate) fn rows<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 2> {
    let [batch, seq, width] = x.dims();
    x.reshape([batch * seq, width])
}

/// `x` in `f32`, the type of the residual stream.
pub(crate) fn widen<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    if x.dtype() == DType::BF16 {
        x.cast(FloatDType::F32)
    } else {
        x
    }
}

/// Whether `dropout` does anything to `x`.
pub(crate) fn acts<B: Backend, const D: usize>(dropout: &Dropout, x: &Tensor<B, D>) -> bool {
    dropout.prob > 0.0 && B::ad_enabled(&x.device())
}

/// A parameter of the given values.
pub(crate) fn parameter<B: Backend, const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
}
