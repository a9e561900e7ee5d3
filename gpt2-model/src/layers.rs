//! The three parametrised layers that GPT-2 is made of, holding Hugging Face's names and layouts.

use crate::ops::{Gpt2Backend, affine, layer_norm, lookup};
use crate::precision::Precision;
use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, FloatDType, Int, Tensor, TensorData};

/// A table of vectors: token or position embedding.
#[derive(Module, Debug)]
pub struct Embedding<B: Backend> {
    /// `[rows, C]`.
    pub weight: Param<Tensor<B, 2>>,
}

impl<B: Gpt2Backend> Embedding<B> {
    /// Rows of the table by index.
    ///
    /// # Shapes
    /// `indices` is `[B, T]`; the result `[B, T, C]`.
    pub fn forward(&self, indices: Tensor<B, 2, Int>) -> Tensor<B, 3> {
        lookup(self.weight.val(), indices)
    }
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
    /// The product and the bias, in `precision`; the result has that type.
    ///
    /// # Shapes
    /// `x` is `[B, T, in]`; the result `[B, T, out]`.
    pub fn forward(&self, x: Tensor<B, 3>, precision: Precision) -> Tensor<B, 3> {
        let [batch, seq, width] = x.dims();
        let weight = round(self.weight.val(), precision);
        let bias = round(self.bias.val(), precision);
        let out = weight.dims()[1];
        // One two-dimensional product: a batched one would be `batch` small products on some backends.
        let x = round(x.reshape([batch * seq, width]), precision);
        affine(x, weight, bias).reshape([batch, seq, out]) // [B, T, out]
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
    /// Normalises each vector to mean 0 and variance 1, then scales and shifts it.
    ///
    /// # Shapes
    /// `x` and the result are `[B, T, C]`.
    pub fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let [batch, seq, width] = x.dims();
        let normal = layer_norm(x.reshape([batch * seq, width]), self.weight.val(), self.bias.val());
        normal.reshape([batch, seq, width])
    }
}

/// `x` in the type of the products.
pub(crate) fn round<B: Backend, const D: usize>(x: Tensor<B, D>, precision: Precision) -> Tensor<B, D> {
    match precision {
        Precision::F32 => x,
        Precision::Bf16 if x.dtype() == DType::BF16 => x,
        Precision::Bf16 => x.cast(FloatDType::BF16),
    }
}

/// `x` in `f32`, the type of the residual stream.
pub(crate) fn widen<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    if x.dtype() == DType::BF16 {
        x.cast(FloatDType::F32)
    } else {
        x
    }
}

/// A parameter of the given values.
pub(crate) fn parameter<B: Backend, const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
}
