//! AdamW's update, which a backend may do in passes of its own.

use super::AdamWConfig;
use burn::tensor::ops::FloatTensor;
use gpt2_model::ops::Gpt2Backend;

/// The numbers of an update, the same for every element of a parameter (Loshchilov & Hutter 2019, algorithm 2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdateRule {
    /// Multiplies the gradient: the mean over micro-steps, and the clip.
    pub grad_scale: f64,
    /// Decay of the gradient's running mean.
    pub beta1: f64,
    /// Decay of the squared gradient's running mean.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Divides the root of the squared mean: `√(1 − β₂ᵗ)`.
    pub square_correction: f64,
    /// Multiplies the quotient of the moments: `lr / (1 − β₁ᵗ)`.
    pub step_size: f64,
    /// Multiplies the parameters that decay: `1 − lr·weight decay`.
    pub decay: f64,
}

impl UpdateRule {
    /// The rule of update number `step`, counted from 1.
    pub fn new(config: &AdamWConfig, lr: f64, grad_scale: f64, step: u64) -> Self {
        let power = i32::try_from(step).unwrap_or(i32::MAX);
        Self {
            grad_scale,
            beta1: config.beta1,
            beta2: config.beta2,
            eps: config.eps,
            square_correction: (1.0 - config.beta2.powi(power)).sqrt(),
            step_size: lr / (1.0 - config.beta1.powi(power)),
            decay: 1.0 - lr * config.weight_decay,
        }
    }

    /// What multiplies a parameter that `decays`, or does not.
    pub fn shrink(&self, decays: bool) -> f64 {
        if decays { self.decay } else { 1.0 }
    }
}

/// A parameter that is to be updated, with what that takes; all tensors have its shape.
#[derive(Debug)]
pub struct Pending<T> {
    /// The parameter.
    pub parameter: T,
    /// Its gradient.
    pub gradient: T,
    /// The gradient's running mean.
    pub mean: T,
    /// The squared gradient's running mean.
    pub square: T,
    /// Whether weight decay shrinks it.
    pub decays: bool,
}

/// What an update gives, each in the parameter's shape.
#[derive(Debug)]
pub struct Updated<T> {
    /// The parameter.
    pub parameter: T,
    /// The gradient's running mean.
    pub mean: T,
    /// The squared gradient's running mean.
    pub square: T,
}

/// A backend on which parameters are updated. The default is the reference, in plain tensors.
pub trait TrainingBackend: Gpt2Backend {
    /// One AdamW update of each parameter.
    fn adamw(pending: Vec<Pending<FloatTensor<Self>>>, rule: &UpdateRule) -> Vec<Updated<FloatTensor<Self>>> {
        let update = |pending| reference::<Self>(pending, rule);
        pending.into_iter().map(update).collect()
    }

    /// Whether memory is from now on taken in pieces of exactly the sizes that are asked for, and each kept for the next of
    /// its size. A training step asks for the same sizes each time; generation for ever new ones.
    fn keep_memory_by_size(_device: &Self::Device, _on: bool) {}

    /// The sum of the squares of all elements of `tensors`.
    ///
    /// # Shapes
    /// The result is `[1]`.
    fn squared_norm(tensors: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
        reference_squared_norm::<Self>(tensors)
    }
}

pub(super) fn reference_squared_norm<B: Gpt2Backend>(tensors: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    let square_sum = |tensor: FloatTensor<B>| B::float_sum(B::float_mul(tensor.clone(), tensor));
    let sums = tensors.into_iter().map(square_sum).collect();
    B::float_sum(B::float_cat(sums, 0))
}

pub(super) fn reference<B: Gpt2Backend>(
    pending: Pending<FloatTensor<B>>,
    rule: &UpdateRule,
) -> Updated<FloatTensor<B>> {
    let Pending {
        parameter,
        gradient,
        mean,
        square,
        decays,
    } = pending;
    let scaled = |tensor, factor: f64| B::float_mul_scalar(tensor, factor.into());
    let gradient = scaled(gradient, rule.grad_scale);
    let gradient_square = B::float_mul(gradient.clone(), gradient.clone());
    let mean = B::float_add(scaled(mean, rule.beta1), scaled(gradient, 1.0 - rule.beta1));
    let square = B::float_add(scaled(square, rule.beta2), scaled(gradient_square, 1.0 - rule.beta2));
    let root = scaled(B::float_sqrt(square.clone()), 1.0 / rule.square_correction);
    let change = B::float_div(mean.clone(), B::float_add_scalar(root, rule.eps.into()));
    let parameter = B::float_sub(scaled(parameter, rule.shrink(decays)), scaled(change, rule.step_size));
    Updated {
        parameter,
        mean,
        square,
    }
}
