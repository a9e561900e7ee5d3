//! `gpt2 bench`: times the training step itself, on fixed shapes and random tokens or on real ones, and its operations.

use crate::backend::{Chosen, Job, dispatch};
use crate::cli::{BenchCommand, BenchOperationsArgs, BenchStepArgs, BenchWork};
use crate::commands::train::{Streams, TrainJob};
use crate::diagnostics::note;
use crate::error::CliError;
use crate::printer::{print, table};
use crate::{signals, threads};
use burn::tensor::backend::AutodiffBackend;
use burn::train::Interrupter;
use gpt2_data::{ShardWriter, SplitMix64, VOCAB_SIZE};
use gpt2_model::ops::Gpt2Backend;
use gpt2_train::config::RunConfig;
use gpt2_train::hardware::HostFacts;
use gpt2_train::measure::operations::{Operation, Operations, Work, measure};
use gpt2_train::measure::stats::Summary;
use gpt2_train::metrics_log::StepRecord;
use gpt2_train::optimizer::TrainingBackend;
use gpt2_train::plan::{DataSummary, Environment, RunPlan};
use gpt2_train::run_dir::RunDir;
use gpt2_train::{Display, Ending, TrainError};
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

impl Job for OperationsJob<'_> {
    type Output = Operations;

    fn run<B>(self, device: B::Device, _: &Chosen) -> Result<Operations, CliError>
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let work = Work {
            model: &self.plan.model,
            batch: self.plan.batch,
            seq: self.plan.seq,
            precision: self.plan.precision,
            repeats: self.repeats,
        };
        Ok(measure::<B::InnerBackend>(&work, &device))
    }
}

/// Trains for some steps and keeps nothing of it but the times.
fn time_step(args: &BenchWork) -> Result<(StepTiming, RunPlan, Chosen), CliError> {
    let cores = HostFacts::detect().cores;
    threads::set(args.threads.unwrap_or(cores))?;
    let chosen = Chosen::decide(args.machine.backend, args.machine.device)?;
    let scratch = tempfile::tempdir().map_err(|source| TrainError::io("create", std::env::temp_dir(), source))?;
    let steps = args.warmup_steps + args.steps;
    let given = args.data.as_deref().map(|dir| Streams::open(dir, false)).transpose()?;
    let summary = match &given {
        Some(streams) => streams.summary.clone(),
        None => random_tokens(args, steps),
    };
    let run = scratch.path().join("run");
    let config = RunConfig {
        model: Some(args.model.clone()),
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
    let environment = Environment {
        data: summary.clone(),
        default_run: run.clone(),
        auto_backend: chosen.backend,
        cores,
        init_model: None,
    };
    let plan = RunPlan::resolve(&config, &environment)?;
    if let Some(available) = chosen.probe().total_memory() {
        plan.check_memory(available)?;
    }
    if let Some(how) = plan.without_kernels() {
        note(&how);
    }
    // Only now that the plan stands: they may be many.
    let data = if let Some(streams) = given {
        streams
    } else {
        let dir = scratch.path().join("random");
        write_random_tokens(&dir, summary.train_tokens, args.seed)?;
        Streams::open(&dir, false)?
    };
    let interrupter = Interrupter::new();
    let _registered = signals::stop_on_signals(&interrupter);
    let directory = RunDir::create(run)?;
    let job = TrainJob {
        plan: plan.clone(),
        paths: (*directory).clone(),
        data,
        resume: None,
        display: Display::Quiet,
        interrupter,
        save: false,
    };
    let ending = dispatch(&chosen, job)?;
    let timing = StepTiming::new(args, &plan, &chosen, &ending);
    Ok((timing, plan, chosen))
}

/// As many random tokens as `steps` steps take.
fn random_tokens(args: &BenchWork, steps: u64) -> DataSummary {
    let a_step = args.batch.saturating_mul(args.grad_accum).saturating_mul(args.seq);
    DataSummary {
        name: "random".to_owned(),
        train_tokens: steps.saturating_mul(a_step as u64).saturating_add(1),
        val_tokens: 0,
        floor: None,
    }
}

/// Tokens drawn evenly from the vocabulary, which nothing can be learned from.
fn write_random_tokens(dir: &Path, count: u64, seed: u64) -> Result<(), CliError> {
    std::fs::create_dir(dir).map_err(|source| TrainError::io("create", dir, source))?;
    let mut random = SplitMix64::new(seed);
    let mut shard = ShardWriter::create(dir.join("random_train_000000.bin"))?;
    for _ in 0..count {
        shard.push((random.next_u64() % VOCAB_SIZE as u64) as u16)?;
    }
    shard.finish()?;
    Ok(())
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
    fn new(args: &BenchWork, plan: &RunPlan, chosen: &Chosen, ending: &Ending) -> Self {
        let warmup = ending.steps.len().min(args.warmup_steps as usize);
        let milliseconds = |steps: &[StepRecord]| steps.iter().filter_map(|step| step.step_ms).collect::<Vec<_>>();
        let (before, timed) = (
            milliseconds(&ending.steps[..warmup]),
            milliseconds(&ending.steps[warmup..]),
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
        let flops = gpt2_model::cost::flops_per_token(&plan.model, plan.seq) as f64;
        let largest = |memory: fn(&StepRecord) -> Option<u64>| ending.steps.iter().filter_map(memory).max();
        Self {
            peer: format!(
                "gpt2 {} burn {}",
                env!("CARGO_PKG_VERSION"),
                super::summary::BURN_VERSION
            ),
            backend: chosen.backend.to_string(),
            device: chosen.device.name.clone(),
            model: plan.preset.clone(),
            threads: plan.threads,
            dtype: plan.precision.to_string(),
            compile: "none",
            batch: plan.batch,
            seq: plan.seq,
            grad_accum: plan.grad_accum,
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
            loss_last: ending.steps.last().and_then(|step| step.loss).unwrap_or(f64::NAN),
            params: gpt2_model::cost::parameters(&plan.model) as u64,
            peak_mem_mib: largest(StepRecord::peak_memory_bytes).unwrap_or(0) / MIB,
            driver_mem_mib: largest(|step| step.device_driver_bytes).map(|bytes| bytes / MIB),
            mfu: chosen
                .peak_flops(plan.precision)
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
