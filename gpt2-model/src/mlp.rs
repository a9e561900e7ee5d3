//! The feed-forward half of a block.

use crate::layers::Linear;
use crate::ops::{Gpt2Backend, feed_forward, gelu};
use crate::recompute::Recompute;
use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// Two products with a GELU between them; the middle is four times as wide.
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    /// `[C, 4C]`.
    pub c_fc: Linear<B>,
    /// `[4C, C]`.
    pub c_proj: Linear<B>,
}

impl<B: Gpt2Backend> Mlp<B> {
    /// # Shapes
    /// `x` and the result are `[N, C]`.
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.c_proj.forward(gelu(self.c_fc.forward(x)))
    }

    /// The same on top of `residual`, in its type.
    ///
    /// # Shapes
    /// `x`, `residual` and the result are `[N, C]`.
    pub fn forward_onto(&self, residual: Tensor<B, 2>, x: Tensor<B, 2>, recompute: Recompute) -> Tensor<B, 2> {
        let weights = [&self.c_fc, &self.c_proj].map(|linear| linear.weight.val());
        let biases = [&self.c_fc, &self.c_proj].map(|linear| linear.bias.val());
        feed_forward(residual, x, weights, biases, recompute)
    }
}
