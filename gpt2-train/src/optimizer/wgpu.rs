//! AdamW on a GPU through wgpu: one pass over each parameter.

use super::update::{Pending, TrainingBackend, UpdateRule, Updated};
use burn::tensor::ops::FloatTensor;
use gpt2_cubecl::adamw::{Rule, squared_norm, update};
use gpt2_cubecl::{contiguous, owned};
use gpt2_model::ops::Wgpu;

impl TrainingBackend for Wgpu {
    fn adamw(pending: Vec<Pending<FloatTensor<Self>>>, rule: &UpdateRule) -> Vec<Updated<FloatTensor<Self>>> {
        let updated = |pending: Pending<FloatTensor<Self>>| {
            let rule = Rule {
                scale: rule.grad_scale as f32,
                beta1: rule.beta1 as f32,
                beta2: rule.beta2 as f32,
                beta1_rest: (1.0 - rule.beta1) as f32,
                beta2_rest: (1.0 - rule.beta2) as f32,
                eps: rule.eps as f32,
                square_correction: rule.square_correction.recip() as f32,
                step_size: rule.step_size as f32,
                shrink: rule.shrink(pending.decays) as f32,
            };
            // The tensors that are written must be nobody else's.
            let [parameter, mean, square] = [pending.parameter, pending.mean, pending.square].map(owned);
            update(&parameter, &contiguous(pending.gradient), &mean, &square, rule);
            Updated {
                parameter,
                mean,
                square,
            }
        };
        pending.into_iter().map(updated).collect()
    }

    fn squared_norm(tensors: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
        let tensors: Vec<_> = tensors.into_iter().map(contiguous).collect();
        squared_norm(&tensors)
    }
}
