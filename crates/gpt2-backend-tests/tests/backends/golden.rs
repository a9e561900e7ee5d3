//! Small GPT-2s against Hugging Face transformers on PyTorch (float32, CPU): logits, loss, every gradient, and AdamW steps
//! with clipping; OpenAI's architecture, and what differs from it. `cargo xtask fixtures` says how the values were made.

use crate::{floats, relative_error};
use burn::module::Param;
use burn::optim::{GradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, Tensor, TensorData};
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::ops::training::{Clip, TrainingBackend};
use gpt2_model::weights::{NamedVisitor, parameters, visit_parameters};
use gpt2_model::{Gpt2, Operations};
use gpt2_train::optimizer::{AdamW, AdamWConfig, squared_norm};
use safetensors::SafeTensors;
use std::collections::HashMap;

/// A model that transformers saved, and its golden values.
#[derive(Clone, Copy)]
pub(crate) struct Fixture {
    name: &'static str,
    config: &'static [u8],
    weights: &'static [u8],
    expected: &'static [u8],
}

macro_rules! fixture {
    ($name:literal) => {
        Fixture {
            name: $name,
            config: include_bytes!(concat!("../fixtures/", $name, "/config.json")),
            weights: include_bytes!(concat!("../fixtures/", $name, "/model.safetensors")),
            expected: include_bytes!(concat!("../fixtures/", $name, "/expected.safetensors")),
        }
    };
}

/// OpenAI's architecture.
const TINY: Fixture = fixture!("tiny");

/// All of them.
const FIXTURES: [Fixture; 6] = [
    TINY,
    fixture!("relu"),
    fixture!("gelu"),
    fixture!("untied"),
    fixture!("inverse-layer"),
    fixture!("unscaled"),
];

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
        Self::of(TINY)
    }

    fn of(fixture: Fixture) -> Self {
        Self(SafeTensors::deserialize(fixture.expected).unwrap())
    }

    /// The values of a parameter: the classifier has no prefix.
    fn of_parameter(&self, kind: &str, name: &str) -> Vec<f32> {
        let prefix = if name == "lm_head.weight" { "" } else { "transformer." };
        self.floats(&format!("{kind}.{prefix}{name}"))
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

/// The model of OpenAI's architecture that transformers saved.
pub(crate) fn model<B: burn::tensor::backend::Backend>(device: &B::Device) -> Gpt2<B> {
    model_of(TINY, device)
}

fn model_of<B: burn::tensor::backend::Backend>(fixture: Fixture, device: &B::Device) -> Gpt2<B> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), fixture.config).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), fixture.weights).unwrap();
    Gpt2::load(dir.path(), device).unwrap()
}

mod forward_and_backward {
    use super::*;

    fn check<B>(device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        for fixture in FIXTURES {
            check_with::<B>(fixture, Operations::Kernels, device, tolerance);
            // Burn's own operations round more often: 1.3e-4 in the logits on ndarray. A wrong derivative is off by far more.
            check_with::<B>(fixture, Operations::Reference, device, 10.0 * tolerance);
        }
    }

    fn check_with<B>(fixture: Fixture, operations: Operations, device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let golden = Golden::of(fixture);
        let name = fixture.name;
        let model = model_of::<B>(fixture, device).with_operations(operations);
        let (inputs, targets) = (
            golden.tokens::<B>("inputs", device),
            golden.tokens::<B>("targets", device),
        );

        let logits = floats(model.forward(inputs.clone()));
        let error = relative_error(&logits, &golden.floats("logits"));
        assert!(
            error < tolerance,
            "{name}, {operations}: logits: relative error {error:.2e}"
        );

        let loss = model.loss(inputs, targets);
        let error = relative_error(&floats(loss.clone()), &golden.floats("loss"));
        assert!(
            error < tolerance,
            "{name}, {operations}: loss: relative error {error:.2e}"
        );

        let gradients = gradients_of(&loss, &model);
        let count = 28 + usize::from(model.lm_head.is_some());
        assert_eq!(gradients.len(), count, "parameters of a GPT-2 with two layers");
        for (parameter, gradient) in gradients {
            let expected = golden.of_parameter("grad", &parameter);
            // The padded rows of tables of tokens are not in files.
            let (gradient, padding) = gradient.split_at(expected.len());
            assert!(
                padding.iter().all(|value| *value == 0.0),
                "{name}: padding of {parameter}"
            );
            let error = relative_error(gradient, &expected);
            assert!(
                error < tolerance,
                "{name}, {operations}: gradient of {parameter}: relative error {error:.2e}"
            );
        }
    }

    crate::on_every_backend!(check);
}

mod adamw_steps {
    use super::*;

    fn check<B>(device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        for fixture in FIXTURES {
            check_of::<B>(fixture, device, tolerance);
        }
    }

    fn check_of<B>(fixture: Fixture, device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let golden = Golden::of(fixture);
        let name = fixture.name;
        let expected_losses = golden.floats("adamw.loss");
        let mut model = model_of::<B>(fixture, device);
        let mut optimizer = AdamW::<B>::new(AdamWConfig::default());
        let (mut losses, mut norms) = (Vec::new(), Vec::new());
        for _ in &expected_losses {
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
        let error = relative_error(&losses, &expected_losses);
        assert!(error < tolerance, "{name}: losses: relative error {error:.2e}");
        let error = relative_error(&norms, &golden.floats("adamw.grad_norm"));
        assert!(error < tolerance, "{name}: gradient norms: relative error {error:.2e}");
        for tensor in parameters(&model) {
            let expected = golden.of_parameter("adamw.param", &tensor.name);
            let gradient = golden.of_parameter("grad", &tensor.name);
            let [found, expected] = [tensor.values, expected].map(|values| beyond_rounding(&values, &gradient));
            let error = relative_error(&found, &expected);
            assert!(
                error < tolerance,
                "{name}: {} after the last step: relative error {error:.2e}",
                tensor.name
            );
        }
    }

    /// The values whose derivative is more than rounding: AdamW divides each by itself, and so makes a step of noise. That of
    /// the bias of keys is nothing else, since it adds the same to every score of a row, which the softmax takes out again.
    fn beyond_rounding(values: &[f32], gradient: &[f32]) -> Vec<f32> {
        let largest = gradient.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        let pairs = values.iter().zip(gradient);
        let kept: Vec<f32> = pairs
            .filter(|(_, gradient)| gradient.abs() > 1e-4 * largest)
            .map(|(value, _)| *value)
            .collect();
        // Of a classifier of its own only the tokens of the batch have a derivative in the other table.
        assert!(
            5 * kept.len() > values.len(),
            "{} of {} are compared",
            kept.len(),
            values.len()
        );
        kept
    }

    crate::on_every_backend!(check);
}

/// Gradients that are taken out of the backward pass, block by block: the same as those that stay in.
mod block_gradients {
    use super::*;
    use burn::tensor::backend::Backend;
    use burn::tensor::ops::FloatTensor;
    use gpt2_model::ops::{TakeBlockGradients, take_block_gradients};
    use gpt2_model::weights::parameter_names;

    struct Taken<B: Backend>(Vec<Vec<FloatTensor<B>>>);

    impl<B: Backend> TakeBlockGradients<B> for Taken<B> {
        fn take(&mut self, gradients: Vec<FloatTensor<B>>) {
            self.0.push(gradients);
        }
    }

    fn check<B>(device: &B::Device, _tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        for fixture in FIXTURES {
            let golden = Golden::of(fixture);
            let model = model_of::<B>(fixture, device);
            let pass = || {
                let [inputs, targets] = ["inputs", "targets"].map(|name| golden.tokens::<B>(name, device));
                gradients_of(&model.loss(inputs, targets), &model)
            };
            let expected = pass();
            let (Taken(taken), mut found) = take_block_gradients::<B::InnerBackend, _, _>(Taken(Vec::new()), pass);
            let blocks = model.blocks_in_one_operation();
            assert_eq!(taken.len(), blocks.len(), "{}", fixture.name);
            let expected_blocks: &[usize] = match fixture.name {
                // Two layers; where the scores are divided by the layer, the first is as OpenAI's.
                "tiny" | "untied" => &[0, 1],
                "inverse-layer" => &[0],
                _ => &[],
            };
            assert_eq!(blocks, expected_blocks, "{}", fixture.name);
            for (gradients, block) in taken.into_iter().zip(blocks.iter().rev()) {
                let prefix = format!("h.{block}.");
                let names = parameter_names(&model)
                    .into_iter()
                    .filter(|name| name.starts_with(&prefix));
                for (name, gradient) in names.zip(gradients) {
                    let gradient = B::InnerBackend::to_host(gradient);
                    assert!(found.insert(name.clone(), gradient).is_none(), "{name} stayed too");
                }
            }
            assert!(found == expected, "{}: other gradients", fixture.name);
            assert!(pass() == expected, "nothing is taken any more");
            B::InnerBackend::compile_ahead(device, 2, || drop(pass()));
            assert!(pass() == expected, "a rehearsal leaves nothing behind");
        }
    }

    crate::on_every_backend!(check);
}

/// llm.c's own check: its checkpoint, and the state that its training script writes for it (`formats`: 256 numbers of header,
/// inputs, targets, logits, loss, gradients in the order of the checkpoint).
mod llmc_debug_state {
    use super::*;
    use gpt2_model::weights::{Dtype, save_llmc};

    const MODEL: &[u8] = include_bytes!("../fixtures/tiny/llmc_model.bin");
    const STATE: &[u8] = include_bytes!("../fixtures/tiny/llmc_debug_state.bin");
    /// The parameters of a block in the order of the file, each stacked over the layers.
    const BLOCK: [&str; 12] = [
        "ln_1.weight",
        "ln_1.bias",
        "attn.c_attn.weight",
        "attn.c_attn.bias",
        "attn.c_proj.weight",
        "attn.c_proj.bias",
        "ln_2.weight",
        "ln_2.bias",
        "mlp.c_fc.weight",
        "mlp.c_fc.bias",
        "mlp.c_proj.weight",
        "mlp.c_proj.bias",
    ];

    fn check<B>(device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.bin");
        std::fs::write(&path, MODEL).unwrap();
        let model = Gpt2::<B>::load(&path, device).unwrap();
        let again = dir.path().join("again.bin");
        save_llmc(&model, &again, Dtype::F32).unwrap();
        assert!(std::fs::read(again).unwrap() == MODEL, "byte for byte llm.c's");

        let numbers: Vec<[u8; 4]> = STATE.as_chunks::<4>().0.to_vec();
        let integer = |at: usize| i32::from_le_bytes(numbers[at]);
        assert_eq!([integer(0), integer(1)], [20_240_327, 2]);
        let (batch, seq) = (integer(2) as usize, integer(3) as usize);
        let mut at = 256;
        let mut next = |count: usize| {
            at += count;
            &numbers[at - count..at]
        };
        let mut tokens = || {
            let values = next(batch * seq).iter().map(|&bytes| i32::from_le_bytes(bytes));
            let values: Vec<i32> = values.collect();
            Tensor::<B, 2, Int>::from_data(TensorData::new(values, [batch, seq]), device)
        };
        let (inputs, targets) = (tokens(), tokens());
        let mut expected = |count: usize| -> Vec<f32> {
            let values = next(count).iter().map(|&bytes| f32::from_le_bytes(bytes));
            values.collect()
        };
        let close = |what: &str, found: &[f32], expected: &[f32]| {
            let error = relative_error(found, expected);
            assert!(error < tolerance, "{what}: relative error {error:.2e}");
        };
        let logits = floats(model.forward(inputs.clone()));
        close("logits", &logits, &expected(logits.len()));
        let loss = model.loss(inputs, targets);
        close("loss", &floats(loss.clone()), &expected(1));

        let gradients = gradients_of(&loss, &model);
        let blocks = BLOCK
            .iter()
            .flat_map(|name| (0..model.config.n_layer).map(move |layer| format!("h.{layer}.{name}")));
        let names = ["wte.weight", "wpe.weight"]
            .map(str::to_owned)
            .into_iter()
            .chain(blocks);
        for name in names.chain(["ln_f.weight", "ln_f.bias"].map(str::to_owned)) {
            let found = &gradients[&name];
            let values = expected(found.len());
            let input = match BLOCK.iter().find(|kind| name.ends_with(**kind) && kind.contains(".c_")) {
                Some(kind) if kind.ends_with("weight") => {
                    let inner = kind.starts_with("mlp.c_proj");
                    if inner {
                        4 * model.config.n_embd
                    } else {
                        model.config.n_embd
                    }
                }
                _ => 1,
            };
            // `[out, in]` in the file.
            let output = values.len() / input;
            let turned: Vec<f32> = (0..values.len())
                .map(|i| values[i % output * input + i / output])
                .collect();
            close(&format!("gradient of {name}"), found, &turned);
        }
        assert_eq!(at, numbers.len(), "all of the state is compared");
    }

    crate::on_every_backend!(check);
}

/// The gradients of the parameters that have one, by their names.
fn gradients_of<B: AutodiffBackend>(loss: &Tensor<B, 1>, model: &Gpt2<B>) -> HashMap<String, Vec<f32>> {
    let mut gradients = Gradients {
        gradients: GradientsParams::from_grads(loss.backward(), model),
        found: HashMap::new(),
    };
    visit_parameters(model, &mut gradients);
    gradients.found
}

struct Gradients {
    gradients: GradientsParams,
    found: HashMap<String, Vec<f32>>,
}

impl<B: AutodiffBackend> NamedVisitor<B> for Gradients {
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<B, D>>) {
        if let Some(gradient) = self.gradients.remove::<B::InnerBackend, D>(param.id) {
            self.found.insert(name.to_owned(), floats(gradient));
        }
    }
}
