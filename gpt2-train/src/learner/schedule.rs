//! The learning-rate schedule in the form that Burn's learner steps.

use crate::schedule::LrSchedule;
use burn::module::EmptyRecord;
use burn::optim::LearningRate;
use burn::optim::lr_scheduler::LrScheduler;
use burn::tensor::backend::Backend;

/// Steps through an [`LrSchedule`], which is a pure function of the step.
#[derive(Debug, Clone)]
pub(crate) struct SteppedSchedule {
    schedule: LrSchedule,
    /// The next step, from 0.
    step: u64,
}

impl SteppedSchedule {
    /// Starts after `step` steps.
    pub(crate) fn new(schedule: LrSchedule, step: u64) -> Self {
        Self { schedule, step }
    }
}

impl LrScheduler for SteppedSchedule {
    /// Nothing: the step of the checkpoint says it all.
    type Record<B: Backend> = EmptyRecord;

    fn step(&mut self) -> LearningRate {
        let lr = self.schedule.lr(self.step);
        self.step += 1;
        lr
    }

    fn to_record<B: Backend>(&self) -> EmptyRecord {
        EmptyRecord::new()
    }

    fn load_record<B: Backend>(self, _: EmptyRecord) -> Self {
        self
    }
}
