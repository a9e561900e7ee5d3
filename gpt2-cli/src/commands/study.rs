//! `gpt2 bench fixed-work`, `threads`, `scaling` and `sweep`: from flags to a study, and what is said of it.

use crate::cli::{FixedWorkArgs, ScalingArgs, StudyArgs, SweepArgs, ThreadsArgs};
use crate::commands::ranks;
use crate::diagnostics::{note, on_out_of_memory, warn};
use crate::error::CliError;
use crate::printer::{print, quoted, table};
use crate::{hub, signals, version};
use gpt2_backend::HostFacts;
use gpt2_base::Invalid;
use gpt2_base::units::clock;
use gpt2_bench::BenchError;
use gpt2_bench::fixed_work::{self, FixedWork};
use gpt2_bench::scaling::{self, ScalingStudy};
use gpt2_bench::study::{self, Definition, OUT_OF_MEMORY_STATUS, Progress, Runner, Task, default_dir};
use gpt2_bench::sweep::Sweep;
use gpt2_bench::threads::{self, ThreadsStudy};
use gpt2_bench::work::{read_work, run_work};
use gpt2_ranks::Launcher;
use gpt2_records::{Host, Made, Row, Status, Study};
use gpt2_report::write_study;
use gpt2_train::config::RunConfig;
use gpt2_train::stop::StopRequest;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// `gpt2 bench fixed-work`.
pub(crate) fn fixed_work(args: &FixedWorkArgs) -> Result<(), CliError> {
    let work = FixedWork {
        config: RunConfig {
            model: Some(args.model.clone()),
            data: args.data.clone(),
            backend: Some(args.machine.backend),
            device: args.devices.is_none().then_some(args.machine.device),
            devices: args.devices.clone(),
            precision: Some(args.machine.precision),
            threads: args.threads,
            seed: Some(args.seed),
            batch: Some(args.batch.into()),
            seq: Some(args.seq),
            ..RunConfig::default()
        },
        global_batch: args.global_batch,
        steps: args.steps,
        scale: args.scale,
        repeats: args.repeats,
        peers: args.study.peers.clone(),
    };
    let definition = work.definition()?;
    let dir = out(&args.study, "fixed-work");
    let limit = limit(args.study.time_limit)?;
    let Some(mut study) = measure(&dir, &definition, args.study.dry_run, limit, args.machine.device)? else {
        return Ok(());
    };
    fixed_work::conclude(&mut study);
    finish(&dir, &study)?;
    fixed_work::publish(&dir, &study)?;
    Ok(())
}

/// `gpt2 bench threads`.
pub(crate) fn threads(args: &ThreadsArgs) -> Result<(), CliError> {
    let threads = if args.threads.is_empty() {
        let cores = HostFacts::detect().cores;
        let mut threads: Vec<usize> = std::iter::successors(Some(1), |n| Some(2 * n))
            .take_while(|&n| n < cores)
            .collect();
        threads.push(cores);
        threads
    } else {
        args.threads.clone()
    };
    let study = ThreadsStudy {
        config: RunConfig {
            model: Some(args.model.clone()),
            data: args.data.clone(),
            init: args.init.as_deref().map(hub::weights).transpose()?,
            seed: Some(args.seed),
            batch: Some(args.batch.into()),
            seq: Some(args.seq),
            steps: Some(args.steps),
            eval_every: Some(10),
            eval_batches: Some(5),
            sample_every: Some(20),
            sample_tokens: Some(32),
            checkpoint_every: Some(0),
            ..RunConfig::default()
        },
        threads,
        peers: args.study.peers.clone(),
    };
    let definition = study.definition()?;
    let dir = out(&args.study, "threads");
    let limit = limit(args.study.time_limit)?;
    let Some(mut study) = measure(&dir, &definition, args.study.dry_run, limit, 0)? else {
        return Ok(());
    };
    let disagreement = threads::conclude(&mut study);
    finish(&dir, &study)?;
    match disagreement {
        Some(said) => Err(CliError::Disagreement { said }),
        None => Ok(()),
    }
}

/// `gpt2 bench scaling`.
pub(crate) fn scaling(args: &ScalingArgs) -> Result<(), CliError> {
    let study = ScalingStudy {
        config: RunConfig {
            model: Some(args.model.clone()),
            dropout: Some(args.dropout),
            data: args.data.clone(),
            backend: Some(args.backend),
            precision: Some(args.precision),
            threads: args.threads,
            shard_optimizer: Some(args.shard_optimizer),
            seed: Some(args.seed),
            seq: Some(args.seq),
            steps: Some(args.steps),
            ..RunConfig::default()
        },
        mode: args.mode,
        ranks: args.ranks.clone(),
        batches: args.batch.clone(),
        micro_batch: args.micro_batch,
        repeats: args.repeats,
        peers: args.study.peers.clone(),
    };
    let definition = study.definition()?;
    let dir = out(&args.study, "scaling");
    let limit = limit(args.study.time_limit)?;
    let Some(mut study) = measure(&dir, &definition, args.study.dry_run, limit, 0)? else {
        return Ok(());
    };
    scaling::conclude(&mut study);
    finish(&dir, &study)
}

/// `gpt2 bench sweep`.
pub(crate) fn sweep(args: &SweepArgs) -> Result<(), CliError> {
    let sweep = Sweep::read(&args.file)?;
    let definition = sweep.definition()?;
    let dir = args.out.clone().unwrap_or_else(|| {
        let name = args.file.file_stem().unwrap_or_default().to_string_lossy();
        default_dir(&name)
    });
    let Some(mut study) = measure(&dir, &definition, args.dry_run, sweep.limit(), 0)? else {
        return Ok(());
    };
    sweep.conclude(&mut study);
    finish(&dir, &study)
}

/// The hidden command behind each row. Of several ranks it starts one process each, of this command again.
pub(crate) fn work(dir: &Path) -> Result<(), CliError> {
    on_out_of_memory(OUT_OF_MEMORY_STATUS);
    let devices = read_work(dir)?.config.devices.filter(|devices| devices.ranks() > 1);
    let group = match &devices {
        None => None,
        Some(devices) => match ranks::detect()? {
            Some(info) if info.launcher == Launcher::Gpt2 => Some(ranks::join(info, ranks::PEER_TIMEOUT)?),
            _ => return ranks::launch(devices),
        },
    };
    let stop = StopRequest::default();
    let _stopped_by_signals = signals::stop_on_signals(&stop);
    Ok(run_work(dir, group, &version::program(), version::provenance(), stop)?)
}

fn out(args: &StudyArgs, name: &str) -> PathBuf {
    args.out.clone().unwrap_or_else(|| default_dir(name))
}

pub(super) fn limit(seconds: f64) -> Result<Duration, CliError> {
    if seconds.is_finite() && seconds > 0.0 {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(BenchError::from(Invalid::new("time-limit", &seconds, "a number of seconds above 0")).into())
}

/// Measures, telling of each row. None for a dry run.
pub(super) fn measure(
    dir: &Path,
    definition: &Definition,
    dry_run: bool,
    limit: Duration,
    gpu: usize,
) -> Result<Option<Study>, CliError> {
    if dry_run {
        print_definition(definition)?;
        return Ok(None);
    }
    let stop = StopRequest::default();
    let _stopped_by_signals = signals::stop_on_signals(&stop);
    let program = std::env::current_exe().map_err(|source| CliError::OwnProgram { source })?;
    let runner = Runner {
        command: vec![program.into(), "bench".into(), "work".into()],
        limit,
        stop,
        gpu,
    };
    note(&format!("study directory {}", dir.display()));
    let study = study::run(dir, definition, made(), &runner, &mut |progress| match progress {
        Progress::Begins {
            number,
            of,
            name,
            eta_sec,
        } => {
            let eta = eta_sec.map_or_else(String::new, |seconds| format!(", {} left", clock(seconds)));
            note(&format!("[{number}/{of}] {name}{eta}"));
        }
        Progress::Ended { row, before } => {
            let before = if before { " (measured before)" } else { "" };
            note(&format!("    {}{before}", told(row)));
        }
        Progress::Damaged(error) => warn(&format!("{error}; it is measured again")),
    })?;
    Ok(Some(study))
}

/// "done: 1,234 tokens/s, 12.3 ms, 4,713 MiB".
fn told(row: &Row) -> String {
    match (&row.figures, row.status) {
        (Some(figures), Status::Done) => format!(
            "{:.0} tokens/s, {:.1} ms a step, {:.0} MiB",
            figures.tokens_per_sec,
            figures.step_ms.p50,
            figures.peak_memory_bytes as f64 / f64::from(1 << 20)
        ),
        (_, status) => {
            let reason = row
                .reason
                .as_deref()
                .map_or_else(String::new, |reason| format!(": {reason}"));
            format!("{}{reason}", status.words())
        }
    }
}

fn print_definition(definition: &Definition) -> Result<(), CliError> {
    for (key, value) in &definition.settings {
        print(format!("{key} = {value}\n"))?;
    }
    let rows = definition
        .entries
        .iter()
        .map(|entry| {
            let what = match &entry.task {
                Task::Ours(_) => "gpt2".to_owned(),
                Task::Peer { command, .. } => command.clone(),
                Task::Skip(reason) => format!("skipped: {reason}"),
            };
            [entry.name.clone(), what]
        })
        .collect();
    print(format!("\n{}", table(["configuration", "what is run"], rows, 2)))
}

/// Writes tables, figures and page, and prints the conclusions.
pub(super) fn finish(dir: &Path, study: &Study) -> Result<(), CliError> {
    write_study(dir, study).map_err(BenchError::from)?;
    for conclusion in &study.conclusions {
        let row = conclusion.row.as_deref().unwrap_or("none");
        print(format!("{}: {row} ({})\n", conclusion.goal, conclusion.because))?;
    }
    for said in &study.notes {
        note(said);
    }
    print(format!(
        "Tables, figures and page: {}\n",
        quoted(&dir.join("index.html"))
    ))
}

/// Who makes the study, where and when.
fn made() -> Made {
    let host = HostFacts::detect();
    let provenance = version::provenance();
    Made {
        timestamp_utc: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        command_line: crate::command_line::Typed::here().line(),
        gpt2_version: env!("CARGO_PKG_VERSION").to_owned(),
        git_commit: provenance.git_commit,
        burn_version: provenance.burn_version,
        host: Host {
            hostname: host.hostname,
            os: host.os,
            cpu: host.cpu,
            cores: host.cores,
            memory_bytes: host.memory_bytes,
        },
        devices: Vec::new(),
    }
}
