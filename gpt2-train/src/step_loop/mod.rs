//! The step loop: optimizer steps, and what comes every so many of them. Every run goes through it, with a dashboard,
//! with lines, or unseen.
//!
//! It counts optimizer steps, not passes over the data. Where the backend allows, a step is queued before the numbers of
//! the one before have arrived, so that the device is never without work.

mod memory;

use crate::batches::MicroBatch;
use crate::checkpoint::{RunState, Snapshot};
use crate::checkpoint_writer::CheckpointWriter;
use crate::error::{Quantity, TrainError};
use crate::evaluate::EvaluationSet;
use crate::gradients::GradientSum;
use crate::observer::{Observer, StepReport};
use crate::optimizer::{AdamW, squared_norm};
use crate::plan::{Intervals, RunPlan};
use crate::rank_log::RankLog;
use crate::ranks::{Exchange, Ranks};
use crate::run_dir::RunPaths;
use crate::sample::sample;
use crate::step_log::{StepLog, StepRecord};
use crate::stop::{StopReason, StopRequest};
use crate::tasks::TaskSet;
use burn::module::AutodiffModule;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::FloatTensor;
use gpt2_backend::DeviceProbe;
use gpt2_data::Loader;
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::ops::training::{Clip, Readback, TrainingBackend};
use gpt2_model::spans::{Operation, Pass, span};
use gpt2_model::{Gpt2, InferenceBackend, Operations, Sequences};
use gpt2_records::{Communication, Phases, RankStep};
use memory::MemoryMeter;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What dropout draws from is the process's: whoever has seeded it holds this until the draws are made.
static RANDOM_STATE: Mutex<()> = Mutex::new(());

type Inner<B> = <B as AutodiffBackend>::InnerBackend;

/// Steps whose speed says little, since kernels are compiled and caches are cold. The time estimate waits for them.
const SETTLING_STEPS: u64 = 3;

/// Replaces each of the weights by that of its owner, of which it is told the rank.
pub(crate) type Share<'a, B> = &'a mut dyn FnMut(&mut Vec<FloatTensor<Inner<B>>>, &[usize]) -> Result<(), TrainError>;

/// What the loop asks of whoever holds the model and its optimizer.
pub(crate) trait TrainStepper<B: AutodiffBackend> {
    /// Forward and backward pass of a micro-batch: its mean loss, `[1]`, and the gradients of that.
    fn train_step(&mut self, batch: MicroBatch<B>) -> (Tensor<Inner<B>, 1>, GradientsParams);

    /// Updates the weights with the gradients of a step, at the next learning rate of the schedule. Where the optimizer is
    /// sharded, `share` makes the weights of all ranks those of their owners.
    ///
    /// # Errors
    /// That of `share`; the weights are of no use then.
    fn optimizer_step(&mut self, gradients: GradientsParams, share: Share<'_, B>) -> Result<(), TrainError>;

    /// The learning rate of the newest update.
    fn lr(&self) -> f64;

    /// The model as it is now. Dropped before the next update, it costs nothing; else the update copies the weights.
    fn model(&self) -> Arc<Gpt2<B>>;
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
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
    /// How several ranks exchanged; none for one.
    pub communication: Option<Communication>,
}

/// Everything that the loop works with, besides the model and the observer.
pub(crate) struct StepLoop<B: AutodiffBackend> {
    pub(crate) plan: RunPlan,
    pub(crate) paths: RunPaths,
    pub(crate) device: B::Device,
    pub(crate) probe: Arc<dyn DeviceProbe + Send + Sync>,
    /// FLOP/s of the devices of all ranks in the plan's precision, where it is known.
    pub(crate) peak_flops: Option<f64>,
    pub(crate) floor: Option<f64>,
    pub(crate) loader: Loader,
    pub(crate) validation: EvaluationSet,
    pub(crate) tasks: TaskSet,
    pub(crate) optimizer: AdamW<B>,
    pub(crate) ranks: Ranks<B>,
    pub(crate) stop: StopRequest,
    /// None on all ranks but the first.
    pub(crate) log: Option<StepLog>,
    /// Of several ranks, on the first.
    pub(crate) rank_log: Option<RankLog>,
    /// Whether checkpoints are kept, as they are not in a measurement. All ranks know it: they do the same things in the same
    /// order.
    pub(crate) keeps: bool,
    /// None where none are kept, and on all ranks but the first.
    pub(crate) checkpoints: Option<CheckpointWriter>,
    /// Where the run stands at the start.
    pub(crate) state: RunState,
}

/// A step that is queued, and that the device may still be computing.
#[derive(Debug)]
struct QueuedStep {
    step: u64,
    began: Instant,
    /// When all of it had been queued.
    queued: Instant,
    /// Spent waiting for its batches.
    wait: Duration,
    /// Spent handing them to the device.
    host_to_device: Duration,
    lr: f64,
    exchange: Exchange,
    /// Whether the last of the numbers is a [lap](TrainingBackend::lap).
    has_lap: bool,
    /// The sum of the micro-steps' losses, the squared norm of the sum of their gradients, of several ranks what each
    /// wants and how long the device waited for them, and the lap.
    numbers: Readback,
}

impl<B> StepLoop<B>
where
    B: AutodiffBackend + Gpt2Backend,
    Inner<B>: InferenceBackend,
{
    /// Trains until the plan's end, a limit, or a request to stop, and saves a last checkpoint.
    ///
    /// # Errors
    /// Whatever stops a run. If it is the data or a loss that is not finite, the last good step is saved first.
    pub(crate) fn run<S: TrainStepper<B>>(
        self,
        stepper: &mut S,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, TrainError> {
        let now = Instant::now();
        let mut run = Run {
            agreed_stop: None,
            largest_peak: None,
            memory: MemoryMeter::new(Arc::clone(&self.probe), self.plan.intervals.log_every),
            first_step: self.state.step,
            elapsed_before: self.state.elapsed_sec,
            setup: self,
            stepper,
            observer,
            steps: Vec::new(),
            sample: None,
            phases: Phases::default(),
            compiled_for: Duration::ZERO,
            saved_step: None,
            started: now,
            completed_at: now,
            clock: None,
            clock_at: now,
        };
        run.run().map_err(|error| match run.finish_saving() {
            Ok(()) => error,
            Err(checkpoint) => TrainError::NotSavedEither {
                error: Box::new(error),
                checkpoint: Box::new(checkpoint),
            },
        })
    }
}

/// The run as it moves.
struct Run<'a, B: AutodiffBackend, S> {
    setup: StepLoop<B>,
    stepper: &'a mut S,
    observer: &'a mut dyn Observer,
    memory: MemoryMeter,
    /// The step that this session started after.
    first_step: u64,
    /// Seconds of training before this session.
    elapsed_before: f64,
    /// Why the ranks have agreed to stop, once a step has told.
    agreed_stop: Option<StopReason>,
    /// The most memory of any rank.
    largest_peak: Option<u64>,
    steps: Vec<StepRecord>,
    sample: Option<Arc<str>>,
    phases: Phases,
    /// How long kernels were compiled for a step that has not begun. It is a part of that step's time, and of the
    /// host's time to queue it, as if they were compiled in it.
    compiled_for: Duration,
    /// The step of the newest checkpoint of this session.
    saved_step: Option<u64>,
    started: Instant,
    /// When the newest step was over.
    completed_at: Instant,
    /// The device's clock at the end of the newest step that was queued, or at the [start](Self::start_clock).
    clock: Option<FloatTensor<Inner<B>>>,
    /// When the device was at the end of the newest step whose numbers have come, or at the start.
    clock_at: Instant,
}

impl<B, S> Run<'_, B, S>
where
    B: AutodiffBackend + Gpt2Backend,
    Inner<B>: InferenceBackend,
    S: TrainStepper<B>,
{
    fn run(&mut self) -> Result<Outcome, TrainError> {
        if self.reason_to_stop(self.setup.state.step).is_none() {
            self.compile_ahead();
        }
        if self.setup.state.step == 0 {
            let mut record = StepRecord::default();
            if self.setup.plan.intervals.eval_every > 0 {
                self.evaluate(&mut record)?;
            }
            if self.setup.plan.tasks.every > 0 && !self.setup.tasks.is_empty() {
                self.score(&mut record)?;
            }
            if record != StepRecord::default() {
                self.log(&record)?;
                self.report(record);
            }
        }
        let began = Instant::now();
        self.start_clock();
        // The clock's kernel was compiled.
        self.compiled_for += began.elapsed();
        let mut queued: Option<QueuedStep> = None;
        let reason = loop {
            let newest = queued.as_ref().map_or(self.setup.state.step, |queued| queued.step);
            let reason = self.reason_to_stop(newest);
            let next = match reason {
                Some(_) => Ok(None),
                None => self.queue(newest + 1).map(Some),
            };
            // The device computes the next step while the host looks at this one.
            if let Some(queued) = queued.take() {
                self.finish(queued)?;
            }
            queued = match next {
                Ok(next) => next,
                Err(error) => return Err(self.save_then(error)?),
            };
            if let Some(queued) = queued.take_if(|queued| self.must_finish_before_next(queued.step)) {
                self.finish(queued)?;
                self.start_clock();
            }
            if let Some(reason) = reason {
                break reason;
            }
        };
        self.save()?;
        self.finish_saving()?;
        self.setup.ranks.finish()?;
        self.keep_times()?;
        Ok(Outcome {
            reason,
            state: self.setup.state.clone(),
            steps: std::mem::take(&mut self.steps),
            sample: self.sample.take(),
            phases: self.phases,
            communication: self.setup.ranks.communication().cloned(),
        })
    }

    /// Compiles the kernels of a step and of an evaluation.
    fn compile_ahead(&mut self) {
        let StepLoop {
            plan,
            device,
            validation,
            ranks,
            ..
        } = &self.setup;
        if plan.machine.operations == Operations::Reference {
            return;
        }
        let began = Instant::now();
        Inner::<B>::compile_ahead(device, plan.machine.threads, || {
            let _draws = RANDOM_STATE.lock().unwrap_or_else(PoisonError::into_inner);
            let model = self.stepper.model();
            let tokens = vec![0; plan.batch.micro_batch * plan.batch.seq];
            let batch = Sequences {
                inputs: tokens.clone(),
                targets: tokens,
                seq: plan.batch.seq,
            };
            let [inputs, targets] = batch.upload(device);
            drop(model.loss(inputs, targets).backward());
            let model = Inner::<B>::inference(model.valid());
            let _ = validation.losses(model.as_ref(), ranks.rank(), ranks.size()).next();
        });
        self.compiled_for = began.elapsed();
    }

    /// Reads the device's clock while the device has nothing to do, so that the next lap begins at a known time.
    fn start_clock(&mut self) {
        if let Some((clock, lap)) = Inner::<B>::lap(&self.setup.device, None) {
            Inner::<B>::read_async(vec![lap]).wait();
            self.clock = Some(clock);
            self.clock_at = Instant::now();
        }
    }

    /// Why no step should follow step `newest`, if so.
    fn reason_to_stop(&self, newest: u64) -> Option<StopReason> {
        let plan = &self.setup.plan;
        if newest >= plan.last_step() {
            Some(StopReason::Finished)
        } else if self.setup.ranks.size() > 1 {
            // What each rank knows by itself would not end them all after the same step.
            self.agreed_stop.clone()
        } else {
            self.wish_to_stop()
        }
    }

    /// Why this process would end the run, if so.
    fn wish_to_stop(&self) -> Option<StopReason> {
        let plan = &self.setup.plan;
        if let Some(who) = self.setup.stop.requested_by() {
            Some(StopReason::Requested(who))
        } else if plan
            .limits
            .max_minutes
            .is_some_and(|limit| self.setup.ranks.rank() == 0 && self.elapsed_sec() >= 60.0 * limit)
        {
            Some(StopReason::TimeLimit)
        } else {
            None
        }
    }

    /// Whether something that comes every so many steps comes at the end of `step`.
    fn is_due(&self, every: u64, step: u64) -> bool {
        every > 0 && (step.is_multiple_of(every) || step == self.setup.plan.last_step())
    }

    /// Whether `step` ends with an evaluation. Each regular checkpoint has one, so that the best of them can be told.
    fn evaluates_at(&self, step: u64) -> bool {
        let plan = &self.setup.plan;
        let saves = self.setup.keeps && self.is_due(plan.intervals.checkpoint_every, step);
        plan.intervals.eval_every > 0 && (saves || self.is_due(plan.intervals.eval_every, step))
    }

    /// Whether `step` ends with scores on the tasks.
    fn scores_at(&self, step: u64) -> bool {
        let plan = &self.setup.plan;
        !self.setup.tasks.is_empty() && (self.is_due(plan.tasks.every, step) || step == plan.last_step())
    }

    /// Whether `step` must be over before the next one is queued.
    fn must_finish_before_next(&self, step: u64) -> bool {
        let plan = &self.setup.plan;
        let intervals = [
            plan.intervals.eval_every,
            plan.intervals.sample_every,
            plan.intervals.checkpoint_every,
        ];
        !Inner::<B>::PIPELINES_STEPS
            || self.scores_at(step)
            || intervals.into_iter().any(|every| self.is_due(every, step))
    }

    /// `error`, after what the run has reached is saved: the weights are those of the last good step. A sharded optimizer is
    /// saved only where all ranks have come to the error: no rank has it whole.
    fn save_then(&mut self, error: TrainError) -> Result<TrainError, TrainError> {
        if self.setup.optimizer.shards().is_none() || matches!(error, TrainError::NonFinite { .. }) {
            self.save()?;
            self.finish_saving()?;
        }
        Ok(error)
    }

    /// Queues an optimizer step: `grad_accum` forward and backward passes, the clip, and AdamW.
    fn queue(&mut self, step: u64) -> Result<QueuedStep, TrainError> {
        self.observer.step_begins(step);
        self.setup.ranks.begin(step);
        let now = Instant::now();
        let began = now.checked_sub(std::mem::take(&mut self.compiled_for)).unwrap_or(now);
        let (mut wait, mut host_to_device) = (Duration::ZERO, Duration::ZERO);
        let mut losses: Option<Tensor<Inner<B>, 1>> = None;
        let mut gradients = GradientSum::Empty;
        let mut summed = Vec::new();
        let micro_steps = self.setup.plan.batch.grad_accum as u64;
        for micro_step in 0..micro_steps {
            let StepLoop { loader, device, .. } = &mut self.setup;
            let batch = span(Operation::Batch, Pass::Forward, || {
                loader.next().map(|batch| {
                    let began = Instant::now();
                    let batch = MicroBatch::new(batch, device);
                    host_to_device += began.elapsed();
                    batch
                })
            })?;
            wait += batch.wait;
            // A backend's random state cannot be saved, so each micro-step seeds it.
            let StepLoop {
                plan, device, ranks, ..
            } = &mut self.setup;
            let draws = (plan.model.dropout > 0.0).then(|| {
                let draws = RANDOM_STATE.lock().unwrap_or_else(PoisonError::into_inner);
                // Counted over all ranks, as one process that takes all of them would.
                let micro_step = micro_step * ranks.size() as u64 + ranks.rank() as u64;
                B::seed(device, dropout_seed(plan.seed, step, micro_step));
                draws
            });
            let (loss, gradient) = if ranks.sum_on_devices() && micro_step + 1 == micro_steps {
                let model = self.stepper.model();
                let pass = || self.stepper.train_step(batch);
                let output;
                (output, summed) = ranks.sum_blocks(model, &mut gradients, pass);
                output
            } else {
                self.stepper.train_step(batch)
            };
            drop(draws);
            losses = Some(match losses {
                Some(sum) => sum + loss,
                None => loss,
            });
            gradients = gradients.add(&self.stepper.model(), gradient);
        }
        let loss = losses.expect("at least one micro-step");
        let model = self.stepper.model();
        let wish = (self.setup.ranks.size() > 1).then(|| self.wish_to_stop()).flatten();
        let ranks = &mut self.setup.ranks;
        let (loss, gradients, mut exchange) = ranks.sum(&model, loss, gradients, summed, wish)?;
        let squared_norm = span(Operation::GradientNorm, Pass::Update, || {
            squared_norm(&model, &gradients)
        });
        // Held during the update, it would have the weights copied.
        drop(model);
        let clip = Clip {
            max_norm: self.setup.plan.grad_clip,
            micro_steps: self.micro_steps(),
        };
        // On the device: a loss that is not finite must not reach the weights, and the host has not seen it yet.
        let optimizer = &self.setup.optimizer;
        span(Operation::Clip, Pass::Update, || {
            optimizer.clip_next_gradients(loss.clone(), squared_norm.clone(), &clip);
        });
        let ranks = &mut self.setup.ranks;
        span(Operation::AdamW, Pass::Update, || {
            let share = &mut |weights: &mut _, owners: &_| ranks.broadcast(weights, owners, &mut exchange);
            self.stepper.optimizer_step(gradients, share)
        })?;
        // Behind the update, so that a step is over when they are there.
        let numbers = [loss, squared_norm].map(|number| number.into_primitive().tensor());
        let mut numbers: Vec<_> = numbers.into_iter().chain(self.setup.ranks.take_to_read()).collect();
        let before = self.clock.take();
        let mut has_lap = false;
        let numbers = span(Operation::Readback, Pass::Update, || {
            if let Some((clock, lap)) = before.and_then(|before| Inner::<B>::lap(&self.setup.device, Some(before))) {
                self.clock = Some(clock);
                numbers.push(lap);
                has_lap = true;
            }
            Inner::<B>::read_async(numbers)
        });
        Ok(QueuedStep {
            step,
            began,
            queued: Instant::now(),
            wait,
            host_to_device,
            lr: self.stepper.lr(),
            exchange,
            has_lap,
            numbers,
        })
    }

    /// Micro-steps of a step, over all ranks.
    fn micro_steps(&self) -> f64 {
        (self.setup.plan.batch.grad_accum * self.setup.ranks.size()) as f64
    }

    /// Waits for a step, and does what comes at its end.
    fn finish(&mut self, queued: QueuedStep) -> Result<(), TrainError> {
        let Intervals {
            sample_every,
            checkpoint_every,
            ..
        } = self.setup.plan.intervals;
        let mut record = match self.complete(queued) {
            Ok(record) => record,
            // No later step has changed the weights then.
            Err(error @ TrainError::NonFinite { .. }) => return Err(self.save_then(error)?),
            Err(error) => return Err(error),
        };
        let step = record.step;
        if self.evaluates_at(step)
            && let Err(error) = self.evaluate(&mut record)
        {
            if !matches!(error, TrainError::NonFinite { .. }) {
                // The log does not know the step yet: going on takes it again.
                return Err(error);
            }
            self.log(&record)?;
            return Err(self.save_then(error)?);
        }
        if self.scores_at(step) {
            self.score(&mut record)?;
        }
        self.log(&record)?;
        self.steps.push(record.clone());
        if self.is_due(sample_every, step)
            && self.setup.ranks.rank() == 0
            && let Err(error) = self.take_sample()
        {
            return Err(self.save_then(error)?);
        }
        self.report(record);
        if self.is_due(checkpoint_every, step) {
            self.save()?;
        }
        match &mut self.setup.checkpoints {
            Some(checkpoints) => checkpoints.check(),
            None => Ok(()),
        }
    }

    /// Waits for a step's numbers, and takes it into the run's state.
    fn complete(&mut self, queued: QueuedStep) -> Result<StepRecord, TrainError> {
        let plan = &self.setup.plan;
        let QueuedStep {
            step,
            began,
            queued,
            wait,
            host_to_device,
            lr,
            exchange,
            has_lap,
            numbers,
        } = queued;
        let looked = Instant::now();
        let mut numbers = numbers.wait(); // host–device sync
        let arrived = Instant::now();
        let lap = numbers.pop_if(|_| has_lap);
        let over = over_at(self.clock_at, lap, queued, arrived);
        self.clock_at = over;
        self.agreed_stop = self.setup.ranks.stop_reason(&exchange, &numbers[2..])?;
        let exchange = self.setup.ranks.exchange_times(&exchange, &numbers[2..])?;
        self.observer.step_ends(step);
        let micro_steps = self.micro_steps();
        let loss = f64::from(numbers[0]) / micro_steps;
        let grad_norm = f64::from(numbers[1]).sqrt() / micro_steps;
        self.check_finite(step, &[(Quantity::Loss, loss), (Quantity::GradientNorm, grad_norm)])?;

        let state = &mut self.setup.state;
        state.step = step;
        state.tokens += plan.tokens_per_step();
        state.next_sequence = step * plan.global_batch() as u64;
        state.val_loss = None;
        // A step that was queued behind another begins when that one is over.
        let began_to_queue = began;
        let began = began.max(self.completed_at);
        self.completed_at = over;
        let seconds = (self.completed_at - began).as_secs_f64();
        self.phases.steps_sec += seconds;
        self.phases.data_wait_sec += wait.as_secs_f64();
        let mut record = StepRecord {
            step,
            tokens: self.setup.state.tokens,
            loss: Some(loss),
            lr: Some(lr),
            grad_norm: Some(grad_norm),
            tokens_per_sec: Some(plan.tokens_per_step() as f64 / seconds),
            step_ms: Some(1e3 * seconds),
            data_wait_ms: Some(ms(wait)),
            host_to_device_ms: Some(ms(host_to_device)),
            rank_wait_ms: exchange.wait.map(ms),
            communication_ms: exchange.communication.map(ms),
            overlapped_communication_ms: exchange.overlapped.map(ms),
            elapsed_sec: Some(self.elapsed_sec()),
            ..StepRecord::default()
        };
        if Inner::<B>::PIPELINES_STEPS {
            record.queue_ms = Some(ms(queued - began_to_queue));
            record.blocked_ms = Some(ms(arrived - looked));
        }
        let parts = [
            record.data_wait_ms,
            record.host_to_device_ms,
            record.rank_wait_ms,
            record.communication_ms,
        ];
        record.compute_ms = Some(1e3 * seconds - parts.into_iter().flatten().sum::<f64>());
        self.memory
            .measure(&mut record, (self.steps.len() as u64) < SETTLING_STEPS);
        self.tell_times(&mut record)?;
        Ok(record)
    }

    /// Tells rank 0 where the time of a step went on this rank; rank 0 keeps what it has heard, and takes the largest rank's
    /// memory for the run's.
    fn tell_times(&mut self, record: &mut StepRecord) -> Result<(), TrainError> {
        if self.setup.ranks.size() == 1 {
            return Ok(());
        }
        if let Some(times) = RankStep::new(self.setup.ranks.rank(), record) {
            self.setup.ranks.send(&times);
        }
        self.keep_times()?;
        let own = [&mut record.device_peak_bytes, &mut record.host_peak_bytes];
        // The one that is the run's peak memory.
        if let Some(peak) = own.into_iter().find(|peak| peak.is_some()) {
            *peak = (*peak).max(self.largest_peak);
        }
        Ok(())
    }

    /// Keeps what the ranks have told of their steps.
    fn keep_times(&mut self) -> Result<(), TrainError> {
        let Some(log) = &mut self.setup.rank_log else {
            return Ok(());
        };
        let lines = self.setup.ranks.received();
        let peaks = lines
            .iter()
            .filter_map(|line| serde_json::from_str::<RankStep>(line).ok()?.peak_memory_bytes);
        self.largest_peak = self.largest_peak.max(peaks.max());
        log.append(&lines)
    }

    fn check_finite(&self, step: u64, found: &[(Quantity, f64)]) -> Result<(), TrainError> {
        match found.iter().find(|(_, value)| !value.is_finite()) {
            Some(&(what, value)) => Err(TrainError::NonFinite {
                what,
                value,
                step,
                position: self.setup.state.next_sequence,
                lr: self.setup.plan.schedule.lr,
                warmup: self.setup.plan.schedule.warmup,
                run: self.setup.paths.root().to_owned(),
                // An evaluation comes behind the update of its step.
                loaded: self.loaded_weights(step + u64::from(what == Quantity::ValidationLoss)),
            }),
            None => Ok(()),
        }
    }

    /// The weights that `step` was computed from, if they were loaded.
    fn loaded_weights(&self, step: u64) -> Option<PathBuf> {
        match self.first_step {
            0 if step == 1 => self.setup.plan.init.clone(),
            first if first > 0 && step == first + 1 => Some(self.setup.checkpoints.as_ref()?.path(first)),
            _ => None,
        }
    }

    /// Puts the loss on the validation tokens into `record` and into the run's state.
    ///
    /// # Errors
    /// [`TrainError::NonFinite`].
    fn evaluate(&mut self, record: &mut StepRecord) -> Result<(), TrainError> {
        let began = Instant::now();
        let StepLoop { validation, ranks, .. } = &mut self.setup;
        let model = self.stepper.model();
        ranks.check_replicas(&model, record.step)?;
        let model = Inner::<B>::inference(model.valid());
        // As bits: text has no name for a loss that is not finite.
        let own = validation.losses(model.as_ref(), ranks.rank(), ranks.size());
        let losses = ranks.in_order(own.map(f64::to_bits).collect())?;
        let losses: Vec<f64> = losses.into_iter().map(f64::from_bits).collect();
        let evaluation = validation.evaluation(&losses);
        self.phases.evaluation_sec += began.elapsed().as_secs_f64();
        self.check_finite(record.step, &[(Quantity::ValidationLoss, evaluation.loss)])?;
        self.setup.state.val_loss = Some(evaluation.loss);
        record.val_loss = Some(evaluation.loss);
        record.val_bpb = evaluation.bits_per_byte;
        Ok(())
    }

    /// Puts what the model scores on the tasks into `record`.
    fn score(&mut self, record: &mut StepRecord) -> Result<(), TrainError> {
        let began = Instant::now();
        let StepLoop {
            plan,
            tasks,
            ranks,
            device,
            ..
        } = &mut self.setup;
        let model = self.stepper.model().valid();
        // The kernels of some precisions are made for the products of training.
        let model = Inner::<B>::inference(model.with_precision(Inner::<B>::plain_precision(plan.machine.precision)));
        Inner::<B>::set_persistent_allocation(device, false);
        let scores = tasks.score(model.as_ref(), plan.batch.micro_batch, ranks);
        Inner::<B>::set_persistent_allocation(device, true);
        record.scores = scores?;
        self.phases.evaluation_sec += began.elapsed().as_secs_f64();
        Ok(())
    }

    /// Lets the model write, and keeps the text in the run directory.
    fn take_sample(&mut self) -> Result<(), TrainError> {
        let began = Instant::now();
        let StepLoop { plan, device, .. } = &self.setup;
        let step = self.setup.state.step;
        let model = Inner::<B>::inference(self.stepper.model().valid());
        Inner::<B>::set_persistent_allocation(device, false);
        let text = sample(model.as_ref(), plan, step);
        Inner::<B>::set_persistent_allocation(device, true);
        let text = text?;
        let path = self.setup.paths.sample(step);
        gpt2_base::fs::write(&path, format!("{text}\n").as_bytes())
            .map_err(|source| TrainError::io("write", &path, source))?;
        self.sample = Some(text.into());
        self.phases.sampling_sec += began.elapsed().as_secs_f64();
        Ok(())
    }

    /// Begins to save where the run stands, which is written while the training goes on.
    fn save(&mut self) -> Result<(), TrainError> {
        let began = Instant::now();
        self.setup.state.elapsed_sec = self.elapsed_sec();
        let StepLoop {
            checkpoints,
            log,
            optimizer,
            ranks,
            state,
            keeps: true,
            ..
        } = &mut self.setup
        else {
            return Ok(());
        };
        if self.saved_step == Some(state.step) {
            return Ok(());
        }
        // Before there is another copy of everything.
        if let Some(checkpoints) = checkpoints {
            checkpoints.finish()?;
        }
        let model = self.stepper.model();
        let moments = if let Some(shards) = optimizer.shards() {
            let mut own = Vec::new();
            for moment in optimizer.export(&model) {
                own.extend(moment.values);
            }
            let exported = ranks.gather_on_first(own)?;
            (ranks.rank() == 0).then(|| shards.merge(&model, exported))
        } else {
            checkpoints.is_some().then(|| optimizer.export(&model))
        };
        self.saved_step = Some(state.step);
        let Some((checkpoints, moments)) = checkpoints.as_mut().zip(moments) else {
            return Ok(());
        };
        if let Some(log) = log {
            log.sync()?;
        }
        state.note_best();
        checkpoints.begin(Snapshot::new(&model, moments, state.clone()))?;
        self.phases.checkpoint_sec += began.elapsed().as_secs_f64();
        Ok(())
    }

    /// Waits until what was saved is written.
    fn finish_saving(&mut self) -> Result<(), TrainError> {
        let began = Instant::now();
        if let Some(checkpoints) = &mut self.setup.checkpoints {
            checkpoints.finish()?;
        }
        self.phases.checkpoint_sec += began.elapsed().as_secs_f64();
        Ok(())
    }

    fn log(&mut self, record: &StepRecord) -> Result<(), TrainError> {
        match &mut self.setup.log {
            Some(log) => log.append(record),
            None => Ok(()),
        }
    }

    /// Seconds of training, over all sessions of the run.
    fn elapsed_sec(&self) -> f64 {
        self.elapsed_before + self.started.elapsed().as_secs_f64()
    }

    /// Shows a step to the observer.
    fn report(&mut self, record: StepRecord) {
        let plan = &self.setup.plan;
        let last = plan.last_step();
        let taken = record.step.saturating_sub(self.first_step);
        let eta_sec = (taken > SETTLING_STEPS)
            .then(|| self.started.elapsed().as_secs_f64() / taken as f64 * (last - record.step) as f64);
        let flops_per_token = gpt2_model::cost::flops_per_token(&plan.model, plan.batch.seq) as f64;
        let mfu = self
            .setup
            .peak_flops
            .zip(record.tokens_per_sec)
            .map(|(peak, rate)| flops_per_token * rate / peak);
        self.observer.step(&StepReport {
            record,
            steps: last,
            eta_sec,
            mfu,
            floor: self.setup.floor,
            sample: self.sample.clone(),
        });
    }
}

/// When a step was over, all of which was `queued` by a time, and whose numbers had `arrived` by another: `lap`
/// milliseconds by the device's clock after `before`, if it has one. Numbers may arrive long after a step, while the
/// host queues the next one.
fn over_at(before: Instant, lap: Option<f32>, queued: Instant, arrived: Instant) -> Instant {
    // Two clocks may differ: a step is over behind its last kernel, and before its numbers are there.
    lap.map_or(arrived, |lap| {
        let over = before + Duration::from_secs_f32(1e-3 * lap.max(0.0));
        over.max(queued).min(arrived)
    })
}

fn ms(time: Duration) -> f64 {
    1e3 * time.as_secs_f64()
}

/// The seed of the dropout of a micro-step.
fn dropout_seed(seed: u64, step: u64, micro_step: u64) -> u64 {
    let mut mixer = gpt2_data::SplitMix64::new(seed ^ step.rotate_left(20) ^ micro_step.rotate_left(44));
    mixer.next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_over_when_the_device_says() {
        let began = Instant::now();
        let [before, queued, arrived] = [1, 2, 5].map(|ms| began + Duration::from_millis(ms));
        let over_at = |lap| over_at(before, lap, queued, arrived);
        assert_eq!(over_at(Some(2.0)), before + Duration::from_millis(2));
        // Whatever two clocks may say.
        assert_eq!(over_at(Some(9.0)), arrived);
        assert_eq!(over_at(Some(0.0)), queued);
        assert_eq!(over_at(None), arrived);
    }
}
