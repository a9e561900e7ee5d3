//! `gpt2 bench`: times the training step itself, on fixed shapes and random tokens or on real ones, and its operations.

use super::study;
use crate::cli::{BenchCommand, BenchOperationsArgs, BenchStepArgs, BenchWork};
use crate::diagnostics::note;
use crate::error::CliError;
use crate::printer::{print, table};
use crate::{signals, version};
use gpt2_bench::operations::{self, Operation, Operations};
use gpt2_bench::peer::Peer;
use gpt2_bench::step::{StepBench, Timed};
use gpt2_train::config::RunConfig;
use gpt2_train::stop::StopRequest;

pub(crate) fn run(command: &BenchCommand) -> Result<(), CliError> {
    match command {
        BenchCommand::Step(args) => step(args),
        BenchCommand::Operations(args) => operations(args),
        BenchCommand::FixedWork(args) => study::fixed_work(args),
        BenchCommand::Threads(args) => study::threads(args),
        BenchCommand::Sweep(args) => study::sweep(args),
        BenchCommand::Work { dir } => study::work(dir),
    }
}

fn step(args: &BenchStepArgs) -> Result<(), CliError> {
    let peer = args.vs.as_deref().map(Peer::read).transpose()?;
    let Timed { timing, .. } = time_step(&args.work)?;
    let line = serde_json::to_string(&timing).expect("numbers and text");
    print(format!("{line}\n"))?;
    peer.map_or(Ok(()), |peer| print(peer.against(&timing) + "\n"))
}

fn operations(args: &BenchOperationsArgs) -> Result<(), CliError> {
    let Timed { timing, plan, chosen } = time_step(&args.work)?;
    let Operations {
        operations,
        product_ceiling,
        ceiling_side,
        memory_ceiling,
    } = operations::measure(&plan, &chosen, args.repeats)?;
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

/// Trains for some steps and keeps nothing of it but the times.
fn time_step(args: &BenchWork) -> Result<Timed, CliError> {
    let config = RunConfig {
        model: Some(args.model.clone()),
        data: args.data.clone(),
        backend: Some(args.machine.backend),
        device: Some(args.machine.device),
        precision: Some(args.machine.precision),
        recompute: args.recompute,
        operations: args.operations,
        threads: args.threads,
        seed: Some(args.seed),
        batch: Some(args.batch),
        seq: Some(args.seq),
        grad_accum: Some(args.grad_accum),
        ..RunConfig::default()
    };
    let bench = StepBench::new(config, args.warmup_steps, args.steps)?;
    if let Some(how) = bench.plan().without_kernels() {
        note(&how);
    }
    let stop = StopRequest::default();
    let _stopped_by_signals = signals::stop_on_signals(&stop);
    Ok(bench.run(version::program(), stop)?)
}
