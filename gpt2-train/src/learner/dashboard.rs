//! A run under Burn's dashboard. Burn hands its dashboard only to a training strategy, so a strategy it is: one that calls
//! the step loop and passes each step's report on.

use super::metrics::{NumberMetric, TextMetric};
use super::renderer::{self, DeferredRenderer};
use super::task::{StepOutput, TrainingTask};
use super::{Components, LearnerStepper};
use crate::batches::MicroBatch;
use crate::error::TrainError;
use crate::observer::{Lines, Observer, StepReport};
use crate::optimizer::AdamW;
use crate::plan::RunPlan;

use crate::step_loop::Outcome;
use crate::stop::StopRequest;
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::train::logger::InMemoryMetricLogger;
use burn::train::{
    EventProcessorTraining, Interrupter, Learner, LearnerEvent, SupervisedLearningStrategy, SupervisedTraining,
    SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingItem, TrainingStrategy, ValidLoader,
};
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::ops::training::TrainingBackend;
use std::io::Write;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Processor<B> = SupervisedTrainingEventProcessor<Components<B>>;
type Job<B> = Box<dyn FnOnce(&mut LearnerStepper<B>, &mut dyn Observer) -> Result<Outcome, TrainError>>;

/// What the dashboard shows, and where.
pub(crate) struct DashboardSetup<'a> {
    /// The run directory.
    pub(crate) root: &'a Path,
    pub(crate) plan: &'a RunPlan,
    /// The step that the session starts after.
    pub(crate) first_step: u64,
    /// Whether the data's entropy is known.
    pub(crate) has_floor: bool,
    /// Whether the device's peak rate is known.
    pub(crate) has_peak: bool,
}

/// Lines where the dashboard has no terminal.
pub(crate) type FallbackLines = Lines<Box<dyn Write + Send>>;

/// Calls `job` with an observer that is the dashboard.
///
/// # Errors
/// Those of `job`.
pub(crate) fn with_dashboard<B>(
    stepper: LearnerStepper<B>,
    setup: &DashboardSetup<'_>,
    stop: &StopRequest,
    lines: FallbackLines,
    job: Job<B>,
) -> Result<Outcome, TrainError>
where
    B: AutodiffBackend + Gpt2Backend,
    B::InnerBackend: TrainingBackend,
{
    let LearnerStepper { learner, optimizer } = stepper;
    let windows = Windows::of(setup.plan);
    let outcome = Arc::new(Mutex::new(None));
    let is_lost = Arc::new(AtomicBool::new(false));
    let strategy = StepLoopStrategy {
        windows,
        is_lost: Arc::clone(&is_lost),
        lines: Mutex::new(Some(lines)),
        stop: stop.clone(),
        job: Mutex::new(Some(job)),
        optimizer,
        outcome: Arc::clone(&outcome),
    };
    let behind = (setup.first_step > 0).then(|| windows.of_step(setup.first_step) - 1);
    let interrupter = Interrupter::new();
    let supervised = SupervisedTraining::<Components<B>>::new(
        setup.root,
        Arc::new(NoBatches(PhantomData)),
        Arc::new(NoBatches(PhantomData)),
    )
    .with_interrupter(interrupter.clone())
    .with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)))
    // Burn's logger and its panic hook are the whole process's; a run has a log of its own.
    .with_application_logger(None)
    // The run's own record is metrics.jsonl; Burn's store only feeds what is on the screen.
    .with_metric_logger(InMemoryMetricLogger::default())
    .renderer(DeferredRenderer::new(move || {
        renderer::Dashboard::start(interrupter, behind, is_lost)
    }));
    let result = with_metrics(supervised, setup).launch(learner);
    drop(result); // gives the terminal back
    take(&outcome).expect("the strategy leaves an outcome unless it panics")
}

/// The step loop, as Burn asks for it.
struct StepLoopStrategy<B>
where
    B: AutodiffBackend + Gpt2Backend,
    B::InnerBackend: TrainingBackend,
{
    windows: Windows,
    stop: StopRequest,
    is_lost: Arc<AtomicBool>,
    /// These two are taken by the only call.
    lines: Mutex<Option<FallbackLines>>,
    job: Mutex<Option<Job<B>>>,
    /// The learner's.
    optimizer: AdamW<B>,
    /// How the loop ended; a strategy has no way to return it.
    outcome: Arc<Mutex<Option<Result<Outcome, TrainError>>>>,
}

impl<B> SupervisedLearningStrategy<Components<B>> for StepLoopStrategy<B>
where
    B: AutodiffBackend + Gpt2Backend,
    B::InnerBackend: TrainingBackend,
{
    fn fit(
        &self,
        components: TrainingComponents<Components<B>>,
        learner: Learner<Components<B>>,
        _: TrainLoader<Components<B>>,
        _: ValidLoader<Components<B>>,
        _starting_epoch: usize,
    ) -> (TrainingTask<B>, Processor<B>) {
        let once = "a strategy is run once";
        let (job, lines) = (take(&self.job).expect(once), take(&self.lines).expect(once));
        let optimizer = self.optimizer.clone();
        let mut stepper = LearnerStepper { learner, optimizer };
        let mut dashboard = Dashboard::<B> {
            windows: self.windows,
            stop: self.stop.clone(),
            is_lost: Arc::clone(&self.is_lost),
            lines,
            interrupter: components.interrupter,
            processor: components.event_processor,
        };
        let outcome = job(&mut stepper, &mut dashboard);
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        (stepper.learner.model(), dashboard.processor)
    }
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Passes each step to Burn's metrics, and through them to the dashboard.
struct Dashboard<B>
where
    B: AutodiffBackend + Gpt2Backend,
    B::InnerBackend: TrainingBackend,
{
    windows: Windows,
    stop: StopRequest,
    /// Whether the dashboard has no terminal; then there are lines.
    is_lost: Arc<AtomicBool>,
    lines: FallbackLines,
    /// The dashboard's own way to ask.
    interrupter: Interrupter,
    processor: Processor<B>,
}

impl<B> Observer for Dashboard<B>
where
    B: AutodiffBackend + Gpt2Backend,
    B::InnerBackend: TrainingBackend,
{
    fn step(&mut self, report: &StepReport) {
        if self.is_lost.load(Ordering::Relaxed) {
            return self.lines.step(report);
        }
        let (step, lr) = (report.record.step, report.record.lr);
        let window = self.windows.of_step(step);
        let steps = Progress::new(step as usize, report.steps as usize);
        let windows = Progress::new(window, self.windows.count());
        let report = Arc::new(report.clone());
        let iteration = Some(step as usize);
        if report.record.loss.is_some() {
            let output = StepOutput::Report(Arc::clone(&report));
            let item = TrainingItem::new(output, steps.clone(), windows.clone(), iteration, lr);
            self.processor.process_train(LearnerEvent::ProcessedItem(item));
        }
        if report.record.val_loss.is_some() {
            let item = TrainingItem::new(StepOutput::Report(report), steps, windows, iteration, lr);
            self.processor.process_valid(LearnerEvent::ProcessedItem(item));
        }
        if self.windows.ends_at(step) {
            self.processor.process_train(LearnerEvent::EndEpoch(window));
            self.processor.process_valid(LearnerEvent::EndEpoch(window));
        }
        if self.interrupter.should_stop() {
            self.stop.stop("the dashboard");
        }
    }
}

/// Burn's dashboard counts epochs. The steps between two evaluations play one.
#[derive(Debug, Clone, Copy)]
struct Windows {
    steps: u64,
    last_step: u64,
}

impl Windows {
    fn of(plan: &RunPlan) -> Self {
        let last_step = plan.last_step().max(1);
        let steps = match plan.intervals.eval_every {
            0 => last_step,
            every => every.min(last_step),
        };
        Self { steps, last_step }
    }

    fn count(self) -> usize {
        self.last_step.div_ceil(self.steps) as usize
    }

    /// The window of a step, from 1.
    fn of_step(self, step: u64) -> usize {
        (step.saturating_sub(1) / self.steps + 1) as usize
    }

    fn ends_at(self, step: u64) -> bool {
        step > 0 && (step.is_multiple_of(self.steps) || step == self.last_step)
    }
}

/// The loop reads its batches itself, so Burn gets none.
struct NoBatches<B>(PhantomData<fn() -> B>);

impl<B: Backend> DataLoader<B, MicroBatch<B>> for NoBatches<B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<MicroBatch<B>> + 'a> {
        Box::new(NoBatches(self.0))
    }

    fn num_items(&self) -> usize {
        0
    }

    fn to_device(&self, _: &B::Device) -> Arc<dyn DataLoader<B, MicroBatch<B>>> {
        Arc::new(NoBatches(self.0))
    }

    fn slice(&self, _: usize, _: usize) -> Arc<dyn DataLoader<B, MicroBatch<B>>> {
        Arc::new(NoBatches(self.0))
    }
}

impl<B: Backend> Iterator for NoBatches<B> {
    type Item = MicroBatch<B>;

    fn next(&mut self) -> Option<MicroBatch<B>> {
        None
    }
}

impl<B: Backend> DataLoaderIterator<MicroBatch<B>> for NoBatches<B> {
    fn progress(&self) -> Progress {
        Progress::new(0, 0)
    }
}

fn with_metrics<B>(
    supervised: SupervisedTraining<Components<B>>,
    setup: &DashboardSetup<'_>,
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
    if setup.has_floor {
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
    if setup.has_peak {
        supervised.metric_train_numeric(NumberMetric::MFU)
    } else {
        supervised.metric_train(TextMetric::MFU_UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_shorter_than_its_interval_is_one_whole_window() {
        let windows = Windows {
            steps: 56,
            last_step: 56,
        };
        assert_eq!((windows.count(), windows.of_step(1), windows.of_step(56)), (1, 1, 1));
        assert!(windows.ends_at(56) && !windows.ends_at(0) && !windows.ends_at(55));
    }

    #[test]
    fn the_last_window_may_be_shorter() {
        let windows = Windows {
            steps: 10,
            last_step: 25,
        };
        assert_eq!(windows.count(), 3);
        assert_eq!([1, 10, 11, 25].map(|step| windows.of_step(step)), [1, 1, 2, 3]);
        assert_eq!(
            [10, 15, 20, 25].map(|step| windows.ends_at(step)),
            [true, false, true, true]
        );
    }
}
