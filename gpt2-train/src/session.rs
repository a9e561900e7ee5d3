//! A training session: from a plan to a learner, through the step loop, to how it ended.

use crate::batches::{TrainingBatches, ValidationBatches};
use crate::checkpoint::{Checkpoint, Checkpoints, RunState};
use crate::error::TrainError;
use crate::hardware::DeviceProbe;
use crate::lr::ScheduleWalk;
use crate::metrics::{NumberMetric, TextMetric};
use crate::metrics_log::MetricsLog;
use crate::optimizer::{AdamW, AdamWConfig, TrainingBackend};
use crate::plan::RunPlan;
use crate::renderer::{Announced, Dashboard, PlainRenderer, QuietRenderer};
use crate::run_dir::RunPaths;
use crate::strategy::{Components, Ending, StepLoop, window_of, window_steps};
use crate::task::TrainingTask;
use burn::tensor::backend::AutodiffBackend;
use burn::train::logger::InMemoryMetricLogger;
use burn::train::{FileApplicationLoggerInstaller, Interrupter, Learner, SupervisedTraining, TrainingStrategy};
use gpt2_data::{LoaderConfig, TokenStream};
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::weights;
use std::sync::{Arc, Mutex, PoisonError};

/// How a session is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Display {
    /// Burn's dashboard, which takes over the terminal; lines where it cannot.
    Dashboard,
    /// Lines on standard output.
    Plain,
    /// Nothing.
    Quiet,
}

/// Everything that a session starts from, checked before.
pub struct Session<B: AutodiffBackend> {
    /// The plan.
    pub plan: RunPlan,
    /// The run directory's files; the caller holds its lock.
    pub paths: RunPaths,
    /// Where to compute.
    pub device: B::Device,
    /// Looks at the device's memory.
    pub probe: Arc<dyn DeviceProbe + Send + Sync>,
    /// FLOP/s of the device in the plan's precision, where it is known.
    pub peak_flops: Option<f64>,
    /// Training tokens.
    pub training: Arc<TokenStream>,
    /// Validation tokens; none where the plan never evaluates.
    pub validation: Option<Arc<TokenStream>>,
    /// Entropy of the validation tokens in nats, where it is known.
    pub floor: Option<f64>,
    /// The checkpoint to go on from.
    pub resume: Option<Checkpoint>,
    /// How to show it.
    pub display: Display,
    /// Asks the session to save and stop.
    pub interrupter: Interrupter,
    /// Whether checkpoints are kept; a measurement needs none.
    pub save: bool,
}

impl<B> Session<B>
where
    B: AutodiffBackend + Gpt2Backend,
    B::InnerBackend: TrainingBackend,
{
    /// Trains until the plan's end, a limit, or a request to stop, and saves a last checkpoint.
    ///
    /// # Errors
    /// Whatever stops a run, see [`TrainError`]. The newest checkpoint is then the way back.
    pub fn train(self) -> Result<Ending, TrainError> {
        let plan = self.plan;
        let optimizer = AdamW::new(AdamWConfig {
            beta1: plan.beta1,
            beta2: plan.beta2,
            eps: plan.eps,
            weight_decay: plan.weight_decay,
        });
        B::InnerBackend::keep_memory_by_size(&self.device, true);
        let (task, start) = starting_point(&plan, self.resume.as_ref(), &optimizer, &self.device)?;
        let config = LoaderConfig {
            batch: plan.batch,
            seq: plan.seq,
            grad_accum: plan.grad_accum,
            world_size: 1,
            rank: 0,
            seed: plan.seed,
            prefetch: plan.prefetch,
            workers: 1,
        };
        let training =
            TrainingBatches::<B>::new(self.training, config, start.step..plan.last_step(), self.device.clone());
        let validation = match self.validation {
            Some(stream) => {
                ValidationBatches::new(stream, plan.batch, plan.seq, plan.eval_batches, self.device.clone())?
            }
            None => ValidationBatches::none(self.device.clone()),
        };
        let log = MetricsLog::open(self.paths.metrics(), start.step)?;
        let ending = Arc::new(Mutex::new(None));
        let probe = self.probe;
        let window = (start.step > 0).then(|| window_of(start.step, window_steps(&plan)) - 1);
        let schedule = ScheduleWalk::new(plan.lr_schedule(), start.step);
        let learner = Learner::new(task, optimizer.clone(), schedule);
        let step_loop = StepLoop {
            paths: self.paths.clone(),
            start,
            floor: self.floor,
            peak_flops: self.peak_flops,
            optimizer,
            checkpoints: Checkpoints::open(self.paths.checkpoints())?,
            log: Mutex::new(Some(log)),
            probe: Arc::clone(&probe),
            data_error: training.error(),
            ending: Arc::clone(&ending),
            device: self.device,
            saves: self.save,
            plan: plan.clone(),
        };
        let supervised =
            SupervisedTraining::<Components<B>>::new(self.paths.root(), Arc::new(training), Arc::new(validation))
                .with_training_strategy(TrainingStrategy::Custom(Arc::new(step_loop)))
                .with_interrupter(self.interrupter.clone())
                .with_application_logger(Some(Box::new(FileApplicationLoggerInstaller::new(self.paths.log()))))
                // The run's own record is metrics.jsonl; Burn's store only feeds what is on the screen.
                .with_metric_logger(InMemoryMetricLogger::default());
        let supervised = with_metrics(supervised, self.floor.is_some(), self.peak_flops.is_some());
        let compiled = move || probe.compiled_kernels();
        let result = match self.display {
            Display::Dashboard => {
                let start = move || Dashboard::start(self.interrupter, window, plan.log_every);
                supervised.renderer(Announced::new(compiled, start))
            }
            Display::Plain => supervised.renderer(Announced::new(compiled, move || PlainRenderer::new(plan.log_every))),
            Display::Quiet => supervised.renderer(QuietRenderer),
        }
        .launch(learner);
        drop(result); // gives the terminal back
        ending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .expect("the strategy leaves an ending unless it panics")
    }
}

/// The model and where the run stands: from a checkpoint, from given weights, or from nothing.
fn starting_point<B: AutodiffBackend>(
    plan: &RunPlan,
    resume: Option<&Checkpoint>,
    optimizer: &AdamW<B>,
    device: &B::Device,
) -> Result<(TrainingTask<B>, RunState), TrainError> {
    let weights_dir = resume.map(Checkpoint::path).or(plan.init.as_deref());
    let model = match weights_dir {
        Some(dir) => weights::load_hf_as::<B>(&plan.model, dir, device)?,
        None => plan.model.init(plan.seed, device)?,
    };
    let task = TrainingTask::new(model.with_precision(plan.precision).with_recompute(plan.recompute));
    let state = match resume {
        Some(checkpoint) => {
            if checkpoint.state.step > 0 {
                checkpoint.restore_optimizer(&task, optimizer)?;
            }
            checkpoint.state.clone()
        }
        None => RunState {
            seed: plan.seed,
            ..RunState::default()
        },
    };
    Ok((task, state))
}

fn with_metrics<B>(
    supervised: SupervisedTraining<Components<B>>,
    floor_is_known: bool,
    peak_is_known: bool,
) -> SupervisedTraining<Components<B>>
where
    B: AutodiffBackend + Gpt2Backend,
    B::InnerBackend: TrainingBackend,
{
    let mut supervised = supervised
        .metric_train(TextMetric::STEP)
        .metric_valid(TextMetric::STEP)
        .metric_train(TextMetric::SAMPLE)
        .metric_train(TextMetric::MEMORY)
        .metric_train_numeric(NumberMetric::TRAIN_LOSS)
        .metric_valid_numeric(NumberMetric::VALID_LOSS);
    if floor_is_known {
        supervised = supervised
            .metric_train_numeric(NumberMetric::TRAIN_ABOVE_FLOOR)
            .metric_valid_numeric(NumberMetric::VALID_ABOVE_FLOOR);
    }
    supervised = supervised
        .metric_train_numeric(NumberMetric::TOKENS_PER_SEC)
        .metric_train_numeric(NumberMetric::PEAK_MEMORY)
        .metric_train_numeric(NumberMetric::STEP_MS)
        .metric_train_numeric(NumberMetric::LEARNING_RATE)
        .metric_train_numeric(NumberMetric::GRADIENT_NORM);
    if peak_is_known {
        supervised.metric_train_numeric(NumberMetric::MFU)
    } else {
        supervised.metric_train(TextMetric::MFU_UNKNOWN)
    }
}
