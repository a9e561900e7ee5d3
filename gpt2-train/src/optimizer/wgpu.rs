//! AdamW on a GPU through wgpu: one pass over each parameter.

use super::update::{CLIP_EPS, Clip, Pending, TrainingBackend, UpdateRule, Updated};
use burn::tensor::ops::FloatTensor;
use gpt2_cubecl::adamw::{Rule, gradient_scale, squared_norm, update};
use gpt2_cubecl::{contiguous, owned};
use gpt2_model::ops::Wgpu;

impl TrainingBackend for Wgpu {
    fn adamw(
        pending: Vec<Pending<FloatTensor<Self>>>,
        rule: &UpdateRule,
        scale: FloatTensor<Self>,
    ) -> Vec<Updated<FloatTensor<Self>>> {
        let updated = |pending: Pending<FloatTensor<Self>>| {
            let rule = Rule {
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
            update(&parameter, &contiguous(pending.gradient), &mean, &square, &scale, rule);
            Updated {
                parameter,
                mean,
                square,
            }
        };
        pending.into_iter().map(updated).collect()
    }

    fn gradient_scale(
        loss: FloatTensor<Self>,
        squared_norm: FloatTensor<Self>,
        before: Option<FloatTensor<Self>>,
        clip: &Clip,
    ) -> FloatTensor<Self> {
        let numbers = [clip.max_norm, clip.micro_steps, CLIP_EPS].map(|number| number as f32);
        gradient_scale(&loss, &squared_norm, before.as_ref(), numbers)
    }

    fn squared_norm(tensors: Vec<FloatTensor<Self>>) -> FloatTensor<Self> {
        let tensors: Vec<_> = tensors.into_iter().map(contiguous).collect();
        squared_norm(&tensors)
    }
}
