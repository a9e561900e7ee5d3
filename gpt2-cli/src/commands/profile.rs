//! `gpt2 profile`, and `gpt2 bench operations`, which shows one table of it.

use super::bench::settings;
use super::study::{finish, limit, measure};
use crate::cli::{BenchOperationsArgs, BenchWork, ProfileArgs, TrialsArgs};
use crate::error::CliError;
use crate::printer::{print, quoted, table};
use gpt2_bench::profile::{ProfileStudy, Profiling, trace_path};
use gpt2_bench::study::default_dir;
use gpt2_records::{KindTime, OperationTime, Profile, Row, Status, Study};
use gpt2_train::TrainError;
use std::path::Path;

/// `gpt2 profile`.
pub(crate) fn run(args: &ProfileArgs) -> Result<(), CliError> {
    let profiling = Profiling {
        trials: args.trials.trials,
        trace: args.trace,
        recording: args.counters.clone(),
    };
    let dir = args.out.clone().unwrap_or_else(|| default_dir("profile"));
    let Some((study, profile)) = profiled(&args.work, &args.trials, profiling, &dir, args.dry_run)? else {
        return Ok(());
    };
    print(kinds(&profile))?;
    print(format!("\n{}", operations(&profile)))?;
    print(format!("\n{}\n", steps(&profile)))?;
    for said in &profile.advice {
        print(format!("- {said}\n"))?;
    }
    print("\n")?;
    if args.trace {
        print(format!(
            "Trace for https://ui.perfetto.dev: {}\n",
            quoted(&trace_path(&dir))
        ))?;
    }
    finish(&dir, &study)
}

/// `gpt2 bench operations`.
pub(crate) fn of_operations(args: &BenchOperationsArgs) -> Result<(), CliError> {
    let profiling = Profiling {
        trials: args.trials.trials,
        trace: false,
        recording: None,
    };
    let scratch = tempfile::tempdir().map_err(|source| TrainError::io("create", std::env::temp_dir(), source))?;
    let dir = scratch.path().join("profile");
    if let Some((_, profile)) = profiled(&args.work, &args.trials, profiling, &dir, false)? {
        print(operations(&profile))?;
        print(format!("\n{}\n", steps(&profile)))?;
    }
    Ok(())
}

/// The study and its profile. None for a dry run.
fn profiled(
    work: &BenchWork,
    trials: &TrialsArgs,
    profiling: Profiling,
    dir: &Path,
    dry_run: bool,
) -> Result<Option<(Study, Profile)>, CliError> {
    let definition = ProfileStudy {
        config: settings(work),
        profiling,
    }
    .definition();
    let limit = limit(trials.time_limit)?;
    let Some(mut study) = measure(dir, &definition, dry_run, limit, work.machine.device)? else {
        return Ok(None);
    };
    study.derive();
    match (study.profile.clone(), study.rows.first()) {
        (Some(profile), _) => Ok(Some((study, profile))),
        (None, row) => Err(CliError::NotProfiled { reason: reason(row) }),
    }
}

/// Why there is no profile.
fn reason(row: Option<&Row>) -> String {
    let status = row.map_or(Status::Failed, |row| row.status);
    let reason = row.and_then(|row| row.reason.clone()).unwrap_or_default();
    match status {
        Status::Skipped => reason,
        status => format!("{}: {reason}", status.words()),
    }
}

fn kinds(profile: &Profile) -> String {
    let row = |kind: &KindTime| {
        [
            kind.kind.clone(),
            format!("{:.3}", kind.forward_ms),
            format!("{:.3}", kind.backward_ms),
            format!("± {:.3}", kind.std_ms),
            format!("{:.1} %", 100.0 * kind.share),
        ]
    };
    let sum = |value: fn(&KindTime) -> f64| profile.kinds.iter().map(value).sum::<f64>();
    let total = KindTime {
        kind: "all".to_owned(),
        forward_ms: sum(|kind| kind.forward_ms),
        backward_ms: sum(|kind| kind.backward_ms),
        share: sum(|kind| kind.share),
        std_ms: profile.profiled_step_ms.std,
        trials_ms: Vec::new(),
    };
    let rows = profile.kinds.iter().chain([&total]).map(row).collect();
    table(
        ["kind", "forward, ms", "backward, ms", "both, std", "of the step"],
        rows,
        1,
    )
}

fn operations(profile: &Profile) -> String {
    let row = |operation: &OperationTime| {
        let seconds = operation.ms / 1e3;
        let rate = |amount: f64| {
            if amount > 0.0 && seconds > 0.0 {
                format!("{:.1}", amount / seconds / 1e9)
            } else {
                String::new()
            }
        };
        let has_work = operation.of_ceiling > 0.0;
        let of_work = |text: String| if has_work { text } else { String::new() };
        [
            operation.name.clone(),
            operation.pass.clone(),
            format!("{:.0}", operation.count),
            format!("{:.3}", operation.ms),
            format!("± {:.3}", operation.std_ms),
            format!("{:.1} %", 100.0 * operation.ms / profile.unprofiled_step_ms.p50),
            rate(operation.flop),
            rate(operation.bytes),
            of_work(operation.bound_by.clone()),
            of_work(format!("{:.0} %", 100.0 * operation.of_ceiling)),
        ]
    };
    let mut sorted: Vec<&OperationTime> = profile.operations.iter().collect();
    sorted.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    let header = [
        "operation",
        "pass",
        "count",
        "ms",
        "std",
        "of the step",
        "GFLOP/s",
        "GB/s",
        "bound by",
        "of it",
    ];
    table(header, sorted.into_iter().map(row).collect(), 2)
}

/// The steps, and what the device reaches at most.
fn steps(profile: &Profile) -> String {
    let (plain, profiled) = (&profile.unprofiled_step_ms, &profile.profiled_step_ms);
    format!(
        "step {:.3} ms, profiled {:.3} ms (medians of {} and {}), MFU {:.1} % of the product below\n\
         at most {:.1} GFLOP/s (product of {side} by {side}) and {:.1} GB/s (read and written)",
        plain.p50,
        profiled.p50,
        plain.count,
        profiled.count,
        100.0 * profile.mfu,
        profile.ceilings.product_flops / 1e9,
        profile.ceilings.bytes_per_sec / 1e9,
        side = profile.ceilings.product_side,
    )
}
