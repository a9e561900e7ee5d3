//! AdamW's update, which a backend may do in passes of its own.

use super::AdamWConfig;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, Tensor, TensorPrimitive};
use gpt2_model::ops::Gpt2Backend;
use std::fmt::{self, Debug, Formatter};

/// `clip_coef = max_norm / (norm + 1e-6)`, as PyTorch's `clip_grad_norm_` has it.
pub(super) const CLIP_EPS: f64 = 1e-6;

/// How the gradients of a step become those of its update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// The largest global norm; 0 for any.
    pub max_norm: f64,
    /// Micro-steps whose gradients were added up.
    pub micro_steps: f64,
}

impl Clip {
    /// What multiplies the sum of the gradients, given the sum of the losses and the square of the gradients' norm: the mean over
    /// micro-steps, clipped. 0, which no other factor is, if one of the two is not finite.
    pub fn scale(&self, loss: f64, squared_norm: f64) -> f64 {
        if !(loss.is_finite() && squared_norm.is_finite()) {
            return 0.0;
        }
        let norm = squared_norm.sqrt() / self.micro_steps;
        let clip = if self.max_norm > 0.0 {
            (self.max_norm / (norm + CLIP_EPS)).min(1.0)
        } else {
            1.0
        };
        clip / self.micro_steps
    }
}

/// The numbers of an update, the same for every element of a parameter (Loshchilov & Hutter 2019, algorithm 2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UpdateRule {
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
    pub fn new(config: &AdamWConfig, lr: f64, step: u64) -> Self {
        let power = i32::try_from(step).unwrap_or(i32::MAX);
        Self {
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

/// Numbers on their way from a device to the host.
pub struct Arrival(Box<dyn FnOnce() -> Vec<f32>>);

impl Arrival {
    /// Numbers that `wait` waits for.
    pub fn new(wait: impl FnOnce() -> Vec<f32> + 'static) -> Self {
        Self(Box::new(wait))
    }

    /// The numbers, when they are there.
    pub fn wait(self) -> Vec<f32> {
        (self.0)()
    }
}

impl Debug for Arrival {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("Arrival")
    }
}

/// A backend on which parameters are updated. The default is the reference, in plain tensors.
pub trait TrainingBackend: Gpt2Backend {
    /// Whether a step is queued before the numbers of the one before have arrived, so that the device is never without work.
    const QUEUES_AHEAD: bool = false;

    /// One AdamW update of each parameter, with all gradients multiplied by `scale`, `[1]`. If that is 0, everything stays as
    /// it is.
    fn adamw(
        pending: Vec<Pending<FloatTensor<Self>>>,
        rule: &UpdateRule,
        scale: FloatTensor<Self>,
    ) -> Vec<Updated<FloatTensor<Self>>> {
        let scale = number::<Self>(scale);
        let update = |pending| reference::<Self>(pending, rule, scale);
        pending.into_iter().map(update).collect()
    }

    /// [`Clip::scale`] on the device; 0 also where `before`, that of the step before, is: after a step that went wrong nothing
    /// is updated any more.
    ///
    /// # Shapes
    /// All are `[1]`.
    fn gradient_scale(
        loss: FloatTensor<Self>,
        squared_norm: FloatTensor<Self>,
        before: Option<FloatTensor<Self>>,
        clip: &Clip,
    ) -> FloatTensor<Self> {
        let device = Self::float_device(&loss);
        let stopped = before.is_some_and(|before| number::<Self>(before) == 0.0);
        let scale = clip.scale(number::<Self>(loss), number::<Self>(squared_norm));
        let scale = Tensor::<Self, 1>::from_floats([if stopped { 0.0 } else { scale as f32 }], &device);
        scale.into_primitive().tensor()
    }

    /// Begins to bring the elements of `tensors`, each `[1]`, to the host. Where the backend [queues ahead](Self::QUEUES_AHEAD),
    /// what is queued later does not delay them.
    fn fetch(tensors: Vec<FloatTensor<Self>>) -> Arrival {
        let numbers = Tensor::<Self, 1>::from_primitive(TensorPrimitive::Float(Self::float_cat(tensors, 0)));
        Arrival::new(|| {
            let numbers = numbers.into_data().convert_dtype(DType::F32);
            numbers.into_vec().expect("converted to f32")
        })
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

/// The only element of `tensor`.
pub(crate) fn number<B: Gpt2Backend>(tensor: FloatTensor<B>) -> f64 {
    let tensor = Tensor::<B, 1>::from_primitive(TensorPrimitive::Float(tensor));
    let numbers: Vec<f64> = tensor
        .into_data()
        .convert_dtype(DType::F64)
        .into_vec()
        .expect("converted to f64");
    numbers[0]
}

pub(super) fn reference<B: Gpt2Backend>(
    pending: Pending<FloatTensor<B>>,
    rule: &UpdateRule,
    scale: f64,
) -> Updated<FloatTensor<B>> {
    let Pending {
        parameter,
        gradient,
        mean,
        square,
        decays,
    } = pending;
    if scale == 0.0 {
        return Updated {
            parameter,
            mean,
            square,
        };
    }
    let scaled = |tensor, factor: f64| B::float_mul_scalar(tensor, factor.into());
    let gradient = scaled(gradient, scale);
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
