//! Operations that a backend may compute in its own way.
//!
//! [`Gpt2Backend`] extends [`Backend`]; its default methods are the reference, written in plain tensors and always
//! compiled. A backend that can do better overrides them; the derivative lives in one place, for `Autodiff`.

mod autodiff;
mod backends;
mod classifier;
#[cfg(feature = "ndarray")]
mod ndarray;

use crate::precision::Precision;
use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{Int, Tensor, TensorPrimitive};

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
