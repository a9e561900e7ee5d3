//! The three parametrised layers that GPT-2 is made of, holding Hugging Face's names and layouts.

use crate::computation::{Computation, Operations};
use crate::ops::{Gpt2Backend, affine, layer_norm, upload};
use burn::module::{Module, Param};
use burn::nn::Dropout;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;

/// A table of vectors: token or position embedding.
#[derive(Module, Debug)]
pub struct Embedding<B: Backend> {
    /// `[rows, C]`.
    pub weight: Param<Tensor<B, 2>>,
    /// As [`Linear::operand`].
    pub operand: Option<Tensor<B, 2>>,
}

impl<B: Backend> Embedding<B> {
    /// Without an operand.
    pub fn new(weight: Param<Tensor<B, 2>>) -> Self {
        Self { weight, operand: None }
    }
}

/// An affine map `y = x·W + b`, stored as GPT-2's `Conv1D` is: `W` is `[in, out]`.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// `[in, out]`.
    pub weight: Param<Tensor<B, 2>>,
    /// `[out]`.
    pub bias: Param<Tensor<B, 1>>,
    /// The weights in the type of the products, where an optimizer keeps them so; else each product rounds `weight`. No
    /// parameter: it is neither saved nor updated by itself.
    pub operand: Option<Tensor<B, 2>>,
}

impl<B: Backend> Linear<B> {
    /// Without an operand.
    pub fn new(weight: Param<Tensor<B, 2>>, bias: Param<Tensor<B, 1>>) -> Self {
        Self {
            weight,
            bias,
            operand: None,
        }
    }
}

impl<B: Gpt2Backend> Linear<B> {
    /// The product and the bias, in the type of `x`.
    ///
    /// # Shapes
    /// `x` is `[N, in]`; the result `[N, out]`.
    pub fn forward(&self, x: Tensor<B, 2>, operations: Operations) -> Tensor<B, 2> {
        affine(operations, x, self.weight.val(), self.bias.val())
    }

    /// Weights and bias, for kernels.
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
    /// Normalises each vector to mean 0 and variance 1, then scales and shifts it, and rounds it to the precision.
    ///
    /// # Shapes
    /// `x` and the result are `[N, C]`.
    pub fn forward(&self, x: Tensor<B, 2>, by: Computation) -> Tensor<B, 2> {
        layer_norm(by.operations, x, self.weight.val(), self.bias.val(), by.precision)
    }

    /// Gain and offset, for kernels.
    pub(crate) fn primitives(&self) -> [FloatTensor<B>; 2] {
        primitives(self.weight.val(), self.bias.val())
    }
}

fn primitives<B: Backend, const D: usize>(weight: Tensor<B, D>, bias: Tensor<B, 1>) -> [FloatTensor<B>; 2] {
    [weight.into_primitive().tensor(), bias.into_primitive().tensor()]
}

/// Whether `dropout` does anything to `x`.
pub(crate) fn is_active<B: Backend, const D: usize>(dropout: &Dropout, x: &Tensor<B, D>) -> bool {
    dropout.prob > 0.0 && B::ad_enabled(&x.device())
}

/// A parameter of the given values.
pub(crate) fn parameter<B: Backend, const D: usize>(
    values: Vec<f32>,
    shape: [usize; D],
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    Param::from_tensor(upload(values, shape, device))
}
