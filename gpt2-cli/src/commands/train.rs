//! `gpt2 train`: from flags to a launch, and what is said before and after it.

use crate::cli::TrainArgs;
use crate::command_line::new_run;
use crate::commands::summary;
use crate::diagnostics::{advise, note, warn};
use crate::error::CliError;
use crate::printer::print;
use crate::{signals, version};
use gpt2_train::Launch;
use gpt2_train::announcement::KernelAnnouncement;
use gpt2_train::config::RunConfig;
use gpt2_train::launch::{Keep, Surroundings, View};
use gpt2_train::observer::Lines;
use gpt2_train::plan::{ResumeRemark, RunPlan};
use gpt2_train::stop::StopRequest;
use gpt2_train::terminal::{Terminal, takes_escape_codes};
use std::io::IsTerminal;
use std::path::Path;

/// Trains, or with `--dry-run` prints the plan.
pub(crate) fn run(args: &TrainArgs) -> Result<(), CliError> {
    let config = match &args.config_file {
        Some(path) => RunConfig::from_toml_file(path)?.overlay(args.config.clone()),
        None => args.config.clone(),
    };
    let mut launch = if args.resume {
        Launch::resume(config)?
    } else {
        Launch::new(&config)?
    };
    for warning in launch.plan().warnings(launch.data()) {
        warn(&warning.to_string());
    }
    if args.dry_run {
        return print(launch.plan().to_toml(launch.data())?.as_bytes());
    }
    launch.claim()?;
    for error in launch.damaged_checkpoints() {
        warn(&format!("{error}; going on from the one before"));
    }
    if let Some((remark, checkpoint)) = launch.resume_remark() {
        tell(remark, launch.plan(), checkpoint);
    }
    if !args.quiet {
        introduce(&launch);
    }
    let view = if args.quiet {
        View::silent()
    } else if args.plain || !Terminal::detect().takes_dashboard() {
        View::Observer(Box::new(Lines::new(
            std::io::stdout(),
            launch.plan().intervals.log_every,
        )))
    } else {
        View::Dashboard(Box::new(std::io::stdout()))
    };
    let stop = StopRequest::default();
    let stopped_by_signals = signals::stop_on_signals(&stop);
    let announcement = (!args.quiet).then(|| {
        let stderr = std::io::stderr();
        let is_terminal = stderr.is_terminal() && takes_escape_codes(std::env::var_os("TERM").as_deref());
        KernelAnnouncement::start(launch.chosen().probe(), stderr, is_terminal)
    });
    let finished = launch.run(Surroundings {
        view,
        stop,
        announcement,
        keep: Keep::Everything(version::provenance()),
        tensorboard: args.tensorboard,
    })?;
    drop(stopped_by_signals);
    if !args.quiet {
        summary::print(&finished)?;
    }
    summary::warn_of_divergence(&finished);
    Ok(())
}

/// Says what the run will do that its figures do not tell.
fn introduce(launch: &Launch) {
    let chosen = launch.chosen();
    note(&format!(
        "backend {} on {}: {}",
        chosen.backend, chosen.device.name, chosen.reason
    ));
    if let Some(how) = launch.plan().without_kernels() {
        note(&how);
    }
    note(&format!("run directory {}", launch.plan().run.display()));
}

/// Says what going on with a run comes to where that may not be what was meant, and how to train on with a new schedule.
fn tell(remark: &ResumeRemark, plan: &RunPlan, checkpoint: &Path) {
    let steps = match remark {
        ResumeRemark::Finished { step, .. } => {
            note(&remark.to_string());
            *step
        }
        ResumeRemark::PastDecay { first, last, .. } => {
            warn(&remark.to_string());
            last + 1 - first
        }
    };
    let limit = if plan.limits.max_tokens.is_some() {
        ("--max-tokens", (steps * plan.tokens_per_step()).to_string())
    } else {
        ("--steps", steps.to_string())
    };
    advise(&format!(
        "a new run from here has a schedule of its own: {}",
        new_run(&plan.run, Some(checkpoint), &[limit])
    ));
}
