//! What a training run leaves behind: the report's files, and the summary that is printed last.

use crate::backend::Chosen;
use crate::command_line::new_run;
use crate::diagnostics::{advise, warn};
use crate::error::CliError;
use crate::hints::slower;
use crate::printer::{print as print_text, quoted};
use gpt2_train::config::BackendChoice;
use gpt2_train::hardware::{HostFacts, commit};
use gpt2_train::measure::stats;
use gpt2_train::metrics::clock;
use gpt2_train::metrics_log::{StepRecord, read_records};
use gpt2_train::plan::{DataSummary, RunPlan, divergence};
use gpt2_train::quantity::{bytes, grouped};
use gpt2_train::report::{RunOutcome, Scheduler, TrainingMetrics, recorded_variables, steady_steps, write_report};
use gpt2_train::run_dir::RunPaths;
use gpt2_train::{Ending, StopReason};
use std::path::Path;
use std::time::SystemTime;

/// The pinned version of Burn.
pub(super) const BURN_VERSION: &str = "0.21.0";

/// Writes `training_metrics.json`, and `RUN_COMPLETE.txt` if the run reached its end.
pub(crate) fn report(
    paths: &RunPaths,
    plan: &RunPlan,
    data: &DataSummary,
    chosen: &Chosen,
    peak_flops: Option<f64>,
    ending: &Ending,
    started: SystemTime,
) -> Result<(), CliError> {
    let on_gpu = matches!(chosen.backend, BackendChoice::Cuda | BackendChoice::Wgpu);
    let records = read_records(&paths.metrics())?;
    let metrics = TrainingMetrics::new(RunOutcome {
        run_id: paths
            .root()
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        started,
        completed: (ending.reason == StopReason::Finished).then(SystemTime::now),
        git_commit: commit(Path::new(".")),
        command_line: std::env::args_os()
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
        env: recorded_variables(std::env::vars()),
        host: HostFacts::detect(),
        gpu_name: on_gpu.then(|| chosen.device.name.clone()),
        gpu_count_visible: on_gpu.then(|| crate::backend::devices(chosen.backend).map_or(0, |devices| devices.len())),
        cuda_version: None,
        peak_flops,
        scheduler: Scheduler::detect(|name| std::env::var(name).ok()),
        burn_version: BURN_VERSION.to_owned(),
        plan,
        data,
        records: &records,
        phases: ending.phases,
    });
    Ok(write_report(paths, &metrics)?)
}

/// Prints how the run ended, what it reached and what to do next.
pub(crate) fn print(paths: &RunPaths, plan: &RunPlan, data: &DataSummary, ending: &Ending) -> Result<(), CliError> {
    let state = &ending.state;
    let run = quoted(paths.root());
    let records = read_records(&paths.metrics())?;
    let last = records.last();
    let mut lines = vec![String::new()];
    lines.push(match &ending.reason {
        StopReason::Finished => format!("Finished: {} steps, {} tokens.", state.step, grouped(state.tokens)),
        StopReason::TimeLimit => format!("Stopped at step {}: `max-minutes` is over.", state.step),
        StopReason::Asked(by) => format!("Stopped at step {} by {by}; everything is saved.", state.step),
    });
    let mut row = |label: &str, value: String| lines.push(format!("  {label:<12} {value}"));
    if let Some(loss) = last.and_then(|record| record.loss) {
        row("train loss", format!("{loss:.4}"));
    }
    if let Some(loss) = state.val_loss {
        let floor = data
            .floor
            .map(|floor| format!(" ({:.4} above the floor of {floor:.4})", loss - floor));
        row("val loss", format!("{loss:.4}{}", floor.unwrap_or_default()));
    }
    if let Some(best) = state.best {
        row("best", format!("{:.4} at step {}", best.val_loss, best.step));
    }
    let rates: Vec<f64> = steady_steps(&ending.steps)
        .iter()
        .filter_map(|record| record.tokens_per_sec)
        .collect();
    if let Some(rate) = stats::median(&rates) {
        row(
            "speed",
            format!("{} tokens/s (median after warm-up)", grouped(rate.round() as u64)),
        );
    }
    if let Some(peak) = ending.steps.iter().filter_map(StepRecord::peak_memory_bytes).max() {
        row("peak memory", bytes(peak));
    }
    row("time", clock(state.elapsed_sec));
    row("files", run.clone());
    if let Some(sample) = &ending.sample {
        lines.push(format!("\n{sample}"));
    }
    lines.push(String::new());
    if ending.reason != StopReason::Finished {
        lines.push(format!("Go on with:     gpt2 train --run {run} --resume"));
    }
    let prompt = if plan.sample_prompt.is_empty() {
        "The"
    } else {
        &plan.sample_prompt
    };
    lines.push(format!(
        "Sample from it: gpt2 sample --run {run} --prompt {}\n",
        quoted(Path::new(prompt))
    ));
    print_text(lines.join("\n").as_bytes())
}

/// Says so if the run ended with a model that is worse than an untrained one.
pub(crate) fn warn_of_divergence(paths: &RunPaths, plan: &RunPlan, steps: &[StepRecord]) {
    if let Some(warning) = divergence(steps, plan.model.vocab_size) {
        warn(&warning.to_string());
        let flags = slower(plan.lr, plan.min_lr);
        advise(&new_run(paths.root(), None, &flags));
    }
}
