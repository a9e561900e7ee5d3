//! The report of a run that has just ended, from what its launch knows.

use super::{RunOutcome, training_metrics, write_report};
use crate::error::TrainError;
use crate::plan::{DataSummary, RunPlan};
use crate::rank_log::read_rank_steps;
use crate::run_dir::RunPaths;
use crate::step_log::read_records;
use crate::step_loop::Outcome;
use crate::stop::StopReason;
use gpt2_backend::{BackendKind, Chosen, HostFacts, devices};
use gpt2_records::{Scheduler, recorded_variables};
use std::time::SystemTime;

/// What a report says of the program that trained.
#[derive(Debug, Clone, Default)]
pub struct Provenance {
    /// The program and its arguments.
    pub command_line: Vec<String>,
    /// The commit that the program was built from, if it is known.
    pub git_commit: Option<String>,
    /// Burn's version.
    pub burn_version: String,
}

/// What a launch knows of its run.
pub(crate) struct RunFacts<'a> {
    pub(crate) plan: &'a RunPlan,
    pub(crate) data: &'a DataSummary,
    pub(crate) chosen: &'a Chosen,
    /// FLOP/s of the device in the plan's precision, where it is known.
    pub(crate) peak_flops: Option<f64>,
    /// When the launch began.
    pub(crate) started: SystemTime,
}

/// Writes `training_metrics.json`, and `RUN_COMPLETE.txt` if the run reached its end.
///
/// # Errors
/// [`TrainError::Io`] or [`TrainError::DiskFull`].
pub(crate) fn write_run_report(
    paths: &RunPaths,
    facts: &RunFacts<'_>,
    outcome: &Outcome,
    provenance: Provenance,
) -> Result<(), TrainError> {
    let chosen = facts.chosen;
    let on_gpu = matches!(chosen.backend, BackendKind::Cuda | BackendKind::Wgpu);
    let records = read_records(&paths.metrics())?;
    let rank_steps = read_rank_steps(&paths.ranks())?;
    let metrics = training_metrics(RunOutcome {
        run_id: paths
            .root()
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        started: facts.started,
        completed: (outcome.reason == StopReason::Finished).then(SystemTime::now),
        git_commit: provenance.git_commit,
        command_line: provenance.command_line,
        env: recorded_variables(std::env::vars()),
        host: HostFacts::detect(),
        gpu_name: on_gpu.then(|| chosen.device.name.clone()),
        gpu_count_visible: on_gpu.then(|| devices(chosen.backend).map_or(0, |devices| devices.len())),
        cuda_version: chosen.cuda_version(),
        peak_flops: facts.peak_flops,
        scheduler: Scheduler::detect(|name| std::env::var(name).ok()),
        burn_version: provenance.burn_version,
        plan: facts.plan,
        data: facts.data,
        records: &records,
        rank_steps: &rank_steps,
        phases: outcome.phases,
        communication: outcome.communication.clone(),
    });
    write_report(paths, &metrics)
}
