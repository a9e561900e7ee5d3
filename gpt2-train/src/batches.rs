//! From token batches on the host to tensors on the device.

use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use gpt2_data::TokenBatch;
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
        let shape = [batch.batch, batch.seq];
        Self {
            inputs: Tensor::from_data(TensorData::new(batch.inputs, shape), device),
            targets: Tensor::from_data(TensorData::new(batch.targets, shape), device),
            wait: batch.wait,
        }
    }
}
