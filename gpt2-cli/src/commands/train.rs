//! `gpt2 train`: from flags to a launch, and what is said before and after it.

use crate::cli::TrainArgs;
use crate::command_line::new_run;
use crate::commands::data::shards_of_text;
use crate::commands::{ranks, summary};
use crate::diagnostics::{advise, note, warn};
use crate::error::CliError;
use crate::printer::print;
use crate::{hub, signals, version};
use gpt2_ranks::Launcher;
use gpt2_train::Launch;
use gpt2_train::announcement::KernelAnnouncement;
use gpt2_train::config::{Devices, RunConfig};
use gpt2_train::launch::{Keep, Surroundings, View};
use gpt2_train::observer::Lines;
use gpt2_train::plan::{ResumeRemark, RunPlan};
use gpt2_train::run_dir::{RunDir, RunPaths};
use gpt2_train::stop::StopRequest;
use gpt2_train::terminal::{Terminal, takes_escape_codes};
use std::io::IsTerminal;
use std::path::Path;

/// Trains, or with `--dry-run` prints the plan.
pub(crate) fn run(args: &TrainArgs) -> Result<(), CliError> {
    let mut config = match &args.config_file {
        Some(path) => RunConfig::from_toml_file(path)?.overlay(args.config.clone()),
        None => args.config.clone(),
    };
    let resume = args.resume || (args.auto_resume && holds_checkpoint(&config));
    if let Some(init) = config.init.take_if(|init| hub::is_address(init)) {
        // Only the first start reads the weights. The plan gets their path in the cache, which names the commit.
        config.init = if resume { None } else { Some(hub::weights(&init)?) };
    }
    let rank = ranks::detect()?;
    let is_first = rank.as_ref().is_none_or(|info| info.rank == 0);
    // The process that started this one has told of them.
    let is_told = rank.as_ref().is_some_and(|info| info.launcher == Launcher::Gpt2);
    if let Some(data) = &mut config.data
        && let Some(shards) = shards_of_text(data, args.quiet || !is_first || is_told)?
    {
        *data = shards;
    }
    if args.auto_resume
        && !resume
        && is_first
        && let Some(run) = &config.run
    {
        let plan = RunPaths::new(run).plan();
        if plan.exists() {
            // It is the same run that starts again, not another one in its place.
            RunConfig::from_plan(&plan)?.check_resume(&config, &plan)?;
        }
        if !args.dry_run && RunDir::forget_unsaved(run)? {
            warn(&format!(
                "{} has no checkpoint to go on from: the run starts again",
                run.display()
            ));
        }
    }
    let launch = match rank {
        Some(info) => {
            if let (Some(devices), false) = (&config.devices, info.launcher == Launcher::Gpt2) {
                return Err(CliError::Usage {
                    message: format!(
                        "`devices` is {devices}, but {} has started the ranks already ({} of them)",
                        info.launcher.name(),
                        info.world_size
                    ),
                    hint: "leave it out: there are as many ranks as were started".to_owned(),
                });
            }
            let group = ranks::join(info, args.peer_timeout)?;
            Launch::in_group(config, resume, group)?
        }
        None => match several_devices(&config, resume) {
            Some(devices) if !args.dry_run => return ranks::launch(&devices),
            _ if resume => Launch::resume(config)?,
            _ => Launch::new(&config)?,
        },
    };
    train(args, launch)
}

/// The devices that are to train together, if they are several.
fn several_devices(config: &RunConfig, resume: bool) -> Option<Devices> {
    let devices = match (&config.devices, config.device) {
        (Some(devices), None) => Some(devices.clone()),
        (None, None) if resume => Launch::saved_devices(config),
        // Both are refused with the plan.
        _ => None,
    };
    devices.filter(|devices| devices.ranks() > 1)
}

fn holds_checkpoint(config: &RunConfig) -> bool {
    let run = config.run.clone().map(RunPaths::new);
    run.is_some_and(|run| run.plan().exists() && run.newest_checkpoint().is_some())
}

fn train(args: &TrainArgs, mut launch: Launch) -> Result<(), CliError> {
    let is_first = launch.rank() == 0;
    for warning in launch.plan().warnings(launch.data()) {
        warn(&warning.to_string());
    }
    if args.dry_run {
        launch.check_directory()?;
        if is_first {
            print(launch.plan().to_toml(launch.data())?.as_bytes())?;
        }
        return Ok(launch.leave()?);
    }
    launch.claim()?;
    ranks::remember(RunPaths::new(&launch.plan().run));
    for error in launch.damaged_checkpoints() {
        warn(&format!("{error}; going on from the one before"));
    }
    if let Some((remark, checkpoint)) = launch.resume_remark() {
        tell(remark, launch.plan(), checkpoint);
    }
    if !args.quiet {
        introduce(&launch);
    }
    let view = if args.quiet || !is_first {
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
    let announcement = (!args.quiet && is_first).then(|| {
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
    if !args.quiet && is_first {
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
    if let Some(started) = launch.group() {
        note(&format!(
            "{} ranks, started by {}: {} sequences a step",
            started.world_size,
            match started.launcher {
                Launcher::Gpt2 => "gpt2 train --devices",
                other => other.name(),
            },
            launch.plan().global_batch()
        ));
    }
    if let Some(how) = launch.plan().without_kernels() {
        note(&how);
    }
    note(&format!("run directory {}", launch.plan().run.display()));
}

/// Says what going on with a run comes to where that may not be what was meant, and how to train on with a new schedule.
fn tell(remark: &ResumeRemark, plan: &RunPlan, checkpoint: &Path) {
    let per_step = plan.tokens_per_step();
    let (steps, tokens) = match remark {
        ResumeRemark::Finished { last, .. } => {
            note(&remark.to_string());
            let tokens = plan.limits.max_tokens;
            (tokens.map_or(*last, |tokens| tokens.div_ceil(per_step)), tokens)
        }
        ResumeRemark::PastDecay { first, last, .. } => {
            warn(&remark.to_string());
            let steps = last + 1 - first;
            (steps, plan.limits.max_tokens.map(|_| steps * per_step))
        }
    };
    // The new run starts from the plan of this one, whose limits and schedule are shorter or longer.
    let saved = RunConfig::from_toml_file(&RunPaths::new(&plan.run).plan()).unwrap_or_default();
    let mut flags = Vec::new();
    if tokens.is_none() || saved.steps.is_some_and(|saved| saved < steps) {
        flags.push(("--steps", steps.to_string()));
    }
    flags.extend(tokens.map(|tokens| ("--max-tokens", tokens.to_string())));
    if saved.decay_steps.is_some_and(|saved| saved != steps) {
        flags.push(("--decay-steps", steps.to_string()));
    }
    if saved.warmup.is_some_and(|saved| saved > steps) {
        flags.push(("--warmup", "0".to_owned()));
    }
    advise(&format!(
        "a new run from here has a schedule of its own: {}",
        new_run(&plan.run, Some(checkpoint), &flags)
    ));
}
