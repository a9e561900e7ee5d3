//! `gpt2 report`: tables, figures and pages from the files of runs and studies.

use crate::cli::{ReportArgs, ReportCommand};
use crate::diagnostics::{note, warn};
use crate::error::CliError;
use crate::printer::{print, quoted, table};
use crate::signals;
use gpt2_bench::BenchError;
use gpt2_records::{Status, TrainingMetrics};
use gpt2_report::scaling::{compare, compare_allowing_mismatch};
use gpt2_report::tables::{Cell, Heading};
use gpt2_report::verify::verify;
use gpt2_report::{ReportError, RunRecords, read_study, run_report, watch, write_study};
use gpt2_train::stop::StopRequest;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Makes the report, or does what the subcommand says.
pub(crate) fn run(args: &ReportArgs) -> Result<(), CliError> {
    match &args.command {
        Some(ReportCommand::Scaling { runs, allow_mismatch }) => scaling(runs, *allow_mismatch),
        Some(ReportCommand::Verify { dir }) => check(dir),
        None if args.watch => follow(args),
        None => report(args),
    }
}

fn report(args: &ReportArgs) -> Result<(), CliError> {
    let [first, others @ ..] = args.dirs.as_slice() else {
        unreachable!("at least one directory")
    };
    if others.is_empty() && first.join("results.json").exists() {
        let study = read_study(first).map_err(BenchError::from)?;
        let out = args.out.as_ref().unwrap_or(first);
        write_study(out, &study).map_err(BenchError::from)?;
        return wrote(out);
    }
    let runs: Result<Vec<_>, ReportError> = args.dirs.iter().map(|dir| RunRecords::read(dir)).collect();
    let out = args.out.clone().unwrap_or_else(|| first.join("report"));
    run_report(&out, &runs.map_err(BenchError::from)?).map_err(BenchError::from)?;
    wrote(&out)
}

fn wrote(out: &Path) -> Result<(), CliError> {
    print(format!(
        "Tables, figures and page: {}\n",
        quoted(&out.join("index.html"))
    ))
}

fn scaling(dirs: &[PathBuf], allow_mismatch: bool) -> Result<(), CliError> {
    let mut metrics = Vec::new();
    for dir in dirs {
        if dir.join("results.json").exists() {
            metrics.extend(runs_of_study(dir)?);
        } else {
            metrics.push(read_metrics(dir)?);
        }
    }
    let scaling = if allow_mismatch {
        compare_allowing_mismatch(&metrics)?
    } else {
        compare(&metrics)?
    };
    for mismatch in &scaling.mismatches {
        warn(&mismatch.to_string());
    }
    let of_runs = scaling.table();
    let rows = of_runs
        .rows
        .iter()
        .map(|row| row.iter().map(Cell::text).collect::<Vec<_>>())
        .collect();
    print(table(of_runs.columns.iter().map(Heading::full), rows, 0))
}

/// Of the rows that our trainer has measured, named after the study too.
fn runs_of_study(dir: &Path) -> Result<Vec<TrainingMetrics>, CliError> {
    let study = read_study(dir).map_err(BenchError::from)?;
    let ours = study
        .rows
        .iter()
        .filter(|row| row.peer.is_none() && row.status == Status::Done);
    ours.map(|row| {
        let metrics = read_metrics(&dir.join("runs").join(&row.name))?;
        Ok(TrainingMetrics {
            run_id: dir.join(&row.name).display().to_string(),
            ..metrics
        })
    })
    .collect()
}

fn read_metrics(run: &Path) -> Result<TrainingMetrics, CliError> {
    let records = RunRecords::read(run).map_err(BenchError::from)?;
    records
        .metrics
        .ok_or_else(|| CliError::NotFinished { run: run.to_owned() })
}

fn check(dir: &Path) -> Result<(), CliError> {
    let findings = verify(dir);
    for finding in &findings {
        print(format!("{finding}\n"))?;
    }
    if findings.is_empty() {
        return print(format!("{}: all values are as they should be\n", quoted(dir)));
    }
    Err(CliError::NotVerified {
        dir: dir.to_owned(),
        count: findings.len(),
    })
}

fn follow(args: &ReportArgs) -> Result<(), CliError> {
    let [run] = args.dirs.as_slice() else {
        return Err(CliError::Usage {
            message: format!("--watch follows one run, and there are {}", args.dirs.len()),
            hint: "name one".to_owned(),
        });
    };
    if !run.is_dir() {
        return Err(CliError::Usage {
            message: format!("{} is no directory: expected that of a run", quoted(run)),
            hint: "name one that `gpt2 train --run` made".to_owned(),
        });
    }
    let stop = StopRequest::default();
    let _stopped_by_signals = signals::stop_on_signals(&stop);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while stop.requested_by().is_none() && !over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(50));
            }
            over.store(true, Ordering::Relaxed);
        });
        let served = watch::serve(run, args.port, &over, |address| {
            note(&format!("http://{address} follows {}; Ctrl-C ends it", quoted(run)));
        });
        over.store(true, Ordering::Relaxed);
        served.map_err(|source| CliError::Watch { source })
    })
}
