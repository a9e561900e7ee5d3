//! `gpt2 train`: from flags to a launch, and what is said before and after it.

use crate::cli::TrainArgs;
use crate::commands::summary;
use crate::diagnostics::{note, warn};
use crate::error::CliError;
use crate::printer::print;
use crate::{signals, version};
use gpt2_train::Launch;
use gpt2_train::announcement::KernelAnnouncement;
use gpt2_train::config::RunConfig;
use gpt2_train::launch::{Surroundings, View};
use gpt2_train::observer::Lines;
use gpt2_train::report::Provenance;
use gpt2_train::stop::StopRequest;
use std::io::IsTerminal;

/// Trains, or with `--dry-run` prints the plan.
pub(crate) fn run(args: &TrainArgs) -> Result<(), CliError> {
    let config = match &args.config_file {
        Some(path) => RunConfig::from_toml_file(path)?.overlay(args.config.clone()),
        None => args.config.clone(),
    };
    let launch = if args.resume {
        Launch::resume(config)?
    } else {
        Launch::new(config)?
    };
    if args.dry_run {
        return print(launch.plan().to_toml(launch.data())?.as_bytes());
    }
    if !args.quiet {
        introduce(&launch);
    }
    let view = if args.quiet {
        View::silent()
    } else if args.plain || !std::io::stdout().is_terminal() {
        View::Observer(Box::new(Lines::new(
            std::io::stdout(),
            launch.plan().intervals.log_every,
        )))
    } else {
        View::Dashboard
    };
    let stop = StopRequest::default();
    signals::stop_on_signals(&stop)?;
    let announcement = (!args.quiet).then(|| {
        let stderr = std::io::stderr();
        let is_terminal = stderr.is_terminal();
        KernelAnnouncement::start(launch.chosen().probe(), stderr, is_terminal)
    });
    let finished = launch.run(Surroundings {
        view,
        stop,
        announcement,
        provenance: Some(Provenance {
            command_line: std::env::args().collect(),
            git_commit: version::commit().map(str::to_owned),
            burn_version: version::BURN.to_owned(),
        }),
    })?;
    if !args.quiet {
        summary::print(&finished)?;
    }
    Ok(())
}

/// Says what the run will do that its figures do not tell.
fn introduce(launch: &Launch) {
    for error in launch.damaged_checkpoints() {
        warn(&format!("{error}; going on from the one before"));
    }
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
