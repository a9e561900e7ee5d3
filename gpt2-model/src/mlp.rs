//! The feed-forward half of a block.

use crate::computation::Operations;
use crate::layers::Linear;
use crate::ops::{Gpt2Backend, gelu};
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
    pub fn forward(&self, x: Tensor<B, 2>, operations: Operations) -> Tensor<B, 2> {
        let inner = gelu(operations, self.c_fc.forward(x, operations));
        self.c_proj.forward(inner, operations)
    }
}
