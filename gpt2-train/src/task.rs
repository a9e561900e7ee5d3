//! The training task: what Burn's learner calls to compute a loss and its gradients.

use crate::batches::MicroBatch;
use crate::metrics::StepOutput;
use burn::module::Module;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use gpt2_model::Gpt2;
use gpt2_model::ops::Gpt2Backend;

/// A GPT-2 that is being trained on next-token prediction.
#[derive(Module, Debug)]
pub struct TrainingTask<B: Backend> {
    /// The model.
    pub model: Gpt2<B>,
}

impl<B: AutodiffBackend + Gpt2Backend> TrainStep for TrainingTask<B> {
    type Input = MicroBatch<B>;
    type Output = StepOutput<B::InnerBackend>;

    fn step(&self, batch: MicroBatch<B>) -> TrainOutput<Self::Output> {
        let loss = self.model.loss(batch.inputs, batch.targets);
        let output = StepOutput::Loss(loss.clone().inner());
        TrainOutput::new(self, loss.backward(), output)
    }
}

impl<B: Gpt2Backend> InferenceStep for TrainingTask<B> {
    type Input = MicroBatch<B>;
    type Output = StepOutput<B>;

    fn step(&self, batch: MicroBatch<B>) -> StepOutput<B> {
        StepOutput::Loss(self.model.loss(batch.inputs, batch.targets))
    }
}
