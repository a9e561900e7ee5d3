//! What is printed when a training run has ended.

use crate::command_line::new_run;
use crate::diagnostics::{advise, warn};
use crate::error::CliError;
use crate::hints::slower;
use crate::printer::{print as print_text, quoted};
use gpt2_base::stats;
use gpt2_base::units::{bytes, clock, grouped};
use gpt2_records::steady_steps;
use gpt2_train::StopReason;
use gpt2_train::launch::Finished;
use gpt2_train::plan::divergence;
use gpt2_train::step_log::{StepRecord, read_records};
use std::path::Path;

/// Prints how the run ended, what it reached and what to do next.
pub(crate) fn print(finished: &Finished) -> Result<(), CliError> {
    let Finished {
        outcome,
        plan,
        data,
        directory,
        ..
    } = finished;
    let state = &outcome.state;
    let run = quoted(directory.root());
    let records = read_records(&directory.metrics())?;
    let last = records.last();
    let mut lines = vec![String::new()];
    lines.push(match &outcome.reason {
        StopReason::Finished => format!("Finished: {} steps, {} tokens.", state.step, grouped(state.tokens)),
        StopReason::TimeLimit => format!("Stopped at step {}: `max-minutes` is over.", state.step),
        StopReason::Requested(by) => format!("Stopped at step {} by {by}; everything is saved.", state.step),
    });
    let mut row = |label: &str, value: String| lines.push(format!("  {label:<12} {value}"));
    if let Some(loss) = last.and_then(|record| record.loss) {
        row("train loss", format!("{loss:.4}"));
    }
    let evaluated = records
        .iter()
        .rev()
        .find_map(|record| Some((record.step, record.val_loss?)));
    if let Some((step, loss)) = evaluated {
        let floor = data
            .floor
            .map(|floor| format!(" ({:.4} above the floor of {floor:.4})", loss - floor));
        // A run that was stopped between two evaluations has none of its last weights.
        let earlier = (step != state.step).then(|| format!(" at step {step}"));
        row(
            "val loss",
            format!("{loss:.4}{}{}", floor.unwrap_or_default(), earlier.unwrap_or_default()),
        );
    }
    if let Some(best) = state.best {
        row("best saved", format!("{:.4} at step {}", best.val_loss, best.step));
    }
    let rates: Vec<f64> = steady_steps(&outcome.steps)
        .iter()
        .filter_map(|record| record.tokens_per_sec)
        .collect();
    if let Some(rate) = stats::median(&rates) {
        row(
            "speed",
            format!("{} tokens/s (median after warm-up)", grouped(rate.round() as u64)),
        );
    }
    if let Some(peak) = outcome.steps.iter().filter_map(StepRecord::peak_memory_bytes).max() {
        row("peak memory", bytes(peak));
    }
    row("time", clock(state.elapsed_sec));
    row("files", run.clone());
    if let Some(sample) = &outcome.sample {
        lines.push(format!("\n{sample}"));
    }
    lines.push(String::new());
    if outcome.reason != StopReason::Finished {
        // The minutes before a resume count: the same limit would end the run at once.
        let longer = plan
            .limits
            .max_minutes
            .filter(|_| outcome.reason == StopReason::TimeLimit)
            .map(|minutes| format!(" --max-minutes {}", 2.0 * minutes));
        lines.push(format!(
            "Go on with:     gpt2 train --run {run} --resume{}",
            longer.unwrap_or_default()
        ));
    }
    let prompt = if plan.intervals.sample_prompt.is_empty() {
        "The"
    } else {
        &plan.intervals.sample_prompt
    };
    lines.push(format!(
        "Sample from it: gpt2 sample --run {run} --prompt {}\n",
        quoted(Path::new(prompt))
    ));
    print_text(lines.join("\n").as_bytes())
}

/// Says so if the run ended with a model that is worse than an untrained one.
pub(crate) fn warn_of_divergence(finished: &Finished) {
    let Finished {
        outcome,
        plan,
        directory,
        ..
    } = finished;
    if let Some(warning) = divergence(&outcome.steps, plan.model.vocab_size) {
        warn(&warning.to_string());
        let flags = slower(plan.schedule.lr, plan.schedule.min_lr);
        advise(&new_run(directory.root(), None, &flags));
    }
}
