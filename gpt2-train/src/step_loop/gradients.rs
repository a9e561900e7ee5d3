//! The sum of the gradients of a step's micro-steps.

use burn::module::AutodiffModule;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::backend::AutodiffBackend;
use gpt2_model::spans::{Operation, Pass, span};

/// Gradients of the micro-steps that have been taken. One micro-step costs no addition and no copy.
pub(super) enum GradientSum<M> {
    Empty,
    One(GradientsParams),
    Several(GradientsAccumulator<M>),
}

impl<M> GradientSum<M> {
    pub(super) fn add<B>(self, model: &M, gradients: GradientsParams) -> Self
    where
        B: AutodiffBackend,
        M: AutodiffModule<B>,
    {
        let mut sum = match self {
            Self::Empty => return Self::One(gradients),
            Self::One(first) => {
                let mut sum = GradientsAccumulator::new();
                sum.accumulate(model, first);
                sum
            }
            Self::Several(sum) => sum,
        };
        span(Operation::GradientSum, Pass::Update, || {
            sum.accumulate(model, gradients);
        });
        Self::Several(sum)
    }

    pub(super) fn finish<B>(self) -> GradientsParams
    where
        B: AutodiffBackend,
        M: AutodiffModule<B>,
    {
        match self {
            Self::Empty => GradientsParams::new(),
            Self::One(gradients) => gradients,
            Self::Several(mut sum) => sum.grads(),
        }
    }
}
