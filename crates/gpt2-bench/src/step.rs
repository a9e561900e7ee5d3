//! The training step timed whole, on fixed shapes and random tokens or on real ones.

use crate::error::BenchError;
use crate::work::random_tokens;
use gpt2_backend::Chosen;
use gpt2_base::stats::Summary;
use gpt2_train::config::RunConfig;
use gpt2_train::data_source::DataSource;
use gpt2_train::launch::{Finished, Keep, Surroundings, View};
use gpt2_train::plan::RunPlan;
use gpt2_train::step_log::StepRecord;
use gpt2_train::stop::StopRequest;
use gpt2_train::{Launch, TrainError};
use serde::Serialize;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// Steps that are trained for their times alone: nothing is evaluated, sampled or saved.
pub struct StepBench {
    launch: Launch,
    data: String,
    warmup_steps: u64,
    /// Holds the run directory.
    _scratch: TempDir,
}

/// The timing, and what was timed.
pub struct Timed {
    /// What it came to.
    pub timing: StepTiming,
    /// What the steps did.
    pub plan: RunPlan,
    /// Where they were computed.
    pub chosen: Chosen,
}

impl StepBench {
    /// Decides `steps` timed steps of the work in `config`, after `warmup_steps` others; on random tokens if it names no data.
    ///
    /// # Errors
    /// Those of [`Launch::new`].
    pub fn new(config: RunConfig, warmup_steps: u64, steps: u64) -> Result<Self, BenchError> {
        let scratch = tempfile::tempdir().map_err(|source| TrainError::io("create", std::env::temp_dir(), source))?;
        let steps = warmup_steps + steps;
        let config = RunConfig {
            run: Some(scratch.path().join("run")),
            steps: Some(steps),
            eval_every: Some(0),
            sample_every: Some(0),
            checkpoint_every: Some(0),
            // The device's memory is asked for at the first steps and at the last.
            log_every: Some(steps),
            ..config
        };
        let (data, name) = match &config.data {
            Some(dir) => (DataSource::Directory(dir.clone()), dir.display().to_string()),
            None => (random_tokens(&config), "random".to_owned()),
        };
        Ok(Self {
            launch: Launch::on(&config, data)?,
            data: name,
            warmup_steps,
            _scratch: scratch,
        })
    }

    /// What will be timed.
    pub fn plan(&self) -> &RunPlan {
        self.launch.plan()
    }

    /// Trains the steps. `program` is the name under which the timing stands.
    ///
    /// # Errors
    /// Those of [`Launch::run`].
    pub fn run(self, program: String, stop: StopRequest) -> Result<Timed, BenchError> {
        let finished = self.launch.run(Surroundings {
            view: View::silent(),
            stop,
            announcement: None,
            keep: Keep::Nothing,
            tensorboard: false,
        })?;
        Ok(Timed {
            timing: StepTiming::new(program, self.data, self.warmup_steps, &finished),
            plan: finished.plan,
            chosen: finished.chosen,
        })
    }
}

/// What one configuration came to. The keys are those of the PyTorch peer's line, and a few more.
#[derive(Debug, Clone, Serialize)]
pub struct StepTiming {
    /// What ran.
    pub peer: String,
    /// The backend.
    pub backend: String,
    /// The device's name.
    pub device: String,
    /// Preset of the model.
    pub model: String,
    /// CPU threads.
    pub threads: usize,
    /// Type of the operands of products.
    pub dtype: String,
    /// There is nothing to compile.
    pub compile: &'static str,
    /// Sequences in a micro-step.
    pub batch: usize,
    /// Tokens in a sequence.
    pub seq: usize,
    /// Micro-steps in a step.
    pub grad_accum: usize,
    /// Where the tokens are from.
    pub data: String,
    /// Timed steps, without those of the warm-up.
    pub steps: usize,
    /// Median milliseconds of a step.
    pub step_ms_median: f64,
    /// 95 in 100 steps take no longer.
    pub step_ms_p95: f64,
    /// The shortest.
    pub step_ms_min: f64,
    /// The longest.
    pub step_ms_max: f64,
    /// Of the median step.
    pub tokens_per_sec: f64,
    /// Seconds of all steps of the warm-up.
    pub warmup_s: f64,
    /// Seconds of the first step, in which kernels are compiled.
    pub first_step_s: f64,
    /// Median milliseconds in which the host queued a step, where the device computes behind it. As long as the step
    /// itself, the device waits for the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms_median: Option<f64>,
    /// Median milliseconds in which the host waited for the device, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_ms_median: Option<f64>,
    /// Loss of the last step.
    pub loss_last: f64,
    /// Parameters of the model.
    pub params: u64,
    /// Device: the pool's largest size. CPU: the process's largest resident size.
    pub peak_mem_mib: u64,
    /// What the driver counts, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_mem_mib: Option<u64>,
    /// Share of the device's peak FLOP/s, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
}

impl StepTiming {
    fn new(program: String, data: String, warmup_steps: u64, finished: &Finished) -> Self {
        let Finished {
            plan, chosen, outcome, ..
        } = finished;
        let warmup = outcome.steps.len().min(warmup_steps as usize);
        let milliseconds = |steps: &[StepRecord]| steps.iter().filter_map(|step| step.step_ms).collect::<Vec<_>>();
        let (before, timed) = (
            milliseconds(&outcome.steps[..warmup]),
            milliseconds(&outcome.steps[warmup..]),
        );
        let summary = Summary::of(&timed).unwrap_or(Summary {
            count: 0,
            mean: f64::NAN,
            std: f64::NAN,
            min: f64::NAN,
            p50: f64::NAN,
            p95: f64::NAN,
            max: f64::NAN,
        });
        let rounded = |value: f64| (value * 1e3).round() / 1e3;
        let tokens_per_sec = plan.tokens_per_step() as f64 / summary.p50 * 1e3;
        let flops = gpt2_model::cost::flops_per_token(&plan.model, plan.batch.seq) as f64;
        let median = |part: fn(&StepRecord) -> Option<f64>| {
            let values: Vec<f64> = outcome.steps[warmup..].iter().filter_map(part).collect();
            Summary::of(&values).map(|summary| rounded(summary.p50))
        };
        let largest = |memory: fn(&StepRecord) -> Option<u64>| outcome.steps.iter().filter_map(memory).max();
        Self {
            peer: program,
            backend: chosen.backend.to_string(),
            device: chosen.device.name.clone(),
            model: plan.preset.clone(),
            threads: plan.machine.threads,
            dtype: plan.machine.precision.to_string(),
            compile: "none",
            batch: plan.batch.micro_batch,
            seq: plan.batch.seq,
            grad_accum: plan.batch.grad_accum,
            data,
            steps: summary.count,
            step_ms_median: rounded(summary.p50),
            step_ms_p95: rounded(summary.p95),
            step_ms_min: rounded(summary.min),
            step_ms_max: rounded(summary.max),
            tokens_per_sec: rounded(tokens_per_sec),
            warmup_s: rounded(before.iter().sum::<f64>() / 1e3),
            queue_ms_median: median(|step| step.queue_ms),
            blocked_ms_median: median(|step| step.blocked_ms),
            first_step_s: rounded(before.first().or(timed.first()).copied().unwrap_or(f64::NAN) / 1e3),
            loss_last: outcome.steps.last().and_then(|step| step.loss).unwrap_or(f64::NAN),
            params: gpt2_model::cost::parameters(&plan.model) as u64,
            peak_mem_mib: largest(StepRecord::peak_memory_bytes).unwrap_or(0) / MIB,
            driver_mem_mib: largest(|step| step.device_driver_bytes).map(|bytes| bytes / MIB),
            mfu: chosen
                .peak_flops(plan.machine.precision)
                .map(|peak| rounded(flops * tokens_per_sec / peak)),
        }
    }
}
