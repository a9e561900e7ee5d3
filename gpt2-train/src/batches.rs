//! From token batches on the host to tensors on the device.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor};
use gpt2_data::TokenBatch;
use gpt2_model::Sequences;
use std::time::Duration;

/// What one forward and backward pass takes.
#[derive(Debug, Clone)]
pub struct MicroBatch<B: Backend> {
    /// `[B, T]`.
    pub inputs: Tensor<B, 2, Int>,
    /// The token after each of `inputs`, `[B, T]`.
    pub targets: Tensor<B, 2, Int>,
    /// How long the data was waited for.
    pub wait: Duration,
}

impl<B: Backend> MicroBatch<B> {
    /// Uploads `batch`.
    pub fn new(batch: TokenBatch, device: &B::Device) -> Self {
        let wait = batch.wait;
        let [inputs, targets] = sequences(batch).upload(device);
        Self { inputs, targets, wait }
    }
}

/// The batch as models take it.
pub(crate) fn sequences(batch: TokenBatch) -> Sequences {
    Sequences {
        inputs: batch.inputs,
        targets: batch.targets,
        seq: batch.seq,
    }
}
