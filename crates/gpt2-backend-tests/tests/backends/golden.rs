//! A small GPT-2 against Hugging Face transformers on PyTorch (float32, CPU): logits, loss, every gradient, and ten AdamW
//! steps with clipping. `cargo xtask fixtures` says how the values were made.

use crate::{floats, relative_error};
use burn::module::Param;
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, Tensor, TensorData};
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::ops::training::{Clip, TrainingBackend};
use gpt2_model::weights::{NamedVisitor, load_hf, parameters, visit_parameters};
use gpt2_model::{Gpt2, Operations};
use gpt2_train::optimizer::{AdamW, AdamWConfig, squared_norm};
use safetensors::SafeTensors;
use std::collections::HashMap;

const CONFIG: &[u8] = include_bytes!("../fixtures/tiny/config.json");
const WEIGHTS: &[u8] = include_bytes!("../fixtures/tiny/model.safetensors");
const EXPECTED: &[u8] = include_bytes!("../fixtures/tiny/expected.safetensors");

/// The optimizer of the golden values.
const LEARNING_RATE: f64 = 1e-3;
const CLIP: Clip = Clip {
    max_norm: 1.0,
    micro_steps: 1.0,
};

/// The golden values by name.
pub(crate) struct Golden(SafeTensors<'static>);

impl Golden {
    pub(crate) fn load() -> Self {
        Self(SafeTensors::deserialize(EXPECTED).unwrap())
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let view = self.0.tensor(name).unwrap();
        view.data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect()
    }

    pub(crate) fn integers(&self, name: &str) -> Vec<i32> {
        let view = self.0.tensor(name).unwrap();
        view.data()
            .as_chunks::<8>()
            .0
            .iter()
            .map(|&bytes| i64::from_le_bytes(bytes) as i32)
            .collect()
    }

    fn tokens<B: burn::tensor::backend::Backend>(&self, name: &str, device: &B::Device) -> Tensor<B, 2, Int> {
        let shape = self.0.tensor(name).unwrap().shape().to_vec();
        Tensor::from_data(TensorData::new(self.integers(name), shape), device)
    }
}

/// The model that transformers saved.
pub(crate) fn model<B: burn::tensor::backend::Backend>(device: &B::Device) -> Gpt2<B> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), CONFIG).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), WEIGHTS).unwrap();
    load_hf(dir.path(), device).unwrap()
}

mod forward_and_backward {
    use super::*;

    fn check<B>(device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        check_with::<B>(Operations::Kernels, device, tolerance);
        // Burn's own operations round more often: 1.3e-4 in the logits on ndarray. A wrong derivative is off by far more.
        check_with::<B>(Operations::Reference, device, 10.0 * tolerance);
    }

    fn check_with<B>(operations: Operations, device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let golden = Golden::load();
        let model = model::<B>(device).with_operations(operations);
        let (inputs, targets) = (
            golden.tokens::<B>("inputs", device),
            golden.tokens::<B>("targets", device),
        );

        let logits = floats(model.logits(inputs.clone()));
        let error = relative_error(&logits, &golden.floats("logits"));
        assert!(error < tolerance, "{operations}: logits: relative error {error:.2e}");

        let loss = model.loss(inputs, targets);
        let error = relative_error(&floats(loss.clone()), &golden.floats("loss"));
        assert!(error < tolerance, "{operations}: loss: relative error {error:.2e}");

        let mut gradients = Gradients {
            gradients: GradientsParams::from_grads(loss.backward(), &model),
            found: HashMap::new(),
        };
        visit_parameters(&model, &mut gradients);
        assert_eq!(gradients.found.len(), 28, "parameters of a GPT-2 with two layers");
        for (name, gradient) in gradients.found {
            let error = relative_error(&gradient, &golden.floats(&format!("grad.transformer.{name}")));
            assert!(
                error < tolerance,
                "{operations}: gradient of {name}: relative error {error:.2e}"
            );
        }
    }

    crate::on_every_backend!(check);
}

mod ten_adamw_steps {
    use super::*;

    fn check<B>(device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let golden = Golden::load();
        let mut model = model::<B>(device);
        let mut optimizer = AdamW::<B>::new(AdamWConfig::default());
        let (mut losses, mut norms) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            let (inputs, targets) = (
                golden.tokens::<B>("inputs", device),
                golden.tokens::<B>("targets", device),
            );
            let loss = model.loss(inputs, targets);
            losses.extend(floats(loss.clone()));
            let gradients = GradientsParams::from_grads(loss.clone().backward(), &model);
            let squared_norm = squared_norm(&model, &gradients);
            norms.push(floats(squared_norm.clone())[0].sqrt());
            optimizer.clip_next_gradients(loss.inner(), squared_norm, &CLIP);
            model = optimizer.step(LEARNING_RATE, model, gradients);
        }
        let error = relative_error(&losses, &golden.floats("adamw.loss"));
        assert!(error < tolerance, "losses: relative error {error:.2e}");
        let error = relative_error(&norms, &golden.floats("adamw.grad_norm"));
        assert!(error < tolerance, "gradient norms: relative error {error:.2e}");
        for tensor in parameters(&model) {
            let expected = golden.floats(&format!("adamw.param.transformer.{}", tensor.name));
            let (found, expected) = if tensor.name.ends_with("c_attn.bias") {
                (without_keys(&tensor.values), without_keys(&expected))
            } else {
                (tensor.values, expected)
            };
            let error = relative_error(&found, &expected);
            assert!(
                error < tolerance,
                "{} after ten steps: relative error {error:.2e}",
                tensor.name
            );
        }
    }

    /// The bias of queries and values. That of the keys adds the same to every score of a row, which the softmax takes out
    /// again: its derivative is zero but for rounding, and AdamW divides that noise by itself.
    fn without_keys(bias: &[f32]) -> Vec<f32> {
        let width = bias.len() / 3;
        [&bias[..width], &bias[2 * width..]].concat()
    }

    crate::on_every_backend!(check);
}

struct Gradients {
    gradients: GradientsParams,
    found: HashMap<String, Vec<f32>>,
}

impl<B: AutodiffBackend> NamedVisitor<B> for Gradients {
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<B, D>>) {
        let gradient = self.gradients.remove::<B::InnerBackend, D>(param.id).unwrap();
        self.found.insert(name.to_owned(), floats(gradient));
    }
}
