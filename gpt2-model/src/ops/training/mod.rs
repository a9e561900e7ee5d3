//! What training asks of a backend besides the model's own operations: AdamW's update, the gradients' norm and clip, and
//! numbers read back without waiting.
//!
//! [`TrainingBackend`]'s default methods are the reference, in plain tensors.

mod collective;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "host")]
mod host;
mod timer;
#[cfg(feature = "wgpu")]
mod wgpu;

pub use collective::{Collective, CollectiveError, CollectiveLibrary};
pub use timer::{DeviceTimer, Passed, TimerError};

use super::Gpt2Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, Device, Tensor, TensorMetadata, TensorPrimitive};
use std::fmt::{self, Debug, Formatter};
use timer::WaitingTimer;

/// `clip_coef = max_norm / (norm + 1e-6)`, as PyTorch's `clip_grad_norm_` has it.
const CLIP_EPS: f64 = 1e-6;

/// How the summed gradients of a step's micro-steps become those of its update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// The largest global norm; 0 for any.
    pub max_norm: f64,
    /// Micro-steps whose gradients were added up.
    pub micro_steps: f64,
}

impl Clip {
    /// What multiplies the sum of the gradients, given the sum of the losses and the square of the gradients' norm: the mean
    /// over micro-steps, clipped. 0, which no other factor is, if one of the two is not finite.
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

/// The numbers of one AdamW update, the same for every element of a parameter (Loshchilov & Hutter 2019, algorithm 2).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Decay of the gradient's running mean.
    pub beta1: f64,
    /// Decay of the squared gradient's running mean.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Divides the root of the squared gradient's running mean: `√(1 − β₂ᵗ)`.
    pub bias_correction2_sqrt: f64,
    /// Multiplies the quotient of the moments: `lr / (1 − β₁ᵗ)`.
    pub step_size: f64,
    /// Multiplies the parameters that have weight decay: `1 − lr·weight decay`.
    pub decay_factor: f64,
}

impl AdamWStep {
    /// What multiplies a parameter before its update: 1 without weight decay.
    pub fn decay_of(&self, has_weight_decay: bool) -> f64 {
        if has_weight_decay { self.decay_factor } else { 1.0 }
    }
}

/// A parameter that is to be updated, with what that takes; all tensors have its shape.
#[derive(Debug)]
pub struct AdamWInput<T> {
    /// The parameter.
    pub parameter: T,
    /// Its gradient.
    pub grad: T,
    /// The gradient's running mean.
    pub exp_avg: T,
    /// The squared gradient's running mean.
    pub exp_avg_sq: T,
    /// The parameter in the type of the products, where it is kept so.
    pub operand: Option<T>,
    /// Whether weight decay shrinks it.
    pub has_weight_decay: bool,
}

/// What an update gives, each in the parameter's shape.
#[derive(Debug)]
pub struct AdamWOutput<T> {
    /// The parameter.
    pub parameter: T,
    /// The gradient's running mean.
    pub exp_avg: T,
    /// The squared gradient's running mean.
    pub exp_avg_sq: T,
    /// The parameter in the type of the products, where it is kept so.
    pub operand: Option<T>,
}

impl<T> From<AdamWInput<T>> for AdamWOutput<T> {
    /// The tensors as they are: what a backend gives that has updated them in place.
    fn from(input: AdamWInput<T>) -> Self {
        Self {
            parameter: input.parameter,
            exp_avg: input.exp_avg,
            exp_avg_sq: input.exp_avg_sq,
            operand: input.operand,
        }
    }
}

/// Numbers on their way from a device to the host.
pub struct Readback(Box<dyn FnOnce() -> Vec<f32>>);

impl Readback {
    /// Numbers that `wait` waits for.
    pub fn new(wait: impl FnOnce() -> Vec<f32> + 'static) -> Self {
        Self(Box::new(wait))
    }

    /// Waits for the numbers (a host–device sync).
    pub fn wait(self) -> Vec<f32> {
        (self.0)()
    }
}

impl Debug for Readback {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str("Readback")
    }
}

/// What sums over processes on the devices of `B`.
pub type Collectives<B> = Box<dyn CollectiveLibrary<FloatTensor<B>, Device<B>>>;

/// A backend on which parameters are updated. The default is the reference, in plain tensors.
pub trait TrainingBackend: Gpt2Backend {
    /// Whether a step is queued before the numbers of the one before have arrived, so that the device is never without work.
    const PIPELINES_STEPS: bool = false;

    /// Whether an update writes parameters in the type of the products too, so that no forward pass rounds them.
    const KEEPS_OPERANDS: bool = false;

    /// One AdamW update of each parameter, with all gradients multiplied by `scale`, `[1]`. If that is 0, everything stays as
    /// it is.
    fn adamw(
        inputs: Vec<AdamWInput<FloatTensor<Self>>>,
        step: &AdamWStep,
        scale: FloatTensor<Self>,
    ) -> Vec<AdamWOutput<FloatTensor<Self>>> {
        let scale = scalar::<Self>(scale);
        let update = |input| reference_adamw::<Self>(input, step, scale);
        inputs.into_iter().map(update).collect()
    }

    /// Adds each of `gradients` to the one of `sums` of the same shape.
    fn add_gradients(sums: Vec<FloatTensor<Self>>, gradients: Vec<FloatTensor<Self>>) -> Vec<FloatTensor<Self>> {
        let pairs = sums.into_iter().zip(gradients);
        pairs.map(|(sum, gradient)| Self::float_add(sum, gradient)).collect()
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
        let stopped = before.is_some_and(|before| scalar::<Self>(before) == 0.0);
        let scale = clip.scale(scalar::<Self>(loss), scalar::<Self>(squared_norm));
        let scale = Tensor::<Self, 1>::from_floats([if stopped { 0.0 } else { scale as f32 }], &device);
        scale.into_primitive().tensor()
    }

    /// Begins to copy the elements of `tensors`, one after the other, to the host. Where the backend
    /// [pipelines steps](Self::PIPELINES_STEPS), what is queued later does not delay them.
    fn read_async(tensors: Vec<FloatTensor<Self>>) -> Readback {
        let numbers = Tensor::<Self, 1>::from_primitive(TensorPrimitive::Float(Self::float_cat(tensors, 0)));
        Readback::new(|| {
            let numbers = numbers.into_data().convert_dtype(DType::F32);
            numbers.into_vec().expect("converted to f32")
        })
    }

    /// Whether memory is from now on allocated in exactly the sizes that are asked for, each kept for the next allocation of
    /// its size. A training step asks for the same sizes each time; generation always for new ones.
    fn set_persistent_allocation(_device: &Self::Device, _on: bool) {}

    /// Whether gradients of weights take, on this thread from now on, the memory of activations that are dead by then. Those
    /// that live on in the next forward pass keep more memory than they need.
    fn set_reuses_activations(_on: bool) {}

    /// Where kernels are compiled when they are first launched, compiles those that `rehearsal` would launch on
    /// `device`, on `threads` threads and a few more. They are not launched in it: its results are whatever was in memory.
    fn compile_ahead(_device: &Self::Device, _threads: usize, _rehearsal: impl FnOnce()) {}

    /// The time when `device` comes to this point of its work, and how long that is after `before`, such a time: in
    /// milliseconds, `[1]`, of no meaning where there is none. None where the host waits for each step.
    fn lap(
        _device: &Self::Device,
        _before: Option<FloatTensor<Self>>,
    ) -> Option<(FloatTensor<Self>, FloatTensor<Self>)> {
        None
    }

    /// What tells when `device` passes points of the work that is queued on it.
    ///
    /// # Errors
    /// [`TimerError`].
    fn timer(device: Self::Device) -> Result<Box<dyn DeviceTimer>, TimerError> {
        Ok(Box::new(WaitingTimer::<Self>::new(device)))
    }

    /// What sums over processes from device to device; none where sums go through the host.
    ///
    /// # Errors
    /// [`CollectiveError`] where there should be one, and how to get it.
    fn collectives() -> Result<Option<Collectives<Self>>, CollectiveError> {
        Ok(None)
    }

    /// The sum of the squares of all elements of `tensors`.
    ///
    /// # Shapes
    /// The result is `[1]`.
    fn squared_norm(tensors: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
        reference_squared_norm::<Self>(tensors)
    }
}

/// The only element of `tensor` (a host–device sync).
pub fn scalar<B: Gpt2Backend>(tensor: FloatTensor<B>) -> f64 {
    let tensor = Tensor::<B, 1>::from_primitive(TensorPrimitive::Float(tensor));
    let numbers: Vec<f64> = tensor
        .into_data()
        .convert_dtype(DType::F64)
        .into_vec()
        .expect("converted to f64");
    numbers[0]
}

/// The parameter in the type of its operand, where it has one.
fn round_again<B: Gpt2Backend>(operand: Option<FloatTensor<B>>, parameter: &FloatTensor<B>) -> Option<FloatTensor<B>> {
    operand.map(|operand| B::round_weights(parameter.clone(), operand.dtype().into()))
}

fn reference_squared_norm<B: Gpt2Backend>(tensors: Vec<FloatTensor<B>>) -> FloatTensor<B> {
    let square_sum = |tensor: FloatTensor<B>| B::float_sum(B::float_mul(tensor.clone(), tensor));
    let sums = tensors.into_iter().map(square_sum).collect();
    B::float_sum(B::float_cat(sums, 0))
}

fn reference_adamw<B: Gpt2Backend>(
    input: AdamWInput<FloatTensor<B>>,
    step: &AdamWStep,
    scale: f64,
) -> AdamWOutput<FloatTensor<B>> {
    if scale == 0.0 {
        return input.into();
    }
    let AdamWInput {
        parameter,
        grad,
        exp_avg,
        exp_avg_sq,
        operand,
        has_weight_decay,
    } = input;
    let scaled = |tensor, factor: f64| B::float_mul_scalar(tensor, factor.into());
    let grad = scaled(grad, scale);
    let grad_squared = B::float_mul(grad.clone(), grad.clone());
    let exp_avg = B::float_add(scaled(exp_avg, step.beta1), scaled(grad, 1.0 - step.beta1));
    let exp_avg_sq = B::float_add(scaled(exp_avg_sq, step.beta2), scaled(grad_squared, 1.0 - step.beta2));
    let root = scaled(B::float_sqrt(exp_avg_sq.clone()), 1.0 / step.bias_correction2_sqrt);
    let change = B::float_div(exp_avg.clone(), B::float_add_scalar(root, step.eps.into()));
    let decayed = scaled(parameter, step.decay_of(has_weight_decay));
    let parameter = B::float_sub(decayed, scaled(change, step.step_size));
    AdamWOutput {
        operand: round_again::<B>(operand, &parameter),
        parameter,
        exp_avg,
        exp_avg_sq,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_multiplied_by_nothing() {
        let clip = Clip {
            max_norm: 1.0,
            micro_steps: 2.0,
        };
        assert!(clip.scale(6.0, 64.0) > 0.0);
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for scale in [clip.scale(bad, 64.0), clip.scale(6.0, bad)] {
                assert_eq!(scale.to_bits(), 0.0_f64.to_bits());
            }
        }
    }
}
