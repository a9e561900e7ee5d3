//! The feed-forward half of a block.

use crate::layers::Linear;
use crate::precision::Precision;
use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::f64::consts::FRAC_2_PI;

/// Two products with a GELU between them; the middle is four times as wide.
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    /// `[C, 4C]`.
    pub c_fc: Linear<B>,
    /// `[4C, C]`.
    pub c_proj: Linear<B>,
}

impl<B: Backend> Mlp<B> {
    /// # Shapes
    /// `x` and the result are `[B, T, C]`.
    pub fn forward(&self, x: Tensor<B, 3>, precision: Precision) -> Tensor<B, 3> {
        self.c_proj.forward(gelu(self.c_fc.forward(x, precision)), precision)
    }
}

/// GELU in GPT-2's tanh form (Hendrycks & Gimpel 2016, section 2):
/// `0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`.
fn gelu<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 3> {
    let inner = (x.clone() + x.clone().powi_scalar(3) * 0.044_715) * FRAC_2_PI.sqrt();
    x * (inner.tanh() + 1.0) * 0.5
}
