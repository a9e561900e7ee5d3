//! The gradients of a step: their sum over its micro-steps, and as a list of tensors.

use burn::module::{Module as _, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};
use gpt2_model::Gpt2;
use gpt2_model::ops::training::TrainingBackend;
use gpt2_model::spans::{Operation, Pass, span};
use std::collections::HashMap;

/// Gradients, each with the parameter that it belongs to.
pub(crate) type GradientList<B> = Vec<(ParamId, FloatTensor<<B as AutodiffBackend>::InnerBackend>)>;

/// Gradients of the micro-steps that have been taken. One micro-step costs no addition and no copy.
pub(crate) enum GradientSum<B: AutodiffBackend> {
    Empty,
    One(GradientsParams),
    Several(GradientList<B>),
}

impl<B> GradientSum<B>
where
    B: AutodiffBackend,
    B::InnerBackend: TrainingBackend,
{
    /// With the gradients of one more micro-step of `model`.
    pub(crate) fn add(self, model: &Gpt2<B>, gradients: GradientsParams) -> Self {
        match self {
            Self::Empty => Self::One(gradients),
            sums => Self::Several(add::<B>(sums.list(model), take_tensors(model, gradients))),
        }
    }

    /// Takes the sums of the parameters of `gradients` out, and gives them with these added.
    pub(crate) fn take_with(&mut self, model: &Gpt2<B>, gradients: GradientList<B>) -> GradientList<B> {
        let mut sums = match std::mem::replace(self, Self::Empty) {
            Self::Empty => return gradients,
            sums => sums.list(model),
        };
        let is_taken = |id: &ParamId| gradients.iter().any(|(taken, _)| taken == id);
        let taken = sums.extract_if(.., |(id, _)| is_taken(id)).collect();
        *self = Self::Several(sums);
        add::<B>(taken, gradients)
    }

    /// The sum, as a list.
    pub(crate) fn list(self, model: &Gpt2<B>) -> GradientList<B> {
        match self {
            Self::Empty => Vec::new(),
            Self::One(gradients) => take_tensors(model, gradients),
            Self::Several(sums) => sums,
        }
    }

    /// The sum.
    pub(crate) fn finish(self, model: &Gpt2<B>) -> GradientsParams {
        match self {
            Self::Empty => GradientsParams::new(),
            Self::One(gradients) => gradients,
            Self::Several(sums) => of_tensors(model, sums),
        }
    }
}

/// The `sums` with `gradients` of the same parameters, in the same order, added.
fn add<B>(sums: GradientList<B>, gradients: GradientList<B>) -> GradientList<B>
where
    B: AutodiffBackend,
    B::InnerBackend: TrainingBackend,
{
    let (ids, sums): (Vec<_>, Vec<_>) = sums.into_iter().unzip();
    let (of, gradients): (Vec<_>, Vec<_>) = gradients.into_iter().unzip();
    assert_eq!(ids, of, "each micro-step has a gradient for each parameter");
    let sums = span(Operation::GradientSum, Pass::Update, || {
        B::InnerBackend::add_gradients(sums, gradients)
    });
    ids.into_iter().zip(sums).collect()
}

/// The gradients of the parameters that have one, in the order of the model.
fn take_tensors<B: AutodiffBackend>(model: &Gpt2<B>, gradients: GradientsParams) -> GradientList<B> {
    let mut taken = Take::<B> {
        gradients,
        tensors: Vec::new(),
    };
    model.visit(&mut taken);
    taken.tensors
}

/// The gradients of `model` from a list, in any order.
pub(crate) fn of_tensors<B: AutodiffBackend>(
    model: &Gpt2<B>,
    tensors: impl IntoIterator<Item = (ParamId, FloatTensor<B::InnerBackend>)>,
) -> GradientsParams {
    let mut given = Give::<B> {
        tensors: tensors.into_iter().collect(),
        gradients: GradientsParams::new(),
    };
    model.visit(&mut given);
    given.gradients
}

struct Take<B: AutodiffBackend> {
    gradients: GradientsParams,
    tensors: GradientList<B>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Take<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Some(gradient) = self.gradients.remove::<B::InnerBackend, D>(param.id) {
            self.tensors.push((param.id, gradient.into_primitive().tensor()));
        }
    }
}

struct Give<B: AutodiffBackend> {
    tensors: HashMap<ParamId, FloatTensor<B::InnerBackend>>,
    gradients: GradientsParams,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Give<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let tensor = self.tensors.remove(&param.id).expect("every parameter has a gradient");
        let gradient = Tensor::<B::InnerBackend, D>::from_primitive(TensorPrimitive::Float(tensor));
        self.gradients.register(param.id, gradient);
    }
}
