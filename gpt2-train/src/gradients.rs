//! The gradients of a step: their sum over its micro-steps, and as a list of tensors.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};
use gpt2_model::Gpt2;
use gpt2_model::ops::training::TrainingBackend;
use gpt2_model::spans::{Operation, Pass, span};

/// Gradients of the micro-steps that have been taken. One micro-step costs no addition and no copy.
pub(crate) enum GradientSum<B: AutodiffBackend> {
    Empty,
    One(GradientsParams),
    Several(Vec<FloatTensor<B::InnerBackend>>),
}

impl<B> GradientSum<B>
where
    B: AutodiffBackend,
    B::InnerBackend: TrainingBackend,
{
    /// With the gradients of one more micro-step of `model`.
    pub(crate) fn add(self, model: &Gpt2<B>, gradients: GradientsParams) -> Self {
        let sums = match self {
            Self::Empty => return Self::One(gradients),
            Self::One(first) => take_tensors(model, first),
            Self::Several(sums) => sums,
        };
        let gradients = take_tensors(model, gradients);
        Self::Several(span(Operation::GradientSum, Pass::Update, || {
            B::InnerBackend::add_gradients(sums, gradients)
        }))
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

/// The gradients of all parameters, in the order of the model.
pub(crate) fn take_tensors<B: AutodiffBackend>(
    model: &Gpt2<B>,
    gradients: GradientsParams,
) -> Vec<FloatTensor<B::InnerBackend>> {
    let mut taken = Take::<B> {
        gradients,
        tensors: Vec::new(),
    };
    model.visit(&mut taken);
    taken.tensors
}

/// The opposite of [`take_tensors`].
pub(crate) fn of_tensors<B: AutodiffBackend>(
    model: &Gpt2<B>,
    tensors: impl IntoIterator<Item = FloatTensor<B::InnerBackend>>,
) -> GradientsParams {
    let mut given = Give::<B, _> {
        tensors: tensors.into_iter(),
        gradients: GradientsParams::new(),
        backend: std::marker::PhantomData,
    };
    model.visit(&mut given);
    given.gradients
}

struct Take<B: AutodiffBackend> {
    gradients: GradientsParams,
    tensors: Vec<FloatTensor<B::InnerBackend>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Take<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let gradient = self.gradients.remove::<B::InnerBackend, D>(param.id);
        let gradient = gradient.expect("every parameter has a gradient");
        self.tensors.push(gradient.into_primitive().tensor());
    }
}

struct Give<B: AutodiffBackend, I> {
    tensors: I,
    gradients: GradientsParams,
    backend: std::marker::PhantomData<B>,
}

impl<B, I> ModuleVisitor<B> for Give<B, I>
where
    B: AutodiffBackend,
    I: Iterator<Item = FloatTensor<B::InnerBackend>>,
{
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let tensor = self.tensors.next().expect("as many gradients as parameters");
        let gradient = Tensor::<B::InnerBackend, D>::from_primitive(TensorPrimitive::Float(tensor));
        self.gradients.register(param.id, gradient);
    }
}
