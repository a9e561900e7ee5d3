//! AdamW with GPT-2's settings, over a whole model at once.
//!
//! Burn's own AdamW has no decay groups by rank and clips each parameter by itself; the global norm, the clip and the
//! decay of matrices alone are here.

use crate::error::TrainError;
use crate::task::TrainingTask;
use burn::module::{EmptyRecord, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsParams, LearningRate, MultiGradientsParams, Optimizer};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{DType, Tensor, TensorData, TensorPrimitive};
use gpt2_model::weights::NamedTensor;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// AdamW's settings (Loshchilov & Hutter 2019, algorithm 2).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamWConfig {
    /// Decay of the gradient's running mean.
    pub beta1: f64,
    /// Decay of the squared gradient's running mean.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled decay of matrices and embeddings, a step and unit of learning rate. Biases and LayerNorms never decay.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    /// GPT-3's (Brown et al. 2020, appendix B), which nanoGPT and llm.c use for GPT-2.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 }
    }
}

/// The optimizer, shared between Burn's learner, which steps it, and the training loop, which saves it: a learner does not
/// give its optimizer back.
#[derive(Debug, Clone)]
pub struct AdamW<B: AutodiffBackend> {
    config: AdamWConfig,
    state: Arc<Mutex<State<B::InnerBackend>>>,
}

#[derive(Debug)]
struct State<B: Backend> {
    /// Updates so far.
    step: u64,
    /// Multiplies the gradients of the next update.
    grad_scale: f64,
    moments: HashMap<ParamId, Moments<B>>,
}

/// Running means of the gradient and of its square, in the parameter's shape.
#[derive(Debug, Clone)]
struct Moments<B: Backend> {
    mean: TensorPrimitive<B>,
    square: TensorPrimitive<B>,
}

impl<B: AutodiffBackend> AdamW<B> {
    /// An optimizer that has seen nothing.
    pub fn new(config: AdamWConfig) -> Self {
        Self { config, state: Arc::new(Mutex::new(State { step: 0, grad_scale: 1.0, moments: HashMap::new() })) }
    }

    /// Multiplies the gradients of the next update: for the mean over micro-steps and the clip.
    pub fn scale_next_gradients(&self, scale: f64) {
        self.state().grad_scale = scale;
    }

    /// Copies the moments to the host, named `exp_avg.<parameter>` and `exp_avg_sq.<parameter>`.
    pub fn export(&self, task: &TrainingTask<B>) -> Vec<NamedTensor> {
        let mut exporter = MomentExporter { path: Vec::new(), state: &self.state(), tensors: Vec::new() };
        task.model.visit(&mut exporter);
        exporter.tensors
    }

    /// Takes back what [`AdamW::export`] gave after `step` updates; `path` is the file it came from.
    ///
    /// # Errors
    /// [`TrainError::Model`] if a moment is missing or has another shape than its parameter.
    pub fn import(
        &self,
        task: &TrainingTask<B>,
        step: u64,
        tensors: Vec<NamedTensor>,
        path: &Path,
    ) -> Result<(), TrainError> {
        let tensors = tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        let mut importer =
            MomentImporter::<B::InnerBackend> { path: Vec::new(), file: path, tensors, moments: HashMap::new(), error: None };
        task.model.visit(&mut importer);
        if let Some(error) = importer.error {
            return Err(error.into());
        }
        let mut state = self.state();
        state.step = step;
        state.moments = importer.moments;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State<B::InnerBackend>> {
        // A panic while the lock was held ends the run anyway; the state is still what it was.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: AutodiffBackend> Optimizer<TrainingTask<B>, B> for AdamW<B> {
    /// Nothing: checkpoints go through [`AdamW::export`], which keeps names beside the values.
    type Record = EmptyRecord;

    fn step(&mut self, lr: LearningRate, task: TrainingTask<B>, grads: GradientsParams) -> TrainingTask<B> {
        let mut state = self.state();
        state.step += 1;
        let grad_scale = std::mem::replace(&mut state.grad_scale, 1.0);
        let mut update = Update { config: self.config, lr, grad_scale, step: state.step, moments: &mut state.moments, grads };
        task.map(&mut update)
    }

    fn step_multi(&mut self, lr: LearningRate, task: TrainingTask<B>, mut grads: MultiGradientsParams) -> TrainingTask<B> {
        let mut sums = GradientsParams::new();
        task.visit(&mut SumDevices { from: &mut grads, into: &mut sums });
        self.step(lr, task, sums)
    }

    fn to_record(&self) -> EmptyRecord {
        EmptyRecord::new()
    }

    fn load_record(self, _: EmptyRecord) -> Self {
        self
    }
}

/// Gathers the gradients of several devices on one.
struct SumDevices<'a> {
    from: &'a mut MultiGradientsParams,
    into: &'a mut GradientsParams,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for SumDevices<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some((sum, _)) = self.from.remove::<B::InnerBackend, D>(param.id) {
            self.into.register(param.id, sum);
        }
    }
}

/// One AdamW update of every parameter.
struct Update<'a, B: Backend> {
    config: AdamWConfig,
    lr: f64,
    grad_scale: f64,
    /// Counted from 1.
    step: u64,
    moments: &'a mut HashMap<ParamId, Moments<B>>,
    grads: GradientsParams,
}

impl<B: AutodiffBackend> ModuleMapper<B> for Update<'_, B::InnerBackend> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let Some(grad) = self.grads.remove::<B::InnerBackend, D>(id) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let grad = grad * self.grad_scale;
        let (mean, square) = match self.moments.remove(&id) {
            Some(past) => (
                Tensor::<_, D>::from_primitive(past.mean) * beta1 + grad.clone() * (1.0 - beta1),
                Tensor::<_, D>::from_primitive(past.square) * beta2 + grad.square() * (1.0 - beta2),
            ),
            None => (grad.clone() * (1.0 - beta1), grad.square() * (1.0 - beta2)),
        };
        let power = i32::try_from(self.step).unwrap_or(i32::MAX);
        let mean_correction = 1.0 - beta1.powi(power);
        let square_correction = (1.0 - beta2.powi(power)).sqrt();
        let change = mean.clone() / (square.clone().sqrt() / square_correction + eps);
        let decay = if D >= 2 { self.lr * weight_decay } else { 0.0 };
        let value = tensor.inner() * (1.0 - decay) - change * (self.lr / mean_correction);
        self.moments.insert(id, Moments { mean: mean.into_primitive(), square: square.into_primitive() });
        Param::from_mapped_value(id, Tensor::from_inner(value).require_grad(), mapper)
    }
}

/// The sum of the squares of all gradients, on the device.
///
/// # Shapes
/// The result is `[1]`.
pub fn squared_norm<B: AutodiffBackend>(task: &TrainingTask<B>, grads: &GradientsParams) -> Tensor<B::InnerBackend, 1> {
    let mut visitor = SquaredNorm::<B::InnerBackend> { grads, sums: Vec::new() };
    task.visit(&mut visitor);
    Tensor::cat(visitor.sums, 0).sum()
}

struct SquaredNorm<'a, B: Backend> {
    grads: &'a GradientsParams,
    sums: Vec<Tensor<B, 1>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for SquaredNorm<'_, B::InnerBackend> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(grad) = self.grads.get::<B::InnerBackend, D>(param.id) {
            self.sums.push(grad.square().sum());
        }
    }
}

const MEAN: &str = "exp_avg";
const SQUARE: &str = "exp_avg_sq";

struct MomentExporter<'a, B: Backend> {
    path: Vec<String>,
    state: &'a State<B>,
    tensors: Vec<NamedTensor>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for MomentExporter<'_, B::InnerBackend> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let Some(moments) = self.state.moments.get(&param.id) else { return };
        let parameter = self.path.join(".");
        for (prefix, moment) in [(MEAN, &moments.mean), (SQUARE, &moments.square)] {
            let data = Tensor::<B::InnerBackend, D>::from_primitive(moment.clone()).into_data(); // host–device sync
            let shape = data.shape.to_vec();
            let values = data.convert_dtype(DType::F32).into_vec().expect("converted to f32 just now");
            self.tensors.push(NamedTensor { name: format!("{prefix}.{parameter}"), shape, values });
        }
    }
}

struct MomentImporter<'a, B: Backend> {
    path: Vec<String>,
    file: &'a Path,
    tensors: HashMap<String, NamedTensor>,
    moments: HashMap<ParamId, Moments<B>>,
    error: Option<gpt2_model::ModelError>,
}

impl<B: Backend> MomentImporter<'_, B> {
    fn take<const D: usize>(&mut self, prefix: &str, expected: &[usize], device: &B::Device) -> Option<TensorPrimitive<B>> {
        let name = format!("{prefix}.{}", self.path.join("."));
        let found = self.tensors.remove(&name);
        match found {
            Some(tensor) if tensor.shape == expected => {
                let data = TensorData::new(tensor.values, tensor.shape);
                Some(Tensor::<B, D>::from_data(data, device).into_primitive())
            }
            found => {
                self.error.get_or_insert_with(|| gpt2_model::ModelError::TensorMismatch {
                    path: self.file.to_owned(),
                    name,
                    found: found.map_or_else(|| "missing".to_owned(), |tensor| format!("{:?}", tensor.shape)),
                    expected: format!("{expected:?}"),
                });
                None
            }
        }
    }
}

impl<B: AutodiffBackend> ModuleVisitor<B> for MomentImporter<'_, B::InnerBackend> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        // On the parameter's own device: a moment elsewhere would be copied at every step.
        let (shape, device) = (param.shape().to_vec(), param.device());
        let mean = self.take::<D>(MEAN, &shape, &device);
        let square = self.take::<D>(SQUARE, &shape, &device);
        if let Some((mean, square)) = mean.zip(square) {
            self.moments.insert(param.id, Moments { mean, square });
        }
    }
}
