//! AdamW with GPT-2's settings, over a whole model at once.
//!
//! Burn's own AdamW has no decay groups by rank and clips each parameter by itself; the global norm, the clip and the
//! decay of matrices alone are here.

mod moments;
mod sharding;

use crate::error::TrainError;
use burn::module::{AutodiffModule, EmptyRecord, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{GradientsParams, LearningRate, MultiGradientsParams, Optimizer};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::ops::training::{AdamWInput, AdamWOutput, AdamWStep, Clip, TrainingBackend};
use gpt2_model::weights::{NamedTensor, visit_parameters};
use gpt2_model::{Gpt2, Operands};
use moments::{MomentExporter, MomentImporter};
use serde::{Deserialize, Serialize};
use sharding::is_own;
pub(crate) use sharding::{Shards, change_parameters, largest_share};
use std::collections::HashMap;
use std::iter::Peekable;
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
        Self {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
        }
    }
}

impl AdamWConfig {
    /// The numbers of update number `step`, counted from 1.
    pub fn step(&self, lr: LearningRate, step: u64) -> AdamWStep {
        let power = i32::try_from(step).unwrap_or(i32::MAX);
        AdamWStep {
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            bias_correction2_sqrt: (1.0 - self.beta2.powi(power)).sqrt(),
            step_size: lr / (1.0 - self.beta1.powi(power)),
            decay_factor: 1.0 - lr * self.weight_decay,
        }
    }
}

/// The optimizer, shared between Burn's learner, which steps it, and the training loop, which saves it: a learner does not
/// give its optimizer back.
#[derive(Debug, Clone)]
pub struct AdamW<B: AutodiffBackend> {
    config: AdamWConfig,
    /// Where several ranks share the work: which of the parameters this one updates.
    shards: Option<Arc<Shards>>,
    state: Arc<Mutex<State<B::InnerBackend>>>,
}

#[derive(Debug)]
struct State<B: Backend> {
    /// Updates so far.
    step: u64,
    /// Multiplies the gradients of the next update, `[1]`; 0 from a step on that went wrong.
    scale: Option<Tensor<B, 1>>,
    moments: HashMap<ParamId, Moments<B>>,
    operands: Operands<B>,
}

/// Running means of the gradient and of its square, in the parameter's shape.
#[derive(Debug, Clone)]
struct Moments<B: Backend> {
    exp_avg: TensorPrimitive<B>,
    exp_avg_sq: TensorPrimitive<B>,
}

impl<B: AutodiffBackend> AdamW<B> {
    /// An optimizer that has seen nothing.
    pub fn new(config: AdamWConfig) -> Self {
        Self {
            config,
            shards: None,
            state: Arc::new(Mutex::new(State {
                step: 0,
                scale: None,
                moments: HashMap::new(),
                operands: Operands::new(),
            })),
        }
    }

    /// The same optimizer, but that it keeps moments only of this rank's parameters, and updates no others.
    #[must_use]
    pub(crate) fn sharded(self, shards: Shards) -> Self {
        Self {
            shards: Some(Arc::new(shards)),
            ..self
        }
    }

    /// Which rank updates which parameter, where they share the work.
    pub(crate) fn shards(&self) -> Option<&Shards> {
        self.shards.as_deref()
    }

    /// Keeps `operands` up to date with the parameters that they were rounded from, beginning with the next update.
    pub fn keep_operands(&self, operands: Operands<B::InnerBackend>) {
        self.state().operands = operands;
    }

    /// The operands as the last update left them. Dropped before the next one, they cost nothing; else it copies them.
    pub fn operands(&self) -> Operands<B::InnerBackend> {
        self.state().operands.clone()
    }

    /// Takes back what [`AdamW::export`] gave after `step` updates; `path` is the file it came from.
    ///
    /// # Errors
    /// [`TrainError::Model`] if a moment is missing or has another shape than its parameter.
    pub fn import(&self, model: &Gpt2<B>, step: u64, tensors: Vec<NamedTensor>, path: &Path) -> Result<(), TrainError> {
        let mut importer = MomentImporter::<B::InnerBackend>::new(tensors, path, self.shards());
        visit_parameters(model, &mut importer);
        let moments = importer.finish()?;
        let mut state = self.state();
        state.step = step;
        state.moments = moments;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State<B::InnerBackend>> {
        // A panic while the lock was held ends the run anyway; the state is still what it was.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> AdamW<B>
where
    B: AutodiffBackend,
    B::InnerBackend: TrainingBackend,
{
    /// Copies the moments that are kept here to the host, named `exp_avg.<parameter>` and `exp_avg_sq.<parameter>`.
    pub fn export(&self, model: &Gpt2<B>) -> Vec<NamedTensor> {
        let state = self.state();
        let mut exporter = MomentExporter::new(&state.moments);
        visit_parameters(model, &mut exporter);
        exporter.tensors
    }

    /// Settles what gradients are multiplied by from the next update on, without waiting for the device: from the sum of the
    /// micro-steps' losses and the squared norm of the sum of their gradients, both `[1]`. Until the first call it is 1.
    ///
    /// If one of the two is not finite, neither that update nor any later one changes anything.
    pub fn clip_next_gradients(
        &self,
        loss: Tensor<B::InnerBackend, 1>,
        squared_norm: Tensor<B::InnerBackend, 1>,
        clip: &Clip,
    ) {
        let [loss, squared_norm] = [loss, squared_norm].map(|number| number.into_primitive().tensor());
        let mut state = self.state();
        let before = state.scale.take().map(|scale| scale.into_primitive().tensor());
        let scale = B::InnerBackend::gradient_scale(loss, squared_norm, before, clip);
        state.scale = Some(Tensor::from_primitive(TensorPrimitive::Float(scale)));
    }

    /// Rounds the operands again whose parameters other ranks have updated.
    pub(crate) fn round_operands_of_others(&self, model: &Gpt2<B>) {
        let mut state = self.state();
        model.visit(&mut RoundOperands {
            shards: self.shards(),
            operands: &mut state.operands,
        });
    }
}

/// Rounds operands whose parameters are not updated here.
struct RoundOperands<'a, B: Backend> {
    shards: Option<&'a Shards>,
    operands: &'a mut Operands<B>,
}

impl<B> ModuleVisitor<B> for RoundOperands<'_, B::InnerBackend>
where
    B: AutodiffBackend,
    B::InnerBackend: TrainingBackend,
{
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if is_own(self.shards, param.id) {
            return;
        }
        if let Some(operand) = self.operands.get_mut(&param.id) {
            let weight = param.val().inner().into_primitive().tensor();
            let rounded = B::InnerBackend::round_weights(weight, operand.dtype().into());
            *operand = Tensor::from_primitive(TensorPrimitive::Float(rounded));
        }
    }
}

impl<B, M> Optimizer<M, B> for AdamW<B>
where
    B: AutodiffBackend,
    M: AutodiffModule<B>,
    B::InnerBackend: TrainingBackend,
{
    /// Nothing: checkpoints go through [`AdamW::export`], which keeps names beside the values.
    type Record = EmptyRecord;

    fn step(&mut self, lr: LearningRate, model: M, grads: GradientsParams) -> M {
        let mut state = self.state();
        state.step += 1;
        let scale = match &state.scale {
            Some(scale) => scale.clone(),
            None => Tensor::ones([1], &model.devices()[0]),
        };
        let step = self.config.step(lr, state.step);
        let State { moments, operands, .. } = &mut *state;
        let mut taken = TakeParameters {
            shards: self.shards(),
            moments,
            operands,
            grads,
            ids: Vec::new(),
            inputs: Vec::new(),
            placeholders: Placeholders(HashMap::new()),
        };
        let model = model.map(&mut taken);
        let TakeParameters { ids, inputs, .. } = taken;
        let outputs = B::InnerBackend::adamw(inputs, &step, scale.into_primitive().tensor());
        let mut returned = ReturnParameters {
            outputs: ids.into_iter().zip(outputs).peekable(),
            moments,
            operands,
        };
        let model = model.map(&mut returned);
        assert!(returned.outputs.next().is_none(), "every parameter is put back");
        model
    }

    fn step_multi(&mut self, lr: LearningRate, model: M, mut grads: MultiGradientsParams) -> M {
        let mut sums = GradientsParams::new();
        model.visit(&mut SumDevices {
            from: &mut grads,
            into: &mut sums,
        });
        self.step(lr, model, sums)
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

/// Takes every parameter that is updated here out of the model, so that it is uniquely owned meanwhile.
struct TakeParameters<'a, B: Backend> {
    shards: Option<&'a Shards>,
    moments: &'a mut HashMap<ParamId, Moments<B>>,
    operands: &'a mut Operands<B>,
    grads: GradientsParams,
    ids: Vec<ParamId>,
    inputs: Vec<AdamWInput<FloatTensor<B>>>,
    placeholders: Placeholders<B>,
}

/// What stands in a model while its parameters are out of it, by the number of dimensions.
struct Placeholders<B: Backend>(HashMap<usize, FloatTensor<B>>);

impl<B: Backend> Placeholders<B> {
    /// For a parameter of the shape of `tensor`.
    fn of<const D: usize>(&mut self, tensor: &Tensor<B, D>) -> Tensor<B, D> {
        let placeholder = self.0.entry(D).or_insert_with(|| {
            let placeholder = Tensor::<B, D>::empty([1; D], &tensor.device());
            placeholder.into_primitive().tensor()
        });
        Tensor::from_primitive(TensorPrimitive::Float(placeholder.clone()))
    }
}

impl<B: AutodiffBackend> ModuleMapper<B> for TakeParameters<'_, B::InnerBackend> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let gradient = self.grads.remove::<B::InnerBackend, D>(id);
        let Some(gradient) = gradient.filter(|_| is_own(self.shards, id)) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let tensor = tensor.inner();
        let zeros = || {
            // One after the other in memory, as `upload` has them.
            let zeros = Tensor::<B::InnerBackend, 1>::zeros([tensor.shape().num_elements()], &tensor.device());
            zeros.reshape::<D, _>(tensor.shape()).into_primitive()
        };
        let Moments { exp_avg, exp_avg_sq } = self.moments.remove(&id).unwrap_or_else(|| Moments {
            exp_avg: zeros(),
            exp_avg_sq: zeros(),
        });
        let placeholder = self.placeholders.of(&tensor);
        self.ids.push(id);
        self.inputs.push(AdamWInput {
            parameter: tensor.into_primitive().tensor(),
            grad: gradient.into_primitive().tensor(),
            exp_avg: exp_avg.tensor(),
            exp_avg_sq: exp_avg_sq.tensor(),
            operand: self
                .operands
                .remove(&id)
                .map(|operand| operand.into_primitive().tensor()),
            has_weight_decay: D >= 2,
        });
        Param::from_mapped_value(id, Tensor::from_inner(placeholder), mapper)
    }
}

/// Puts the updated parameters back into the model.
struct ReturnParameters<'a, B: Backend, O: Iterator<Item = (ParamId, AdamWOutput<FloatTensor<B>>)>> {
    /// In the order in which they were taken.
    outputs: Peekable<O>,
    moments: &'a mut HashMap<ParamId, Moments<B>>,
    operands: &'a mut Operands<B>,
}

impl<B, O> ModuleMapper<B> for ReturnParameters<'_, B::InnerBackend, O>
where
    B: AutodiffBackend,
    O: Iterator<Item = (ParamId, AdamWOutput<FloatTensor<B::InnerBackend>>)>,
{
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let Some((_, output)) = self.outputs.next_if(|(taken, _)| *taken == id) else {
            return Param::from_mapped_value(id, tensor, mapper);
        };
        let [exp_avg, exp_avg_sq] = [output.exp_avg, output.exp_avg_sq].map(TensorPrimitive::Float);
        self.moments.insert(id, Moments { exp_avg, exp_avg_sq });
        if let Some(operand) = output.operand {
            let operand = Tensor::from_primitive(TensorPrimitive::Float(operand));
            self.operands.insert(id, operand);
        }
        let value = Tensor::from_primitive(TensorPrimitive::Float(output.parameter));
        Param::from_mapped_value(id, Tensor::from_inner(value).require_grad(), mapper)
    }
}

/// The sum of the squares of all gradients, on the device.
///
/// # Shapes
/// The result is `[1]`.
pub fn squared_norm<B>(model: &Gpt2<B>, grads: &GradientsParams) -> Tensor<B::InnerBackend, 1>
where
    B: AutodiffBackend,
    B::InnerBackend: TrainingBackend,
{
    let mut visitor = Collect::<B::InnerBackend> {
        grads,
        found: Vec::new(),
    };
    model.visit(&mut visitor);
    Tensor::from_primitive(TensorPrimitive::Float(B::InnerBackend::squared_norm(visitor.found)))
}

/// The gradients in the order of the parameters.
struct Collect<'a, B: Backend> {
    grads: &'a GradientsParams,
    found: Vec<FloatTensor<B>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Collect<'_, B::InnerBackend> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(grad) = self.grads.get::<B::InnerBackend, D>(param.id) {
            self.found.push(grad.into_primitive().tensor());
        }
    }
}
