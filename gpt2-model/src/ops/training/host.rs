//! AdamW on tensors in the host's memory: one pass over it instead of twelve.

use super::{AdamWInput, AdamWOutput, AdamWStep, TrainingBackend, reference_adamw, reference_squared_norm, scalar};
use crate::ops::HostTensor;
use burn::tensor::ops::FloatTensor;
use rayon::prelude::*;
use std::borrow::Cow;

/// Elements that one task takes.
const TASK: usize = 1 << 15;

/// The methods of [`TrainingBackend`], or the reference for tensors of other types than `f32`.
macro_rules! host_training {
    () => {
        fn adamw(
            inputs: Vec<AdamWInput<FloatTensor<Self>>>,
            step: &AdamWStep,
            scale: FloatTensor<Self>,
        ) -> Vec<AdamWOutput<FloatTensor<Self>>> {
            let scale = scalar::<Self>(scale);
            let update = |mut input| match update_in_place(&mut input, step, scale) {
                Some(()) => input.into(),
                None => reference_adamw::<Self>(input, step, scale),
            };
            inputs.into_iter().map(update).collect()
        }

        fn squared_norm(tensors: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
            match tensors.iter().map(square_sum).sum::<Option<f64>>() {
                Some(sum) => HostTensor::from_values(vec![sum as f32], &[1]),
                None => reference_squared_norm::<Self>(tensors),
            }
        }
    };
}

// Both of the default types alone, as the operations.
#[cfg(feature = "ndarray")]
impl TrainingBackend for burn_ndarray::NdArray {
    host_training!();
}

#[cfg(feature = "flex")]
impl TrainingBackend for burn_flex::Flex {
    host_training!();
}

/// The sum of the squares of the elements. Summed in order of the tasks: it must not depend on the number of threads.
fn square_sum<T: HostTensor>(tensor: &T) -> Option<f64> {
    let squares = |values: &[f32]| {
        let mut lanes = [0.0_f32; 16];
        for values in values.chunks(lanes.len()) {
            for (lane, value) in lanes.iter_mut().zip(values) {
                *lane += value * value;
            }
        }
        lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>()
    };
    let view = tensor.view()?;
    let values = view
        .as_slice_memory_order()
        .map_or_else(|| view.iter().copied().collect(), Cow::Borrowed);
    let sums: Vec<f64> = values.par_chunks(TASK).map(squares).collect();
    Some(sums.iter().sum())
}

/// Updates tensors of `f32` in place; none for other types, and where an operand is kept too: those are left as they were. A
/// tensor that is shared is copied first.
fn update_in_place<T: HostTensor>(input: &mut AdamWInput<T>, step: &AdamWStep, scale: f64) -> Option<()> {
    if scale == 0.0 {
        return Some(());
    }
    if input.operand.is_some() {
        return None;
    }
    let decay = step.decay_of(input.has_weight_decay);
    let grad = input.grad.view()?;
    let grad = grad.as_standard_layout(); // a gradient may come transposed
    let (parameter, exp_avg, exp_avg_sq) = (
        input.parameter.values_mut()?,
        input.exp_avg.values_mut()?,
        input.exp_avg_sq.values_mut()?,
    );
    let tasks = parameter
        .par_chunks_mut(TASK)
        .zip(grad.as_slice()?.par_chunks(TASK))
        .zip(exp_avg.par_chunks_mut(TASK).zip(exp_avg_sq.par_chunks_mut(TASK)));
    tasks.for_each(|((parameter, grad), (exp_avg, exp_avg_sq))| {
        update(parameter, grad, exp_avg, exp_avg_sq, step, [scale, decay]);
    });
    Some(())
}

fn update(
    parameter: &mut [f32],
    grad: &[f32],
    exp_avg: &mut [f32],
    exp_avg_sq: &mut [f32],
    step: &AdamWStep,
    [scale, decay]: [f64; 2],
) {
    let [scale, beta1, beta2, eps, step_size, decay] =
        [scale, step.beta1, step.beta2, step.eps, step.step_size, decay].map(|value| value as f32);
    let per_root = (1.0 / step.bias_correction2_sqrt) as f32;
    let elements = parameter.iter_mut().zip(grad).zip(exp_avg.iter_mut().zip(exp_avg_sq));
    for ((parameter, &grad), (exp_avg, exp_avg_sq)) in elements {
        let grad = grad * scale;
        *exp_avg = *exp_avg * beta1 + grad * (1.0 - beta1);
        *exp_avg_sq = *exp_avg_sq * beta2 + grad * grad * (1.0 - beta2);
        *parameter = *parameter * decay - *exp_avg / (exp_avg_sq.sqrt() * per_root + eps) * step_size;
    }
}
