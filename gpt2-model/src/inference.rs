//! A model on whichever backend, for callers that are not generic.

use crate::config::Gpt2Config;
use crate::error::ModelError;
use crate::model::Gpt2;
use crate::ops::training::{TrainingBackend, scalar};
use crate::ops::{Gpt2Backend, logits};
use crate::sampling::Sampling;
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Int, Tensor, TensorData};

/// Rows of logits that are in memory at once: 100 MiB of GPT-2's vocabulary.
const LOGITS_ROWS: usize = 512;

/// A batch of sequences and of the token after each of theirs.
#[derive(Debug, Clone)]
pub struct Sequences {
    /// `[B, T]`, row by row.
    pub inputs: Vec<i32>,
    /// `[B, T]`, row by row.
    pub targets: Vec<i32>,
    /// T.
    pub seq: usize,
}

impl Sequences {
    /// Inputs and targets on `device`.
    ///
    /// # Shapes
    /// Both are `[B, T]`.
    pub fn upload<B: Backend>(self, device: &B::Device) -> [Tensor<B, 2, Int>; 2] {
        [self.inputs, self.targets].map(|tokens| {
            let shape = [tokens.len() / self.seq, self.seq];
            Tensor::from_data(TensorData::new(tokens, shape), device)
        })
    }
}

/// What a model makes of the place of a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// The loss of the token that is there, in nats.
    pub loss: f32,
    /// The most probable token.
    pub prediction: u32,
}

/// A GPT-2 on any backend. All of it waits for the device.
pub trait Inference {
    /// Its shape.
    fn config(&self) -> &Gpt2Config;

    /// The mean loss of all targets in nats: [`Gpt2::loss`].
    fn loss(&self, batch: Sequences) -> f64;

    /// The loss in nats of each target, `[B, T]`, row by row: [`Gpt2::token_losses`].
    fn token_losses(&self, batch: Sequences) -> Vec<f32>;

    /// The losses and predictions at some positions, `b·T + t`.
    fn token_scores(&self, batch: Sequences, positions: &[usize]) -> Vec<TokenScore>;

    /// [`Gpt2::generate`].
    fn generate<'a>(
        &'a self,
        prompt: &[i32],
        sampling: Sampling,
        seed: u64,
    ) -> Box<dyn Iterator<Item = Result<i32, ModelError>> + 'a>;
}

impl<B: Gpt2Backend> Inference for Gpt2<B> {
    fn config(&self) -> &Gpt2Config {
        &self.config
    }

    fn loss(&self, batch: Sequences) -> f64 {
        let [inputs, targets] = batch.upload(&self.wte.weight.device());
        let loss = Gpt2::loss(self, inputs, targets);
        scalar::<B>(loss.into_primitive().tensor()) // host–device sync
    }

    fn token_losses(&self, batch: Sequences) -> Vec<f32> {
        let [inputs, targets] = batch.upload(&self.wte.weight.device());
        floats(Gpt2::token_losses(self, inputs, targets))
    }

    /// Waits once for each 512 positions: the logits of all of a batch would not fit.
    fn token_scores(&self, batch: Sequences, positions: &[usize]) -> Vec<TokenScore> {
        let device = self.wte.weight.device();
        let integers = |values: Vec<i32>| {
            let count = values.len();
            Tensor::<B, 1, Int>::from_data(TensorData::new(values, [count]), &device)
        };
        let rows = batch.inputs.len();
        let shape = [rows / batch.seq, batch.seq];
        let inputs = Tensor::from_data(TensorData::new(batch.inputs, shape), &device);
        let hidden = self.hidden(inputs, None);
        let hidden = hidden.reshape([rows, self.config.n_embd]); // [B·T, C]
        let classifier = self.classifier().cast(hidden.dtype()); // [Vp, C]
        let mut scores = Vec::with_capacity(positions.len());
        for positions in positions.chunks(LOGITS_ROWS) {
            let targets = positions.iter().map(|&position| batch.targets[position]).collect();
            let positions = integers(positions.iter().map(|&position| position as i32).collect());
            let rows = hidden.clone().select(0, positions); // [N, C]
            let logits = logits(rows, classifier.clone())
                .cast(DType::F32)
                .narrow(1, 0, self.config.vocab_size); // [N, V]
            let predictions = logits.clone().argmax(1).into_data(); // host–device sync
            let predictions: Vec<i64> = predictions.convert::<i64>().into_vec().expect("converted to i64 above");
            let losses = floats(
                log_softmax(logits, 1)
                    .gather(1, integers(targets).unsqueeze_dim(1))
                    .neg(),
            ); // [N, 1]
            scores.extend(losses.into_iter().zip(predictions).map(|(loss, token)| TokenScore {
                loss,
                prediction: token as u32,
            }));
        }
        scores
    }

    fn generate<'a>(
        &'a self,
        prompt: &[i32],
        sampling: Sampling,
        seed: u64,
    ) -> Box<dyn Iterator<Item = Result<i32, ModelError>> + 'a> {
        Box::new(Gpt2::generate(self, prompt, sampling, seed))
    }
}

/// A backend whose models stand behind [`Inference`].
pub trait InferenceBackend: TrainingBackend {
    /// `model` without its type. Not a default method: the code of each backend is compiled here, and not again by whoever
    /// calls it.
    fn inference(model: Gpt2<Self>) -> Box<dyn Inference>;
}

/// Of each backend that this crate has operations for.
macro_rules! inference_backends {
    ($($feature:literal: $backend:ty,)*) => {
        $(
            #[cfg(feature = $feature)]
            impl InferenceBackend for $backend {
                fn inference(model: Gpt2<Self>) -> Box<dyn Inference> {
                    Box::new(model)
                }
            }
        )*
    };
}

inference_backends! {
    "ndarray": burn_ndarray::NdArray,
    "flex": burn_flex::Flex,
    "wgpu": crate::ops::Wgpu,
    "cuda": crate::ops::Cuda,
}

/// The elements, on the host.
fn floats<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    let data = tensor.into_data(); // host–device sync
    data.convert::<f32>().into_vec().expect("converted to f32 above")
}
