//! AdamW on a GPU through wgpu: one pass over each parameter.

use super::{AdamWInput, AdamWOutput, AdamWStep, CLIP_EPS, Clip, TrainingBackend, round_again};
use crate::ops::Wgpu;
use burn::tensor::ops::FloatTensor;
use gpt2_cubecl::adamw::{Rule, gradient_scale, squared_norm, update};
use gpt2_cubecl::{contiguous, owned};

impl TrainingBackend for Wgpu {
    fn adamw(
        inputs: Vec<AdamWInput<FloatTensor<Self>>>,
        step: &AdamWStep,
        scale: FloatTensor<Self>,
    ) -> Vec<AdamWOutput<FloatTensor<Self>>> {
        let update = |input: AdamWInput<FloatTensor<Self>>| {
            let rule = Rule {
                beta1: step.beta1 as f32,
                beta2: step.beta2 as f32,
                beta1_rest: (1.0 - step.beta1) as f32,
                beta2_rest: (1.0 - step.beta2) as f32,
                eps: step.eps as f32,
                square_correction: step.bias_correction2_sqrt.recip() as f32,
                step_size: step.step_size as f32,
                shrink: step.decay_of(input.has_weight_decay) as f32,
            };
            // The tensors that are written must be uniquely owned.
            let [parameter, exp_avg, exp_avg_sq] = [input.parameter, input.exp_avg, input.exp_avg_sq].map(owned);
            update(&parameter, &contiguous(input.grad), &exp_avg, &exp_avg_sq, &scale, rule);
            AdamWOutput {
                operand: round_again::<Self>(input.operand, &parameter),
                parameter,
                exp_avg,
                exp_avg_sq,
            }
        };
        inputs.into_iter().map(update).collect()
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
