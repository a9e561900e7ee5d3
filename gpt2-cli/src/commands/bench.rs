//! `gpt2 bench`: times the training step itself, on fixed shapes and random tokens or on real ones, and its operations.

use crate::cli::{BenchCommand, BenchOperationsArgs, BenchStepArgs, BenchWork};
use crate::diagnostics::note;
use crate::error::CliError;
use crate::printer::{print, table};
use crate::{signals, version};
use burn::tensor::backend::AutodiffBackend;
use gpt2_backend::{Chosen, TrainingJob, dispatch};
use gpt2_base::stats::Summary;
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::ops::training::TrainingBackend;
use gpt2_train::config::RunConfig;
use gpt2_train::data_source::DataSource;
use gpt2_train::launch::{Finished, Surroundings, View};
use gpt2_train::measure::operations::{Operation, Operations, Work, measure};
use gpt2_train::plan::RunPlan;
use gpt2_train::step_log::StepRecord;
use gpt2_train::stop::StopRequest;
use gpt2_train::{Launch, TrainError};
use serde::{Deserialize, Serialize};
use std::path::Path;

const MIB: u64 = 1 << 20;

pub(crate) fn run(command: &BenchCommand) -> Result<(), CliError> {
    match command {
        BenchCommand::Step(args) => step(args),
        BenchCommand::Operations(args) => operations(args),
    }
}

fn step(args: &BenchStepArgs) -> Result<(), CliError> {
    let peer = args.vs.as_deref().map(Peer::read).transpose()?;
    let (timing, ..) = time_step(&args.work)?;
    let line = serde_json::to_string(&timing).expect("numbers and text");
    print(format!("{line}\n"))?;
    peer.map_or(Ok(()), |peer| print(timing.against(&peer)))
}

fn operations(args: &BenchOperationsArgs) -> Result<(), CliError> {
    let (timing, plan, chosen) = time_step(&args.work)?;
    let job = OperationsJob {
        plan: &plan,
        repeats: args.repeats,
    };
    let Operations {
        operations,
        product_ceiling,
        ceiling_side,
        memory_ceiling,
    } = dispatch(&chosen, job)?;
    let total: f64 = operations.iter().map(Operation::ms_per_step).sum();
    let rows = operations
        .iter()
        .map(|operation| {
            let seconds = operation.ms / 1e3;
            let share = |amount: f64, ceiling: f64| {
                if amount > 0.0 {
                    (
                        format!("{:.1}", amount / seconds / 1e9),
                        format!("{:.0} %", 100.0 * amount / seconds / ceiling),
                    )
                } else {
                    (String::new(), String::new())
                }
            };
            let (gflops, of_products) = share(operation.flop, product_ceiling);
            let (gigabytes, of_memory) = share(operation.bytes, memory_ceiling);
            [
                operation.name.to_owned(),
                format!("{:.1}", operation.count),
                format!("{:.3}", operation.ms),
                format!("{:.1}", operation.ms_per_step()),
                gflops,
                of_products,
                gigabytes,
                of_memory,
            ]
        })
        .collect();
    let header = [
        "operation",
        "a step",
        "ms",
        "ms a step",
        "GFLOP/s",
        "of most",
        "GB/s",
        "of most",
    ];
    print(table(header, rows, 1))?;
    let flop: f64 = operations
        .iter()
        .map(|operation| operation.count * operation.flop)
        .sum();
    let step = timing.step_ms_median;
    print(format!(
        "\noperations {total:.1} ms, whole step {step:.1} ms (median of {}): {:.1} GFLOP/s, {:.0} % of the most\n\
         at most {:.1} GFLOP/s (product of {ceiling_side} by {ceiling_side}) and {:.1} GB/s (read and written)\n",
        timing.steps,
        flop / step / 1e6,
        100.0 * flop / step * 1e3 / product_ceiling,
        product_ceiling / 1e9,
        memory_ceiling / 1e9,
    ))
}

struct OperationsJob<'a> {
    plan: &'a RunPlan,
    repeats: usize,
}

impl TrainingJob for OperationsJob<'_> {
    type Output = Operations;

    fn run<B>(self, device: B::Device) -> Operations
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let work = Work {
            model: &self.plan.model,
            batch: self.plan.batch.micro_batch,
            seq: self.plan.batch.seq,
            precision: self.plan.machine.precision,
            repeats: self.repeats,
        };
        measure::<B::InnerBackend>(&work, &device)
    }
}

/// Trains for some steps and keeps nothing of it but the times.
fn time_step(args: &BenchWork) -> Result<(StepTiming, RunPlan, Chosen), CliError> {
    let scratch = tempfile::tempdir().map_err(|source| TrainError::io("create", std::env::temp_dir(), source))?;
    let steps = args.warmup_steps + args.steps;
    let config = RunConfig {
        run: Some(scratch.path().join("run")),
        model: Some(args.model.clone()),
        backend: Some(args.machine.backend),
        device: Some(args.machine.device),
        precision: Some(args.machine.precision),
        recompute: args.recompute,
        threads: args.threads,
        seed: Some(args.seed),
        steps: Some(steps),
        batch: Some(args.batch),
        seq: Some(args.seq),
        grad_accum: Some(args.grad_accum),
        eval_every: Some(0),
        sample_every: Some(0),
        checkpoint_every: Some(0),
        // The device's memory is asked for at the first steps and at the last.
        log_every: Some(steps),
        ..RunConfig::default()
    };
    let a_step = args.batch.saturating_mul(args.grad_accum).saturating_mul(args.seq);
    let data = match &args.data {
        Some(dir) => DataSource::Directory(dir.clone()),
        None => DataSource::Random {
            tokens: steps.saturating_mul(a_step as u64).saturating_add(1),
            seed: args.seed,
        },
    };
    let launch = Launch::on(&config, data)?;
    if let Some(how) = launch.plan().without_kernels() {
        note(&how);
    }
    let stop = StopRequest::default();
    let _stopped_by_signals = signals::stop_on_signals(&stop);
    let finished = launch.run(Surroundings {
        view: View::silent(),
        stop,
        announcement: None,
        provenance: None,
    })?;
    let timing = StepTiming::new(args, &finished);
    Ok((timing, finished.plan, finished.chosen))
}

/// What one configuration came to. The keys are those of the PyTorch peer's line, and a few more.
#[derive(Debug, Serialize)]
struct StepTiming {
    /// What ran.
    peer: String,
    backend: String,
    device: String,
    model: String,
    threads: usize,
    dtype: String,
    compile: &'static str,
    batch: usize,
    seq: usize,
    grad_accum: usize,
    data: String,
    /// Timed steps, without those of the warm-up.
    steps: usize,
    step_ms_median: f64,
    step_ms_p95: f64,
    step_ms_min: f64,
    step_ms_max: f64,
    /// Of the median step.
    tokens_per_sec: f64,
    /// All steps of the warm-up, and the first alone.
    warmup_s: f64,
    first_step_s: f64,
    loss_last: f64,
    params: u64,
    /// Device: the pool's largest size. CPU: the process's largest resident size.
    peak_mem_mib: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver_mem_mib: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mfu: Option<f64>,
}

impl StepTiming {
    fn new(args: &BenchWork, finished: &Finished) -> Self {
        let Finished {
            plan, chosen, outcome, ..
        } = finished;
        let warmup = outcome.steps.len().min(args.warmup_steps as usize);
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
        let largest = |memory: fn(&StepRecord) -> Option<u64>| outcome.steps.iter().filter_map(memory).max();
        Self {
            peer: format!("gpt2 {} burn {}", env!("CARGO_PKG_VERSION"), version::BURN),
            backend: chosen.backend.to_string(),
            device: chosen.device.name.clone(),
            model: plan.preset.clone(),
            threads: plan.machine.threads,
            dtype: plan.machine.precision.to_string(),
            compile: "none",
            batch: plan.batch.micro_batch,
            seq: plan.batch.seq,
            grad_accum: plan.batch.grad_accum,
            data: args
                .data
                .as_ref()
                .map_or_else(|| "random".to_owned(), |dir| dir.display().to_string()),
            steps: summary.count,
            step_ms_median: rounded(summary.p50),
            step_ms_p95: rounded(summary.p95),
            step_ms_min: rounded(summary.min),
            step_ms_max: rounded(summary.max),
            tokens_per_sec: rounded(tokens_per_sec),
            warmup_s: rounded(before.iter().sum::<f64>() / 1e3),
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

    /// Ratios to a peer's line, where more than 1 is faster, and less memory is below 1.
    fn against(&self, peer: &Peer) -> String {
        let differences = self.differences(peer);
        let warning = if differences.is_empty() {
            String::new()
        } else {
            format!(" (not the same work: {})", differences.join(", "))
        };
        format!(
            "against {}: tokens/s x {:.3}, peak memory x {:.3}{warning}\n",
            peer.name,
            self.tokens_per_sec / peer.tokens_per_sec,
            self.peak_mem_mib as f64 / peer.peak_mem_mib,
        )
    }

    /// "batch 4 against 8", for each key of the work in which `peer` differs.
    fn differences(&self, peer: &Peer) -> Vec<String> {
        let numbers = [
            ("batch", self.batch, peer.batch),
            ("seq", self.seq, peer.seq),
            ("grad_accum", self.grad_accum, peer.grad_accum),
        ]
        .map(|(key, ours, theirs)| (key, ours.to_string(), theirs.to_string()));
        [
            ("model", self.model.clone(), peer.model.clone()),
            ("dtype", self.dtype.clone(), peer.dtype.clone()),
        ]
        .into_iter()
        .chain(numbers)
        .filter(|(_, ours, theirs)| ours != theirs)
        .map(|(key, ours, theirs)| format!("{key} {ours} against {theirs}"))
        .collect()
    }
}

/// What is compared of another program's line.
#[derive(Debug, Deserialize)]
struct Peer {
    #[serde(rename = "peer")]
    name: String,
    model: String,
    dtype: String,
    batch: usize,
    seq: usize,
    /// 1 where a program does not know of it.
    #[serde(default = "one")]
    grad_accum: usize,
    tokens_per_sec: f64,
    peak_mem_mib: f64,
}

fn one() -> usize {
    1
}

impl Peer {
    /// The last line of the file at `path`.
    fn read(path: &Path) -> Result<Self, CliError> {
        let text = std::fs::read_to_string(path).map_err(|source| TrainError::io("read", path, source))?;
        let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        serde_json::from_str(line).map_err(|source| CliError::NotATiming {
            path: path.to_owned(),
            source,
        })
    }
}
