//! AdamW on burn-ndarray's arrays: one pass over memory instead of twelve.

use super::update::{TrainingBackend, UpdateRule, Updated, reference};
use burn::tensor::TensorData;
use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, FloatTensorOps};
use burn_ndarray::{FloatNdArrayElement, IntNdArrayElement, NdArray, NdArrayTensor, QuantElement, SharedArray};
use gpt2_model::ops::Gpt2Backend;
use rayon::prelude::*;
use std::borrow::Cow;

/// Elements that one task takes.
const TASK: usize = 1 << 15;

impl<E: FloatNdArrayElement, I: IntNdArrayElement, Q: QuantElement> TrainingBackend for NdArray<E, I, Q>
where
    Self: Gpt2Backend + Backend<FloatTensorPrimitive = NdArrayTensor>,
    NdArrayTensor: From<SharedArray<E>> + From<SharedArray<I>>,
{
    fn adamw(
        mut parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        mut mean: FloatTensor<Self>,
        mut square: FloatTensor<Self>,
        rule: &UpdateRule,
    ) -> Updated<FloatTensor<Self>> {
        if update_in_place(&mut parameter, &gradient, &mut mean, &mut square, rule).is_some() {
            Updated {
                parameter,
                mean,
                square,
            }
        } else {
            reference::<Self>(parameter, gradient, mean, square, rule)
        }
    }

    fn squared_norm(tensors: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
        let sum: f64 = tensors.iter().map(square_sum).sum();
        Self::float_from_data(TensorData::from([sum as f32]), &Self::Device::default())
    }
}

/// The sum of the squares of the elements. Summed in order of the tasks: it must not depend on the number of threads.
fn square_sum(tensor: &NdArrayTensor) -> f64 {
    let squares = |values: &[f32]| {
        let mut lanes = [0.0_f32; 16];
        for values in values.chunks(lanes.len()) {
            for (lane, value) in lanes.iter_mut().zip(values) {
                *lane += value * value;
            }
        }
        lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>()
    };
    match tensor {
        NdArrayTensor::F32(storage) => {
            let view = storage.view();
            let values = view
                .as_slice_memory_order()
                .map_or_else(|| view.iter().copied().collect(), Cow::Borrowed);
            let sums: Vec<f64> = values.par_chunks(TASK).map(squares).collect();
            sums.iter().sum()
        }
        NdArrayTensor::F64(storage) => storage.view().iter().map(|value| value * value).sum(),
        _ => unreachable!("a gradient is made of floats"),
    }
}

/// Updates arrays of `f32`; none for other types, which are left as they were. An array that is shared is copied first.
fn update_in_place(
    parameter: &mut NdArrayTensor,
    gradient: &NdArrayTensor,
    mean: &mut NdArrayTensor,
    square: &mut NdArrayTensor,
    rule: &UpdateRule,
) -> Option<()> {
    let NdArrayTensor::F32(gradient) = gradient else {
        return None;
    };
    let gradient = gradient.view();
    let gradient = gradient.as_standard_layout(); // a gradient may come transposed
    let (parameter, mean, square) = (values(parameter)?, values(mean)?, values(square)?);
    let tasks = parameter
        .par_chunks_mut(TASK)
        .zip(gradient.as_slice()?.par_chunks(TASK))
        .zip(mean.par_chunks_mut(TASK).zip(square.par_chunks_mut(TASK)));
    tasks.for_each(|((parameter, gradient), (mean, square))| update(parameter, gradient, mean, square, rule));
    Some(())
}

fn values(tensor: &mut NdArrayTensor) -> Option<&mut [f32]> {
    match tensor {
        NdArrayTensor::F32(storage) => storage.ensure_owned().as_slice_mut(),
        _ => None,
    }
}

fn update(parameter: &mut [f32], gradient: &[f32], mean: &mut [f32], square: &mut [f32], rule: &UpdateRule) {
    let [grad_scale, beta1, beta2, eps, step_size, shrink] = [
        rule.grad_scale,
        rule.beta1,
        rule.beta2,
        rule.eps,
        rule.step_size,
        rule.shrink,
    ]
    .map(|value| value as f32);
    let per_root = (1.0 / rule.square_correction) as f32;
    let elements = parameter.iter_mut().zip(gradient).zip(mean.iter_mut().zip(square));
    for ((parameter, &gradient), (mean, square)) in elements {
        let gradient = gradient * grad_scale;
        *mean = *mean * beta1 + gradient * (1.0 - beta1);
        *square = *square * beta2 + gradient * gradient * (1.0 - beta2);
        *parameter = *parameter * shrink - *mean / (square.sqrt() * per_root + eps) * step_size;
    }
}
