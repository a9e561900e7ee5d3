//! The feed-forward half of a block.

use crate::computation::Operations;
use crate::layers::Linear;
use crate::ops::{Gpt2Backend, gelu};
use crate::variant::Activation;
use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, activation};
use std::f64::consts::FRAC_1_SQRT_2;

/// Two products with an activation function between them. I is `n_inner`, four times C as a rule.
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    /// `[C, I]`.
    pub c_fc: Linear<B>,
    /// `[I, C]`.
    pub c_proj: Linear<B>,
    /// Between them.
    #[module(skip)]
    pub activation: Activation,
}

impl<B: Gpt2Backend> Mlp<B> {
    /// # Shapes
    /// `x` and the result are `[N, C]`.
    pub fn forward(&self, x: Tensor<B, 2>, operations: Operations) -> Tensor<B, 2> {
        let inner = self.c_fc.forward(x, operations);
        let activated = match self.activation {
            Activation::GeluTanh => gelu(operations, inner),
            // Burn's own has the derivative of the tanh form.
            Activation::Gelu => inner.clone() * 0.5 * ((inner * FRAC_1_SQRT_2).erf() + 1.0),
            Activation::Relu => activation::relu(inner),
        };
        self.c_proj.forward(activated, operations)
    }
}
