//! The backends, a small model, and the golden values of one that transformers saved.

use burn::backend::Autodiff;
use burn::module::Param;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, Int, Tensor, TensorData};
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::weights::{NamedVisitor, Weights, visit_parameters};
use gpt2_model::{Gpt2, Gpt2Config, Variant};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::path::Path;

#[cfg(feature = "flex")]
mod backend {
    use gpt2_model::Precision;

    pub(crate) type Inference = burn_flex::Flex;
    pub(crate) const DEVICE: burn_flex::FlexDevice = burn_flex::FlexDevice;
    /// It has no TF32.
    pub(crate) const PRECISIONS: &[Precision] = &[Precision::F32, Precision::Bf16];
}

#[cfg(not(feature = "flex"))]
mod backend {
    use gpt2_model::Precision;

    pub(crate) type Inference = burn_ndarray::NdArray;
    pub(crate) const DEVICE: burn_ndarray::NdArrayDevice = burn_ndarray::NdArrayDevice::Cpu;
    /// It has no `bf16`.
    pub(crate) const PRECISIONS: &[Precision] = &[Precision::F32, Precision::Tf32];
}

pub(crate) use backend::{DEVICE, Inference, PRECISIONS};

pub(crate) type Training = Autodiff<Inference>;

/// A GPT-2 with two layers, saved by transformers, and what PyTorch computes with it (`cargo xtask fixtures`).
pub(crate) const TINY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../crates/gpt2-backend-tests/tests/fixtures/tiny"
);

/// Two layers of width 8.
pub(crate) fn small() -> Gpt2Config {
    Gpt2Config {
        vocab_size: 61,
        block_size: 16,
        n_layer: 2,
        n_head: 2,
        n_embd: 8,
        dropout: 0.0,
        variant: Variant::default(),
    }
}

/// The golden values by name.
pub(crate) struct Golden(Vec<u8>);

impl Golden {
    pub(crate) fn load() -> Self {
        Self(std::fs::read(Path::new(TINY).join("expected.safetensors")).unwrap())
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let (values, rest) = file.tensor(name).unwrap().data().as_chunks::<4>();
        assert!(rest.is_empty());
        values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    pub(crate) fn tokens<B: Backend>(&self, name: &str, device: &B::Device) -> Tensor<B, 2, Int> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        let (values, _) = view.data().as_chunks::<8>();
        let values: Vec<i32> = values.iter().map(|&bytes| i64::from_le_bytes(bytes) as i32).collect();
        Tensor::from_data(TensorData::new(values, view.shape()), device)
    }
}

/// The model of the golden values, with dropout.
pub(crate) fn golden_model<B: Backend>(dropout: f64, device: &B::Device) -> Gpt2<B> {
    let weights = Weights::open(Path::new(TINY)).unwrap();
    let config = Gpt2Config {
        dropout,
        ..weights.config().clone()
    };
    weights.load(&config, device).unwrap()
}

/// Asserts that the loss and every gradient of `model` are the golden ones, but for a relative error of `tolerance`.
pub(crate) fn check_loss_and_gradients<B: AutodiffBackend + Gpt2Backend>(
    model: &Gpt2<B>,
    device: &B::Device,
    tolerance: f64,
) {
    let golden = Golden::load();
    let (inputs, targets) = (golden.tokens("inputs", device), golden.tokens("targets", device));
    let loss = model.loss(inputs, targets);
    let error = relative_error(&floats(loss.clone()), &golden.floats("loss"));
    assert!(error < tolerance, "loss: relative error {error:.2e}");
    let gradients = gradients(model, &loss);
    assert_eq!(gradients.len(), 28);
    for (name, gradient) in gradients {
        let error = relative_error(&gradient, &golden.floats(&format!("grad.transformer.{name}")));
        assert!(error < tolerance, "gradient of {name}: relative error {error:.2e}");
    }
}

/// The gradient of each parameter by its name.
pub(crate) fn gradients<B: AutodiffBackend>(model: &Gpt2<B>, loss: &Tensor<B, 1>) -> BTreeMap<String, Vec<f32>> {
    struct Visitor<B: AutodiffBackend> {
        gradients: B::Gradients,
        found: BTreeMap<String, Vec<f32>>,
    }
    impl<B: AutodiffBackend> NamedVisitor<B> for Visitor<B> {
        fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<B, D>>) {
            let gradient = param.val().grad(&self.gradients).expect("every parameter has one");
            self.found.insert(name.to_owned(), floats(gradient));
        }
    }
    let mut visitor = Visitor {
        gradients: loss.backward(),
        found: BTreeMap::new(),
    };
    visit_parameters(model, &mut visitor);
    visitor.found
}

/// The elements, on the host.
pub(crate) fn floats<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert_dtype(DType::F32).into_vec().unwrap()
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// ‖found − expected‖ / ‖expected‖. A NaN or another length is infinitely wrong.
pub(crate) fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let error = difference / norm(&mut expected.iter().map(|value| f64::from(*value))).max(f64::MIN_POSITIVE);
    if error.is_nan() { f64::INFINITY } else { error }
}

/// Tokens of a batch, different ones everywhere.
pub(crate) fn tokens<B: Backend>(
    batch: usize,
    seq: usize,
    vocab_size: usize,
    first: usize,
    device: &B::Device,
) -> Tensor<B, 2, Int> {
    let tokens = (first..first + batch * seq).map(|i| (i * 17 % vocab_size) as i32);
    Tensor::from_data(TensorData::new(tokens.collect::<Vec<_>>(), [batch, seq]), device)
}
