//! The training task: what Burn's learner calls to compute a loss and its gradients, and what it gets.

use crate::batches::MicroBatch;
use crate::observer::StepReport;
use crate::step_log::StepRecord;
use burn::module::{AutodiffModule, Devices, Module, ModuleMapper, ModuleVisitor};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{ElementConversion, Tensor};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use gpt2_model::Gpt2;
use gpt2_model::ops::Gpt2Backend;
use std::fmt::{self, Display, Formatter};
use std::sync::{Arc, Mutex, PoisonError};

/// A GPT-2 that is being trained on next-token prediction.
///
/// Clones share one model. Burn's learner hands its optimizer a clone of the task and keeps the original meanwhile: with
/// weights of their own, every update would first copy them all.
#[derive(Debug, Clone)]
pub(crate) struct TrainingTask<B: Backend> {
    /// Taken only while a module's method changes it. Those who read it share it: a clone of a model clones each of its
    /// parameters.
    model: Arc<Mutex<Option<Arc<Gpt2<B>>>>>,
}

impl<B: Backend> TrainingTask<B> {
    /// A task of its own.
    pub(super) fn new(model: Gpt2<B>) -> Self {
        Self {
            model: Arc::new(Mutex::new(Some(Arc::new(model)))),
        }
    }

    /// The model as it is now. Dropped before the next update, it costs nothing; else the update copies the weights.
    pub(super) fn model(&self) -> Arc<Gpt2<B>> {
        let model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        model.clone().expect("no other clone is changing the model")
    }

    /// Puts what `change` makes of the model in its place, for all clones.
    pub(super) fn change(self, change: impl FnOnce(Gpt2<B>) -> Gpt2<B>) -> Self {
        {
            let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
            let before = model.take().expect("no other clone is changing the model");
            *model = Some(Arc::new(change(Arc::unwrap_or_clone(before))));
        }
        self
    }
}

impl<B: Backend> Module<B> for TrainingTask<B> {
    type Record = <Gpt2<B> as Module<B>>::Record;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        self.model().collect_devices(devices)
    }

    fn fork(self, device: &B::Device) -> Self {
        self.change(|model| model.fork(device))
    }

    fn to_device(self, device: &B::Device) -> Self {
        self.change(|model| model.to_device(device))
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        self.model().visit(visitor);
    }

    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        self.change(|model| model.map(mapper))
    }

    fn load_record(self, record: Self::Record) -> Self {
        self.change(|model| model.load_record(record))
    }

    fn into_record(self) -> Self::Record {
        Arc::unwrap_or_clone(self.model()).into_record()
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for TrainingTask<B> {
    type InnerModule = TrainingTask<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        TrainingTask::new(self.model().valid())
    }

    fn from_inner(task: Self::InnerModule) -> Self {
        Self::new(Gpt2::from_inner(Arc::unwrap_or_clone(task.model())))
    }
}

impl<B: Backend> Display for TrainingTask<B> {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        self.model().fmt(f)
    }
}

/// What a step gives to Burn's learner: first only the loss, on the device; then the measured report.
#[derive(Debug)]
pub(crate) enum StepOutput<B: Backend> {
    /// Mean loss of a micro-batch, `[1]`.
    Loss(Tensor<B, 1>),
    /// A whole step, measured.
    Report(Arc<StepReport>),
}

impl<B: Backend> ItemLazy for StepOutput<B> {
    type ItemSync = Arc<StepReport>;

    fn sync(self) -> Arc<StepReport> {
        match self {
            Self::Report(report) => report,
            Self::Loss(loss) => {
                let loss = loss.into_scalar().elem(); // host–device sync
                Arc::new(StepReport {
                    record: StepRecord {
                        loss: Some(loss),
                        ..StepRecord::default()
                    },
                    ..StepReport::default()
                })
            }
        }
    }
}

impl<B: AutodiffBackend + Gpt2Backend> TrainStep for TrainingTask<B> {
    type Input = MicroBatch<B>;
    type Output = StepOutput<B::InnerBackend>;

    fn step(&self, batch: MicroBatch<B>) -> TrainOutput<Self::Output> {
        let loss = self.model().loss(batch.inputs, batch.targets);
        let output = StepOutput::Loss(loss.clone().inner());
        TrainOutput::new(self, loss.backward(), output)
    }
}

impl<B: Gpt2Backend> InferenceStep for TrainingTask<B> {
    type Input = MicroBatch<B>;
    type Output = StepOutput<B>;

    fn step(&self, batch: MicroBatch<B>) -> StepOutput<B> {
        StepOutput::Loss(self.model().loss(batch.inputs, batch.targets))
    }
}
