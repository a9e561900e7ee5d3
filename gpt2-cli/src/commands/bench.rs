//! `gpt2 bench`: times the training step itself, on fixed shapes and random tokens or on real ones.

use super::{profile, study};
use crate::cli::{BenchCommand, BenchStepArgs, BenchWork};
use crate::diagnostics::note;
use crate::error::CliError;
use crate::printer::print;
use crate::{signals, version};
use gpt2_bench::peer::Peer;
use gpt2_bench::step::{StepBench, Timed};
use gpt2_train::config::RunConfig;
use gpt2_train::stop::StopRequest;

pub(crate) fn run(command: &BenchCommand) -> Result<(), CliError> {
    match command {
        BenchCommand::Step(args) => step(args),
        BenchCommand::Operations(args) => profile::of_operations(args),
        BenchCommand::FixedWork(args) => study::fixed_work(args),
        BenchCommand::Threads(args) => study::threads(args),
        BenchCommand::Scaling(args) => study::scaling(args),
        BenchCommand::Sweep(args) => study::sweep(args),
        BenchCommand::Work { dir } => study::work(dir),
    }
}

fn step(args: &BenchStepArgs) -> Result<(), CliError> {
    let peer = args.vs.as_deref().map(Peer::read).transpose()?;
    let Timed { timing, .. } = time_step(args)?;
    let line = serde_json::to_string(&timing).expect("numbers and text");
    print(format!("{line}\n"))?;
    peer.map_or(Ok(()), |peer| print(peer.against(&timing) + "\n"))
}

/// Trains for some steps and keeps nothing of it but the times.
fn time_step(args: &BenchStepArgs) -> Result<Timed, CliError> {
    let config = RunConfig {
        operations: args.operations,
        ..settings(&args.work)
    };
    let bench = StepBench::new(config, args.warmup_steps, args.steps)?;
    if let Some(how) = bench.plan().without_kernels() {
        note(&how);
    }
    let stop = StopRequest::default();
    let _stopped_by_signals = signals::stop_on_signals(&stop);
    Ok(bench.run(version::program(), stop)?)
}

/// The settings of a run that a benchmark's flags make.
pub(super) fn settings(args: &BenchWork) -> RunConfig {
    RunConfig {
        model: Some(args.model.clone()),
        data: args.data.clone(),
        backend: Some(args.machine.backend),
        device: Some(args.machine.device),
        precision: Some(args.machine.precision),
        recompute: args.recompute,
        threads: args.threads,
        seed: Some(args.seed),
        batch: Some(args.batch.into()),
        seq: Some(args.seq),
        grad_accum: Some(args.grad_accum),
        ..RunConfig::default()
    }
}
