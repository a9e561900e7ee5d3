//! The step loop, as a strategy of Burn's learner.
//!
//! Burn's own strategies count in passes over the data. This one counts optimizer steps: a window of steps plays Burn's
//! epoch, and evaluation, samples and checkpoints each come at their own interval.

use crate::batches::{ErrorSlot, MicroBatch};
use crate::checkpoint::{BestLoss, Checkpoints, RunState};
use crate::error::{Quantity, TrainError};
use crate::hardware::{DeviceMemory, DeviceProbe, HostMemory};
use crate::lr::ScheduleWalk;
use crate::metrics::{StepOutput, StepReport};
use crate::metrics_log::{MetricsLog, StepRecord};
use crate::optimizer::{AdamW, Arrival, Clip, TrainingBackend, number, squared_norm};
use crate::plan::RunPlan;
use crate::report::Phases;
use crate::run_dir::RunPaths;
use crate::task::TrainingTask;
use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::module::AutodiffModule;
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use burn::train::{
    EventProcessorTraining, InferenceStep, Interrupter, Learner, LearnerEvent, LearningComponentsMarker,
    SupervisedLearningStrategy, SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingItem,
    ValidLoader,
};
use gpt2_data::{END_OF_TEXT, Tokenizer};
use gpt2_model::Generator;
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::sampling::Sampling;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The parts of a learner here.
pub(crate) type Components<B> = LearningComponentsMarker<B, ScheduleWalk, TrainingTask<B>, AdamW<B>>;

type Inner<B> = <B as AutodiffBackend>::InnerBackend;
type Processor<B> = SupervisedTrainingEventProcessor<Components<B>>;

/// Steps that [`Ending::steps`] leaves to warm-up at the most when rates are averaged, and the time estimate waits for.
const WARM_UP_STEPS: u64 = 3;

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// It took all of its steps or tokens.
    Finished,
    /// Its time was up.
    TimeLimit,
    /// Somebody asked for it, who is quoted.
    Asked(String),
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Why it ended.
    pub reason: StopReason,
    /// Where it stands.
    pub state: RunState,
    /// The steps of this session.
    pub steps: Vec<StepRecord>,
    /// The newest sample.
    pub sample: Option<Arc<str>>,
    /// Where this session's time went.
    pub phases: Phases,
}

/// What the loop needs beside what the learner hands it.
pub(crate) struct StepLoop<B: AutodiffBackend> {
    pub(crate) plan: RunPlan,
    pub(crate) paths: RunPaths,
    pub(crate) start: RunState,
    pub(crate) floor: Option<f64>,
    /// FLOP/s of the device in the plan's precision.
    pub(crate) peak_flops: Option<f64>,
    pub(crate) optimizer: AdamW<B>,
    pub(crate) checkpoints: Checkpoints,
    /// Taken by the loop when it starts.
    pub(crate) log: Mutex<Option<MetricsLog>>,
    pub(crate) probe: Arc<dyn DeviceProbe + Send + Sync>,
    pub(crate) data_error: ErrorSlot,
    /// How the loop ended; a strategy has no way to return it.
    pub(crate) ending: Arc<Mutex<Option<Result<Ending, TrainError>>>>,
    pub(crate) device: B::Device,
    /// Whether checkpoints are kept.
    pub(crate) saves: bool,
}

impl<B> SupervisedLearningStrategy<Components<B>> for StepLoop<B>
where
    B: AutodiffBackend + Gpt2Backend,
    Inner<B>: TrainingBackend,
{
    fn fit(
        &self,
        components: TrainingComponents<Components<B>>,
        learner: Learner<Components<B>>,
        training: TrainLoader<Components<B>>,
        validation: ValidLoader<Components<B>>,
        _starting_epoch: usize,
    ) -> (TrainingTask<B>, Processor<B>) {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut run = Run {
            fixed: self,
            learner,
            validation,
            processor: components.event_processor,
            interrupter: components.interrupter,
            log: log.expect("a strategy is run once"),
            state: self.start.clone(),
            steps: Vec::new(),
            sample: None,
            phases: Phases::default(),
            started: Instant::now(),
            settled: Instant::now(),
            peak_reserved: 0,
        };
        let ending = run.go(training.as_ref());
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
        (run.learner.model(), run.processor)
    }
}

/// The run as it moves.
struct Run<'a, B: AutodiffBackend + Gpt2Backend>
where
    Inner<B>: TrainingBackend,
{
    fixed: &'a StepLoop<B>,
    learner: Learner<Components<B>>,
    validation: ValidLoader<Components<B>>,
    processor: Processor<B>,
    interrupter: Interrupter,
    log: MetricsLog,
    state: RunState,
    steps: Vec<StepRecord>,
    sample: Option<Arc<str>>,
    phases: Phases,
    started: Instant,
    /// When the newest step's numbers had arrived.
    settled: Instant,
    peak_reserved: u64,
}

/// A step that is queued, and that the device may still be computing.
#[derive(Debug)]
struct Queued {
    step: u64,
    began: Instant,
    /// Spent waiting for its batches.
    wait: Duration,
    lr: f64,
    /// The sum of the micro-steps' losses, and the squared norm of the sum of their gradients.
    numbers: Arrival,
}

impl<B: AutodiffBackend + Gpt2Backend> Run<'_, B>
where
    Inner<B>: TrainingBackend,
{
    fn go(&mut self, training: &dyn DataLoader<B, MicroBatch<B>>) -> Result<Ending, TrainError> {
        let plan = &self.fixed.plan;
        let mut batches = training.iter();
        if self.state.step == 0 && plan.eval_every > 0 {
            let val_loss = self.evaluate();
            let record = StepRecord {
                val_loss: Some(val_loss),
                ..StepRecord::default()
            };
            self.log.append(&record)?;
            self.show(StepOutputSplit::Validation, record);
        }
        let mut queued: Option<Queued> = None;
        let reason = loop {
            let newest = queued.as_ref().map_or(self.state.step, |queued| queued.step);
            let reason = self.reason_to_stop(newest);
            let next = match reason {
                Some(_) => Ok(None),
                None => self.queue(newest + 1, batches.as_mut()).map(Some),
            };
            // The device computes the next step while the host looks at this one.
            if let Some(queued) = queued.take() {
                self.finish(queued)?;
            }
            queued = match next {
                Ok(next) => next,
                Err(error) => return Err(self.saved(error)?),
            };
            if let Some(queued) = queued.take_if(|queued| self.is_awaited(queued.step)) {
                self.finish(queued)?;
            }
            if let Some(reason) = reason {
                break reason;
            }
        };
        self.save()?;
        let (steps, sample) = (std::mem::take(&mut self.steps), self.sample.clone());
        Ok(Ending {
            reason,
            state: self.state.clone(),
            steps,
            sample,
            phases: self.phases,
        })
    }

    /// Why no step should follow step `newest`, if so.
    fn reason_to_stop(&self, newest: u64) -> Option<StopReason> {
        let plan = &self.fixed.plan;
        if newest >= plan.last_step() {
            Some(StopReason::Finished)
        } else if self.interrupter.should_stop() {
            let who = self.interrupter.get_message();
            Some(StopReason::Asked(who.unwrap_or_else(|| "a request".to_owned())))
        } else if plan.max_minutes.is_some_and(|limit| self.elapsed_sec() >= 60.0 * limit) {
            Some(StopReason::TimeLimit)
        } else {
            None
        }
    }

    /// Whether something comes at the end of `step` that comes every so many steps.
    fn is_due(&self, every: u64, step: u64) -> bool {
        every > 0 && (step.is_multiple_of(every) || step == self.fixed.plan.last_step())
    }

    /// Whether `step` must be over before the next one is queued.
    fn is_awaited(&self, step: u64) -> bool {
        let plan = &self.fixed.plan;
        let intervals = [plan.eval_every, plan.sample_every, plan.checkpoint_every];
        !Inner::<B>::QUEUES_AHEAD || intervals.into_iter().any(|every| self.is_due(every, step))
    }

    /// `error`, with what the run has reached kept: the weights are those of the last good step.
    fn saved(&mut self, error: TrainError) -> Result<TrainError, TrainError> {
        self.save()?;
        Ok(error)
    }

    /// Waits for a step, and does what comes at its end.
    fn finish(&mut self, queued: Queued) -> Result<(), TrainError> {
        let plan = &self.fixed.plan;
        let mut record = match self.settle(queued) {
            Ok(record) => record,
            Err(error) => return Err(self.saved(error)?),
        };
        let step = record.step;
        if self.is_due(plan.eval_every, step) {
            record.val_loss = Some(self.evaluate());
        }
        self.log.append(&record)?;
        self.steps.push(record.clone());
        if self.is_due(plan.sample_every, step) {
            self.take_sample()?;
        }
        let split = if record.val_loss.is_some() {
            StepOutputSplit::Both
        } else {
            StepOutputSplit::Training
        };
        self.show(split, record);
        if self.is_due(plan.checkpoint_every, step) {
            self.save()?;
        }
        Ok(())
    }

    /// Queues an optimizer step: `grad_accum` forward and backward passes, the clip, and AdamW.
    fn queue(&mut self, step: u64, batches: &mut dyn DataLoaderIterator<MicroBatch<B>>) -> Result<Queued, TrainError> {
        let plan = &self.fixed.plan;
        let began = Instant::now();
        let mut wait = Duration::ZERO;
        let mut losses: Option<Tensor<Inner<B>, 1>> = None;
        let mut gradients = Gradients::Nothing;
        for micro_step in 0..plan.grad_accum as u64 {
            let batch = batches.next().ok_or_else(|| self.fixed.out_of_data())?;
            wait += batch.wait;
            if plan.model.dropout > 0.0 {
                B::seed(&self.fixed.device, dropout_seed(plan.seed, step, micro_step));
            }
            let output = self.learner.train_step(batch);
            let StepOutput::Loss(loss) = output.item else {
                unreachable!("a training step gives its loss")
            };
            losses = Some(match losses {
                Some(sum) => sum + loss,
                None => loss,
            });
            gradients = gradients.add(&self.learner.model(), output.grads);
        }
        let gradients = gradients.sum();
        let loss = losses.expect("at least one micro-step");
        let squared_norm = squared_norm(&self.learner.model(), &gradients);
        let clip = Clip {
            max_norm: plan.grad_clip,
            micro_steps: plan.grad_accum as f64,
        };
        // On the device: a loss that is not finite must not reach the weights, and nobody waits to see it.
        self.fixed
            .optimizer
            .clip_next_gradients(loss.clone(), squared_norm.clone(), &clip);
        self.learner.lr_step();
        self.learner.optimizer_step(gradients);
        // Behind the update, so that a step is over when they are there.
        let numbers = [loss, squared_norm].map(|number| number.into_primitive().tensor());
        Ok(Queued {
            step,
            began,
            wait,
            lr: self.learner.lr_current(),
            numbers: Inner::<B>::fetch(numbers.into()),
        })
    }

    /// Waits for a step's numbers, and takes it into the run's state.
    fn settle(&mut self, queued: Queued) -> Result<StepRecord, TrainError> {
        let plan = &self.fixed.plan;
        let Queued {
            step,
            began,
            wait,
            lr,
            numbers,
        } = queued;
        let numbers = numbers.wait();
        let micro_steps = plan.grad_accum as f64;
        let loss = f64::from(numbers[0]) / micro_steps;
        let grad_norm = f64::from(numbers[1]).sqrt() / micro_steps;
        self.check_finite(step, loss, grad_norm)?;

        self.state.step = step;
        self.state.tokens += plan.tokens_per_step();
        self.state.next_sequence = step * plan.global_batch() as u64;
        // A step that was queued behind another begins when that one is over.
        let began = began.max(self.settled);
        self.settled = Instant::now();
        let seconds = (self.settled - began).as_secs_f64();
        self.phases.steps_sec += seconds;
        self.phases.data_wait_sec += wait.as_secs_f64();
        let mut record = StepRecord {
            step,
            tokens: self.state.tokens,
            loss: Some(loss),
            lr: Some(lr),
            grad_norm: Some(grad_norm),
            tokens_per_sec: Some(plan.tokens_per_step() as f64 / seconds),
            step_ms: Some(1e3 * seconds),
            data_wait_ms: Some(1e3 * wait.as_secs_f64()),
            elapsed_sec: Some(self.elapsed_sec()),
            ..StepRecord::default()
        };
        self.measure_memory(&mut record);
        Ok(record)
    }

    fn check_finite(&self, step: u64, loss: f64, grad_norm: f64) -> Result<(), TrainError> {
        let found = [(Quantity::Loss, loss), (Quantity::GradientNorm, grad_norm)];
        match found.into_iter().find(|(_, value)| !value.is_finite()) {
            Some((what, value)) => Err(TrainError::NonFinite {
                what,
                value,
                step,
                position: self.state.next_sequence,
                lr: self.fixed.plan.lr,
                warmup: self.fixed.plan.warmup,
                run: self.fixed.paths.root().to_owned(),
                loaded: self.fixed.loaded_weights(step),
            }),
            None => Ok(()),
        }
    }

    /// Mean loss over the validation batches.
    fn evaluate(&mut self) -> f64 {
        let began = Instant::now();
        let task = self.learner.model().valid();
        let (mut sum, mut rows) = (0.0, 0.0);
        for batch in self.validation.iter() {
            // The last batch may be smaller, so the mean is weighted.
            let batch_rows = batch.inputs.dims()[0] as f64;
            let StepOutput::Loss(loss) = task.step(batch) else {
                unreachable!("an inference step gives its loss")
            };
            sum += number::<Inner<B>>(loss.into_primitive().tensor()) * batch_rows;
            rows += batch_rows;
        }
        let val_loss = sum / rows;
        self.state.val_loss = Some(val_loss);
        if self.state.best.is_none_or(|best| val_loss < best.val_loss) {
            self.state.best = Some(BestLoss {
                step: self.state.step,
                val_loss,
            });
        }
        self.phases.evaluation_sec += began.elapsed().as_secs_f64();
        val_loss
    }

    /// Lets the model write, and keeps the text in the run directory.
    fn take_sample(&mut self) -> Result<(), TrainError> {
        let began = Instant::now();
        let plan = &self.fixed.plan;
        let task = self.learner.model().valid();
        Inner::<B>::keep_memory_by_size(&self.fixed.device, false);
        let text = sample_text(&task, plan, self.state.step);
        Inner::<B>::keep_memory_by_size(&self.fixed.device, true);
        let path = self
            .fixed
            .paths
            .samples()
            .join(format!("step-{:08}.txt", self.state.step));
        crate::atomic_file::write_atomic(&path, format!("{text}\n").as_bytes())?;
        self.sample = Some(text.into());
        self.phases.sampling_sec += began.elapsed().as_secs_f64();
        Ok(())
    }

    fn save(&mut self) -> Result<(), TrainError> {
        let began = Instant::now();
        self.state.elapsed_sec = self.elapsed_sec();
        if !self.fixed.saves {
            return Ok(());
        }
        self.log.sync()?;
        self.fixed
            .checkpoints
            .save(&self.learner.model(), &self.fixed.optimizer, &self.state)?;
        self.fixed.checkpoints.prune(self.fixed.plan.keep)?;
        self.phases.checkpoint_sec += began.elapsed().as_secs_f64();
        Ok(())
    }

    fn elapsed_sec(&self) -> f64 {
        self.fixed.start.elapsed_sec + self.started.elapsed().as_secs_f64()
    }

    fn measure_memory(&mut self, record: &mut StepRecord) {
        let HostMemory { resident, peak } = HostMemory::now();
        record.host_mem_bytes = resident;
        record.host_peak_bytes = peak;
        // Asking the device may drain its queue: at the first steps, which set the peak, and then when a line is due.
        if self.steps.len() as u64 >= WARM_UP_STEPS && !record.step.is_multiple_of(self.fixed.plan.log_every.max(1)) {
            return;
        }
        if let Some(DeviceMemory {
            in_use,
            reserved,
            driver_used,
        }) = self.fixed.probe.memory()
        {
            self.peak_reserved = self.peak_reserved.max(reserved);
            record.device_mem_bytes = Some(in_use);
            record.device_reserved_bytes = Some(reserved);
            record.device_peak_bytes = Some(self.peak_reserved);
            record.device_driver_bytes = driver_used;
        }
    }

    /// Hands a step to Burn's metrics, and through them to the dashboard.
    fn show(&mut self, split: StepOutputSplit, record: StepRecord) {
        let plan = &self.fixed.plan;
        let (step, last) = (record.step, plan.last_step());
        let window = window_steps(plan);
        let step_in_window = step.saturating_sub(1) % window + 1;
        let progress = Progress::new(step_in_window as usize, window as usize);
        let windows = Progress::new(window_of(step, window), last.div_ceil(window).max(1) as usize);
        let lr = record.lr;
        let report = Arc::new(self.report(record));
        let item = || Arc::clone(&report);
        let iteration = Some(step as usize);
        if split != StepOutputSplit::Validation {
            let output = StepOutput::Report(item());
            let item = TrainingItem::new(output, progress.clone(), windows.clone(), iteration, lr);
            self.processor.process_train(LearnerEvent::ProcessedItem(item));
        }
        if split != StepOutputSplit::Training {
            let item = TrainingItem::new(StepOutput::Report(item()), progress, windows.clone(), iteration, lr);
            self.processor.process_valid(LearnerEvent::ProcessedItem(item));
        }
        if step > 0 && step_in_window == window {
            self.processor
                .process_train(LearnerEvent::EndEpoch(windows.items_processed));
            self.processor
                .process_valid(LearnerEvent::EndEpoch(windows.items_processed));
        }
    }

    fn report(&self, record: StepRecord) -> StepReport {
        let plan = &self.fixed.plan;
        let last = plan.last_step();
        let taken = record.step.saturating_sub(self.fixed.start.step);
        let eta_sec = (taken > WARM_UP_STEPS)
            .then(|| self.started.elapsed().as_secs_f64() / taken as f64 * (last - record.step) as f64);
        let flops_per_token = gpt2_model::cost::flops_per_token(&plan.model, plan.seq) as f64;
        let mfu = self
            .fixed
            .peak_flops
            .zip(record.tokens_per_sec)
            .map(|(peak, rate)| flops_per_token * rate / peak);
        StepReport {
            record,
            steps: last,
            eta_sec,
            mfu,
            floor: self.fixed.floor,
            sample: self.sample.clone(),
        }
    }
}

impl<B: AutodiffBackend> StepLoop<B> {
    /// The weights that `step` was computed from, if they were loaded.
    fn loaded_weights(&self, step: u64) -> Option<std::path::PathBuf> {
        match self.start.step {
            0 if step == 1 => self.plan.init.clone(),
            started if step == started + 1 => Some(self.checkpoints.path(started)),
            _ => None,
        }
    }

    /// The training batches never run out by themselves.
    fn out_of_data(&self) -> TrainError {
        match self.data_error.take() {
            Some(error) => error.into(),
            None => unreachable!("the loader covers every step of the plan"),
        }
    }
}

/// Which of Burn's two splits a record goes to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StepOutputSplit {
    Training,
    Validation,
    Both,
}

/// Gradients of the micro-steps so far.
enum Gradients<B: AutodiffBackend> {
    Nothing,
    One(GradientsParams),
    Several(GradientsAccumulator<TrainingTask<B>>),
}

impl<B: AutodiffBackend> Gradients<B> {
    fn add(self, task: &TrainingTask<B>, gradients: GradientsParams) -> Self {
        let mut sum = match self {
            Self::Nothing => return Self::One(gradients),
            Self::One(first) => {
                let mut sum = GradientsAccumulator::new();
                sum.accumulate(task, first);
                sum
            }
            Self::Several(sum) => sum,
        };
        sum.accumulate(task, gradients);
        Self::Several(sum)
    }

    fn sum(self) -> GradientsParams {
        match self {
            Self::Nothing => GradientsParams::new(),
            Self::One(gradients) => gradients,
            Self::Several(mut sum) => sum.grads(),
        }
    }
}

/// Steps in a window, Burn's epoch here: those between two evaluations.
pub(crate) fn window_steps(plan: &RunPlan) -> u64 {
    if plan.eval_every > 0 {
        plan.eval_every
    } else {
        plan.last_step().max(1)
    }
}

/// The window of a step, from 1.
pub(crate) fn window_of(step: u64, window: u64) -> usize {
    (step.saturating_sub(1) / window + 1) as usize
}

/// A backend's random state cannot be saved, so it is set anew for every micro-step.
fn dropout_seed(seed: u64, step: u64, micro_step: u64) -> u64 {
    let mut mixer = gpt2_data::SplitMix64::new(seed ^ step.rotate_left(20) ^ micro_step.rotate_left(44));
    mixer.next_u64()
}

/// The text that the model writes after the plan's prompt, up to the end of the document.
fn sample_text<B: Gpt2Backend>(task: &TrainingTask<B>, plan: &RunPlan, step: u64) -> String {
    let (tokenizer, model) = (Tokenizer::gpt2(), task.model());
    let mut prompt: Vec<i32> = tokenizer
        .encode(&plan.sample_prompt)
        .into_iter()
        .map(i32::from)
        .collect();
    if prompt.is_empty() {
        prompt.push(i32::from(END_OF_TEXT));
    }
    let written: Vec<u16> = Generator::new(&model, &prompt, Sampling::default(), plan.seed ^ step)
        .take(plan.sample_tokens)
        .map(|token| token as u16)
        .take_while(|&token| token != END_OF_TEXT)
        .collect();
    format!("{}{}", plan.sample_prompt, tokenizer.decode(&written))
}
