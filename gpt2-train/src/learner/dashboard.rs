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
    let outcome = Arc::new(Mutex::new(None));
    let is_lost = Arc::new(AtomicBool::new(false));
    let strategy = StepLoopStrategy {
        is_lost: Arc::clone(&is_lost),
        lines: Mutex::new(Some(lines)),
        stop: stop.clone(),
        job: Mutex::new(Some(job)),
        optimizer,
        outcome: Arc::clone(&outcome),
    };
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
        renderer::Dashboard::start(interrupter, is_lost)
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
        let (steps, epochs) = progress_at(step, report.steps);
        let report = Arc::new(report.clone());
        let iteration = Some(step as usize);
        if report.record.loss.is_some() {
            let output = StepOutput::Report(Arc::clone(&report));
            let item = TrainingItem::new(output, steps.clone(), epochs.clone(), iteration, lr);
            self.processor.process_train(LearnerEvent::ProcessedItem(item));
        }
        if report.record.val_loss.is_some() {
            let item = TrainingItem::new(StepOutput::Report(report), steps, epochs, iteration, lr);
            self.processor.process_valid(LearnerEvent::ProcessedItem(item));
        }
        if self.interrupter.should_stop() {
            self.stop.stop("the dashboard");
        }
    }
}

/// How far a run is, as Burn takes it: the items of an epoch, here steps, and the epochs.
///
/// The whole run is one epoch: Burn's second bar adds the epochs before this one, each with as many items.
fn progress_at(step: u64, steps: u64) -> (Progress, Progress) {
    (Progress::new(step as usize, steps as usize), Progress::new(1, 1))
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
    fn both_bars_show_the_steps_of_the_run() {
        for step in [0, 1, 53, 426, 600] {
            let (items, epochs) = progress_at(step, 600);
            // As `calculate_progress` in Burn's `renderer/tui/progress.rs`.
            let done = (epochs.items_processed - 1) * items.items_total + items.items_processed;
            let all = epochs.items_total * items.items_total;
            assert_eq!((items.items_processed as u64, items.items_total), (step, 600));
            assert_eq!((done as u64, all), (step, 600));
        }
    }
}
