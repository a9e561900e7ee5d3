//! Burn's learner: the one room of this crate that names it. It steps the model in every run, and feeds the dashboard.

mod dashboard;
mod metrics;
mod renderer;
mod schedule;
mod task;

pub use renderer::{dashboard_is_shown, restore_terminal};

pub(crate) use dashboard::{DashboardSetup, with_dashboard};

use crate::batches::MicroBatch;
use crate::error::TrainError;
use crate::optimizer::{AdamW, change_parameters};
use crate::schedule::LrSchedule;
use crate::step_loop::{Share, TrainStepper};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{Learner, LearningComponentsMarker};
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::ops::training::TrainingBackend;
use gpt2_model::{Gpt2, Operands};
use schedule::SteppedSchedule;
use std::sync::Arc;
use task::{StepOutput, TrainingTask};

/// The parts of a learner here.
type Components<B> = LearningComponentsMarker<B, SteppedSchedule, TrainingTask<B>, AdamW<B>>;

/// Burn's learner, as the step loop drives it.
pub(crate) struct LearnerStepper<B>
where
    B: AutodiffBackend + Gpt2Backend,
    B::InnerBackend: TrainingBackend,
{
    learner: Learner<Components<B>>,
    /// The one that the learner steps.
    optimizer: AdamW<B>,
}

impl<B> LearnerStepper<B>
where
    B: AutodiffBackend + Gpt2Backend,
    B::InnerBackend: TrainingBackend,
{
    /// A learner that goes on with `model` after `step` steps.
    pub(crate) fn new(model: Gpt2<B>, optimizer: AdamW<B>, schedule: LrSchedule, step: u64) -> Self {
        if B::InnerBackend::KEEPS_OPERANDS {
            optimizer.keep_operands(model.round_operands());
        }
        let model = model.with_operands(&optimizer.operands());
        let schedule = SteppedSchedule::new(schedule, step);
        Self {
            learner: Learner::new(TrainingTask::new(model), optimizer.clone(), schedule),
            optimizer,
        }
    }

    /// Replaces the model's operands.
    fn set_operands(&self, operands: &Operands<B::InnerBackend>) {
        if B::InnerBackend::KEEPS_OPERANDS {
            self.learner.model().change(|model| model.with_operands(operands));
        }
    }
}

impl<B> TrainStepper<B> for LearnerStepper<B>
where
    B: AutodiffBackend + Gpt2Backend,
    B::InnerBackend: TrainingBackend,
{
    fn train_step(&mut self, batch: MicroBatch<B>) -> (Tensor<B::InnerBackend, 1>, GradientsParams) {
        let output = self.learner.train_step(batch);
        let StepOutput::Loss(loss) = output.item else {
            unreachable!("a training step gives its loss")
        };
        (loss, output.grads)
    }

    fn optimizer_step(&mut self, gradients: GradientsParams, share: Share<'_, B>) -> Result<(), TrainError> {
        // The optimizer writes them in place if it is their only owner.
        self.set_operands(&Operands::new());
        self.learner.lr_step();
        self.learner.optimizer_step(gradients);
        if let Some(shards) = self.optimizer.shards() {
            let mut shared = Ok(());
            self.learner.model().change(|model| {
                let (model, result) = change_parameters(model, shards, share);
                shared = result;
                model
            });
            shared?;
            self.optimizer.round_operands_of_others(&self.learner.model().model());
        }
        self.set_operands(&self.optimizer.operands());
        Ok(())
    }

    fn lr(&self) -> f64 {
        self.learner.lr_current()
    }

    fn model(&self) -> Arc<Gpt2<B>> {
        self.learner.model().model()
    }
}
