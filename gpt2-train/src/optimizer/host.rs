//! AdamW on tensors in the host's memory: one pass over it instead of twelve.

use super::update::{Pending, TrainingBackend, UpdateRule, Updated, number, reference, reference_squared_norm};
use burn::tensor::ops::FloatTensor;
use gpt2_model::ops::HostTensor;
use rayon::prelude::*;
use std::borrow::Cow;

/// Elements that one task takes.
const TASK: usize = 1 << 15;

/// The methods of [`TrainingBackend`], or the reference for tensors of other types than `f32`.
macro_rules! host_optimizer {
    () => {
        fn adamw(
            pending: Vec<Pending<FloatTensor<Self>>>,
            rule: &UpdateRule,
            scale: FloatTensor<Self>,
        ) -> Vec<Updated<FloatTensor<Self>>> {
            let scale = number::<Self>(scale);
            let update = |mut pending| match update_in_place(&mut pending, rule, scale) {
                Some(()) => Updated {
                    parameter: pending.parameter,
                    mean: pending.mean,
                    square: pending.square,
                },
                None => reference::<Self>(pending, rule, scale),
            };
            pending.into_iter().map(update).collect()
        }

        fn squared_norm(tensors: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
            match tensors.iter().map(square_sum).sum::<Option<f64>>() {
                Some(sum) => HostTensor::from_values(vec![sum as f32], &[1]),
                None => reference_squared_norm::<Self>(tensors),
            }
        }
    };
}

#[cfg(feature = "ndarray")]
mod with_ndarray {
    use super::{
        FloatTensor, HostTensor, Pending, TrainingBackend, UpdateRule, Updated, number, reference,
        reference_squared_norm, square_sum, update_in_place,
    };
    use burn::tensor::backend::Backend;
    use burn_ndarray::{FloatNdArrayElement, IntNdArrayElement, NdArray, NdArrayTensor, QuantElement, SharedArray};
    use gpt2_model::ops::Gpt2Backend;

    impl<E: FloatNdArrayElement, I: IntNdArrayElement, Q: QuantElement> TrainingBackend for NdArray<E, I, Q>
    where
        Self: Gpt2Backend + Backend<FloatTensorPrimitive = NdArrayTensor>,
        NdArrayTensor: From<SharedArray<E>> + From<SharedArray<I>>,
    {
        host_optimizer!();
    }
}

#[cfg(feature = "flex")]
impl TrainingBackend for burn_flex::Flex {
    host_optimizer!();
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

/// Updates tensors of `f32` in place; none for other types, which are left as they were. A tensor that is shared is copied
/// first.
fn update_in_place<T: HostTensor>(pending: &mut Pending<T>, rule: &UpdateRule, scale: f64) -> Option<()> {
    if scale == 0.0 {
        return Some(());
    }
    let shrink = rule.shrink(pending.decays);
    let gradient = pending.gradient.view()?;
    let gradient = gradient.as_standard_layout(); // a gradient may come transposed
    let (parameter, mean, square) = (
        pending.parameter.values_mut()?,
        pending.mean.values_mut()?,
        pending.square.values_mut()?,
    );
    let tasks = parameter
        .par_chunks_mut(TASK)
        .zip(gradient.as_slice()?.par_chunks(TASK))
        .zip(mean.par_chunks_mut(TASK).zip(square.par_chunks_mut(TASK)));
    tasks.for_each(|((parameter, gradient), (mean, square))| {
        update(parameter, gradient, mean, square, rule, [scale, shrink]);
    });
    Some(())
}

fn update(
    parameter: &mut [f32],
    gradient: &[f32],
    mean: &mut [f32],
    square: &mut [f32],
    rule: &UpdateRule,
    [scale, shrink]: [f64; 2],
) {
    let [scale, beta1, beta2, eps, step_size, shrink] =
        [scale, rule.beta1, rule.beta2, rule.eps, rule.step_size, shrink].map(|value| value as f32);
    let per_root = (1.0 / rule.square_correction) as f32;
    let elements = parameter.iter_mut().zip(gradient).zip(mean.iter_mut().zip(square));
    for ((parameter, &gradient), (mean, square)) in elements {
        let gradient = gradient * scale;
        *mean = *mean * beta1 + gradient * (1.0 - beta1);
        *square = *square * beta2 + gradient * gradient * (1.0 - beta2);
        *parameter = *parameter * shrink - *mean / (square.sqrt() * per_root + eps) * step_size;
    }
}
