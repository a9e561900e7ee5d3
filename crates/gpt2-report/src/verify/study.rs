//! The files of a study: `results.json` against the runs under it, what follows from its figures, and `results.csv`.

use super::run::{self, Run, is_plain_name};
use super::{Check, Finding, LAUNCHER_METADATA, METRICS, Named, PLAN, RESULTS, RUN_COMPLETE, TRAINING_METRICS};
use crate::error::ReportError;
use crate::study_files::read_study;
use crate::tables::results_csv;
use gpt2_base::stats::Summary;
use gpt2_records::{
    Derived, Figures, Profile, Row, Status, StepRecord, Study, breakdown, settled, steady_steps, step_times,
};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What another program has printed, in the directory of its row.
const STDOUT: &str = "stdout.txt";

const MIB: f64 = 1_048_576.0;

/// Checks the study in `dir`.
pub(super) fn check(dir: &Path, findings: &mut Vec<Finding>) {
    let file = dir.join(RESULTS);
    let study = match read_study(dir) {
        Ok(study) => study,
        Err(error) => return unreadable(&mut Check::new(file, findings), &error),
    };
    let mut results = Check::new(file.clone(), findings);
    check_names(&mut results, &study);
    for (index, row) in study.rows.iter().enumerate() {
        check_row(&mut Check::new(file.clone(), findings), &study, index, row);
        if row.status == Status::Done && is_plain_name(&row.name) {
            let run_dir = dir.join("runs").join(&row.name);
            match row.peer {
                None => check_run(&run_dir, &file, index, row, findings),
                Some(_) => check_peer(&run_dir, &file, index, row, findings),
            }
        }
    }
    if let Some(profile) = &study.profile {
        check_profile(&mut Check::new(file, findings), profile);
    }
    check_csv(dir, &study, findings);
    check_copies(dir, &study, findings);
}

fn unreadable(check: &mut Check<'_>, error: &ReportError) {
    match error {
        ReportError::OtherVersion { found, expected, .. } => check.report("version", found, expected),
        other => check.report("", format!("not readable ({other})"), "the results of a study"),
    }
}

/// Names that must be there once.
fn check_names(check: &mut Check<'_>, study: &Study) {
    let mut names = BTreeSet::new();
    for (index, row) in study.rows.iter().enumerate() {
        let at = |field: &str| format!("rows[{index}].{field}");
        if !names.insert(&row.name) {
            check.report(at("name"), format!("\"{}\" again", row.name), "a name for each row");
        }
        if !is_plain_name(&row.name) {
            check.report(
                at("name"),
                format!("\"{}\"", row.name),
                "the name of a directory in runs",
            );
        }
        for axis in row.axes.keys().filter(|axis| !study.axes.contains(axis)) {
            check.report(
                at("axes"),
                format!("with \"{axis}\""),
                format!("some of {}", study.axes.join(", ")),
            );
        }
    }
    if let Some(name) = &study.baseline
        && !names.contains(name)
    {
        check.report("baseline", format!("\"{name}\""), "the name of a row");
    }
    for (index, conclusion) in study.conclusions.iter().enumerate() {
        if let Some(name) = &conclusion.row
            && !names.contains(name)
        {
            check.report(
                format!("conclusions[{index}].row"),
                format!("\"{name}\""),
                "the name of a row",
            );
        }
    }
}

/// What a row says of itself, and what follows from its figures.
fn check_row(check: &mut Check<'_>, study: &Study, index: usize, row: &Row) {
    let at = |field: &str| format!("rows[{index}].{field}");
    let Some(figures) = &row.figures else {
        if row.status == Status::Done {
            check.report(at("figures"), "missing", "what was measured, since the row is done");
        } else if row.reason.is_none() {
            check.report(
                at("reason"),
                "missing",
                format!("why the row is {}", row.status.words()),
            );
        }
        return;
    };
    if row.status != Status::Done {
        check.report(
            at("figures"),
            "there",
            format!("nothing, since the row is {}", row.status.words()),
        );
    }
    check_times(check, index, figures);
    let Some(found) = &row.derived else {
        return check.report(at("derived"), "missing", "what follows from the figures");
    };
    if let Some(expected) = study.derived(row) {
        check_derived(check, index, found, &expected);
    }
}

fn check_derived(check: &mut Check<'_>, index: usize, found: &Derived, expected: &Derived) {
    let at = |field: &str| format!("rows[{index}].derived.{field}");
    check.close(at("speedup"), found.speedup, expected.speedup);
    check.close(at("efficiency"), found.efficiency, expected.efficiency);
    check.same(
        at("break_even_steps"),
        found.break_even_steps,
        expected.break_even_steps,
    );
    let numbers: [Named<Derived, f64>; 4] = [
        ("tokens_per_sec_per_mib", |derived| derived.tokens_per_sec_per_mib),
        ("jitter_ms", |derived| derived.jitter_ms),
        ("jitter_relative", |derived| derived.jitter_relative),
        ("p95_over_p50", |derived| derived.p95_over_p50),
    ];
    for (name, value) in numbers {
        check.close(at(name), Some(value(found)), Some(value(expected)));
    }
}

/// Figures that follow from the list of the row's own step times, where it has one.
fn check_times(check: &mut Check<'_>, index: usize, figures: &Figures) {
    let times = &figures.all_step_ms;
    if times.is_empty() {
        return;
    }
    let at = |field: &str| format!("rows[{index}].figures.{field}");
    let Some((warmup, timed)) = times.split_at_checked(figures.warmup_steps) else {
        return check.report(
            at("warmup_steps"),
            figures.warmup_steps,
            format!("at most the {} steps", times.len()),
        );
    };
    let expected = Summary::of(timed).unwrap_or_default();
    check_summary(check, &at("step_ms"), &figures.step_ms, &expected);
    let seconds = |times: &[f64]| times.iter().sum::<f64>() / 1e3;
    let settled = settled(times);
    let rate = figures.tokens_per_step as f64 / figures.step_ms.p50 * 1e3;
    let settled_after = figures.settled_after_steps.map(|steps| steps as u64);
    check.same(
        at("settled_after_steps"),
        settled_after,
        settled.map(|settled| settled.steps as u64),
    );
    for (name, found, expected) in [
        ("tokens_per_sec", Some(figures.tokens_per_sec), Some(rate)),
        ("timed_sec", Some(figures.timed_sec), Some(seconds(timed))),
        ("warmup_sec", Some(figures.warmup_sec), Some(seconds(warmup))),
        ("first_step_sec", Some(figures.first_step_sec), Some(times[0] / 1e3)),
        (
            "settling_cost_sec",
            figures.settling_cost_sec,
            settled.map(|settled| settled.cost_ms / 1e3),
        ),
    ] {
        check.close(at(name), found, expected);
    }
    if let (Some(last), Some(list)) = (figures.loss_last, figures.losses.last()) {
        check.close(at("loss_last"), Some(last), Some(*list));
    }
}

fn check_summary(check: &mut Check<'_>, at: &str, found: &Summary, expected: &Summary) {
    check.equal(format!("{at}.count"), found.count, expected.count);
    let numbers: [Named<Summary, f64>; 6] = [
        ("mean", |spread| spread.mean),
        ("std", |spread| spread.std),
        ("min", |spread| spread.min),
        ("p50", |spread| spread.p50),
        ("p95", |spread| spread.p95),
        ("max", |spread| spread.max),
    ];
    for (name, value) in numbers {
        check.close(format!("{at}.{name}"), Some(value(found)), Some(value(expected)));
    }
}

/// A profile's figures, computed again from its trials.
fn check_profile(check: &mut Check<'_>, profile: &Profile) {
    let at = |field: &str| format!("profile.{field}");
    check.equal(at("trials"), profile.trials, profile.profiled_step_ms.count);
    let step_ms = profile.unprofiled_step_ms.p50;
    check.close(at("mfu"), Some(profile.mfu), Some(profile.computed_mfu()));
    let of_trials = |values: Vec<f64>| Summary::of(&values).unwrap_or_default();
    for (index, kind) in profile.kinds.iter().enumerate() {
        let at = |field: &str| format!("profile.kinds[{index}].{field}");
        check.equal(at("trials_ms"), kind.trials_ms.len(), profile.trials);
        let of = |value: fn(&[f64; 2]) -> f64| of_trials(kind.trials_ms.iter().map(value).collect());
        let share = (kind.forward_ms + kind.backward_ms) / step_ms;
        for (name, found, expected) in [
            ("forward_ms", kind.forward_ms, of(|both| both[0]).p50),
            ("backward_ms", kind.backward_ms, of(|both| both[1]).p50),
            ("std_ms", kind.std_ms, of(|both| both[0] + both[1]).std),
            ("share", kind.share, share),
        ] {
            check.close(at(name), Some(found), Some(expected));
        }
    }
    for (index, operation) in profile.operations.iter().enumerate() {
        let at = |field: &str| format!("profile.operations[{index}].{field}");
        let trials = of_trials(operation.trials_ms.clone());
        check.close(at("ms"), Some(operation.ms), Some(trials.p50));
        check.close(at("std_ms"), Some(operation.std_ms), Some(trials.std));
        let [of_products, of_memory] = profile.ceilings.shares(operation.flop, operation.bytes, operation.ms);
        let nearest = of_products.max(of_memory);
        check.close(at("of_ceiling"), Some(operation.of_ceiling), Some(nearest));
    }
}

/// The run of a row that is done: its own files, and that the row's figures are those of its log.
fn check_run(dir: &Path, results: &Path, index: usize, row: &Row, findings: &mut Vec<Finding>) {
    for name in [PLAN, METRICS, TRAINING_METRICS] {
        let file = dir.join(name);
        if !file.is_file() {
            Check::new(file, findings).report("", "missing", format!("a file of the row \"{}\"", row.name));
        }
    }
    if !dir.join(METRICS).is_file() || !dir.join(TRAINING_METRICS).is_file() {
        return;
    }
    let (Some(run), Some(figures)) = (run::check(dir, findings), &row.figures) else {
        return;
    };
    let mut metrics = Check::new(dir.join(TRAINING_METRICS), findings);
    metrics.equal("run_id", run.metrics.run_id.as_str(), &row.name);
    check_figures(&mut Check::new(results.to_owned(), findings), index, figures, &run);
}

/// A row's figures, computed again from the log of its run.
fn check_figures(check: &mut Check<'_>, index: usize, figures: &Figures, run: &Run) {
    let at = |field: &str| format!("rows[{index}].figures.{field}");
    let trained: Vec<StepRecord> = run.records.iter().filter(|record| record.step > 0).cloned().collect();
    let config = &run.metrics.training_config;
    let tokens_per_step = (config.global_batch_size as u64).saturating_mul(config.seq_len as u64);
    check.equal(at("tokens_per_step"), figures.tokens_per_step, tokens_per_step);
    check.equal(
        at("warmup_steps"),
        figures.warmup_steps,
        trained.len() - steady_steps(&trained).len(),
    );
    let list = |value: fn(&StepRecord) -> Option<f64>| trained.iter().filter_map(value).collect::<Vec<_>>();
    check_list(
        check,
        &at("all_step_ms"),
        &figures.all_step_ms,
        &step_times(&trained, &run.rank_steps),
    );
    run::check_breakdown(
        check,
        &at("breakdown"),
        figures.breakdown.as_ref(),
        breakdown(steady_steps(&trained), &run.rank_steps).as_ref(),
    );
    check_list(check, &at("losses"), &figures.losses, &list(|record| record.loss));
    let val: Vec<(u64, f64)> = trained
        .iter()
        .filter_map(|record| Some((record.step, record.val_loss?)))
        .collect();
    check.equal(at("val_losses"), figures.val_losses.len(), val.len());
    for (position, (found, expected)) in figures.val_losses.iter().zip(&val).enumerate() {
        check.equal(at(&format!("val_losses[{position}][0]")), found.0, expected.0);
        check.close(
            at(&format!("val_losses[{position}][1]")),
            Some(found.1),
            Some(expected.1),
        );
    }
    let largest = |memory: fn(&StepRecord) -> Option<u64>| trained.iter().filter_map(memory).max();
    check.equal(
        at("peak_memory_bytes"),
        figures.peak_memory_bytes,
        largest(StepRecord::peak_memory_bytes).unwrap_or(0),
    );
    check.same(
        at("driver_memory_bytes"),
        figures.driver_memory_bytes,
        largest(|record| record.device_driver_bytes),
    );
    let flops = run.metrics.flops_per_token as f64;
    let peak = run.metrics.hardware.peak_flops;
    check.close(
        at("mfu"),
        figures.mfu,
        peak.map(|peak| flops * figures.tokens_per_sec / peak),
    );
}

/// Another program's row: its figures are those of the last line that it printed.
fn check_peer(dir: &Path, results: &Path, index: usize, row: &Row, findings: &mut Vec<Finding>) {
    let mut output = Check::new(dir.join(STDOUT), findings);
    let Some(text) = output.read(&format!("what the program of the row \"{}\" printed", row.name)) else {
        return;
    };
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    let printed: PeerLine = match serde_json::from_str(last) {
        Ok(printed) => printed,
        Err(error) => {
            let line = text.lines().count();
            return output.report(
                format!("line {line}"),
                format!("no timing ({error})"),
                "the timing of a peer",
            );
        }
    };
    let Some(figures) = &row.figures else { return };
    let mut check = Check::new(results.to_owned(), findings);
    let at = |field: &str| format!("rows[{index}].figures.{field}");
    let factors = [
        printed.batch,
        printed.seq,
        printed.grad_accum.unwrap_or(1),
        printed.ranks.unwrap_or(1),
    ];
    check.equal(
        at("tokens_per_step"),
        figures.tokens_per_step,
        factors.into_iter().fold(1, u64::saturating_mul),
    );
    check_list(&mut check, &at("all_step_ms"), &figures.all_step_ms, &printed.step_ms);
    check.close(at("loss_last"), figures.loss_last, printed.loss_last);
    check.equal(
        at("peak_memory_bytes"),
        figures.peak_memory_bytes,
        (printed.peak_mem_mib * MIB) as u64,
    );
}

/// What is compared of the last line that another program prints.
#[derive(Deserialize)]
struct PeerLine {
    batch: u64,
    seq: u64,
    grad_accum: Option<u64>,
    ranks: Option<u64>,
    step_ms: Vec<f64>,
    peak_mem_mib: f64,
    loss_last: Option<f64>,
}

/// Files of a run that the study has copied to its own directory are still the run's.
fn check_copies(dir: &Path, study: &Study, findings: &mut Vec<Finding>) {
    for name in [TRAINING_METRICS, LAUNCHER_METADATA, RUN_COMPLETE] {
        let mut check = Check::new(dir.join(name), findings);
        if !check.file.exists() {
            continue;
        }
        let Ok(copy) = fs::read(&check.file) else {
            check.report("", "not readable", "a copy of a run's file");
            continue;
        };
        let names = study.rows.iter().map(|row| row.name.as_str());
        let is_copy = names
            .filter(|row| is_plain_name(row))
            .any(|row| fs::read(dir.join("runs").join(row).join(name)).is_ok_and(|original| original == copy));
        if !is_copy {
            check.report("", "another than in every run", "a copy of a run's file");
        }
    }
}

fn check_list(check: &mut Check<'_>, at: &str, found: &[f64], expected: &[f64]) {
    check.equal(at, found.len(), expected.len());
    for (position, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        check.close(format!("{at}[{position}]"), Some(found), Some(expected));
    }
}

/// `results.csv` has what `results.json` has.
fn check_csv(dir: &Path, study: &Study, findings: &mut Vec<Finding>) {
    let mut check = Check::new(dir.join("results.csv"), findings);
    let Some(text) = check.read("the rows of results.json") else {
        return;
    };
    let expected = cells(&results_csv(study));
    let found = cells(text.as_bytes());
    let (Some(expected), Some(found)) = (expected, found) else {
        return check.report("", "not CSV", "the rows of results.json");
    };
    check.equal("rows", found.len(), expected.len());
    let head = expected.first().cloned().unwrap_or_default();
    for (line, (found, expected)) in found.iter().zip(&expected).enumerate() {
        for (column, expected) in expected.iter().enumerate() {
            let cell = found.get(column).map_or("", String::as_str);
            if cell != expected {
                let name = head.get(column).map_or("", String::as_str);
                check.report(
                    format!("line {}: {name}", line + 1),
                    format!("\"{cell}\""),
                    format!("\"{expected}\""),
                );
            }
        }
        if found.len() > expected.len() {
            check.report(
                format!("line {}", line + 1),
                format!("{} cells long", found.len()),
                format!("{} cells", expected.len()),
            );
        }
    }
}

/// The cells of a CSV file, its head included; none where it is not CSV.
fn cells(bytes: &[u8]) -> Option<Vec<Vec<String>>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(bytes);
    let rows = reader.records().map(|record| {
        let record = record.ok()?;
        Some(record.iter().map(ToOwned::to_owned).collect())
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::example::{self, RunFiles};
    use crate::verify::verify;
    use serde_json::{Value, json};

    fn found_after(tamper: impl FnOnce(&RunFiles)) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let study = example::study_in(dir.path());
        tamper(&study);
        example::texts(&verify(dir.path()), dir.path())
    }

    fn with_results(pointer: &'static str, value: Value) -> impl FnOnce(&RunFiles) {
        move |study| study.edit_json(RESULTS, |json| *json.pointer_mut(pointer).unwrap() = value)
    }

    #[track_caller]
    fn assert_found(found: &[String], expected: &str) {
        assert!(
            found.iter().any(|text| text == expected),
            "{found:#?}\n does not hold\n{expected}"
        );
    }

    #[test]
    fn an_honest_study_passes() {
        assert_eq!(found_after(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn another_version_is_noticed() {
        let found = found_after(with_results("/version", json!(7)));
        assert_eq!(found, ["results.json: `version` is 7, expected 1"]);
        let found = found_after(|study| study.write(RESULTS, "{"));
        assert!(found[0].starts_with("results.json is not readable ("), "{found:?}");
    }

    #[test]
    fn a_faster_row_is_noticed() {
        let found = found_after(with_results("/rows/1/figures/tokens_per_sec", json!(9999.0)));
        assert_found(
            &found,
            "results.json: `rows[1].figures.tokens_per_sec` is 9999, expected 2560",
        );
        let found = found_after(with_results("/rows/1/figures/step_ms/p95", json!(1.0)));
        assert_found(&found, "results.json: `rows[1].figures.step_ms.p95` is 1, expected 50");
    }

    #[test]
    fn step_times_that_are_not_in_the_log_are_noticed() {
        let found = found_after(with_results("/rows/0/figures/all_step_ms/30", json!(10.0)));
        assert_found(
            &found,
            "results.json: `rows[0].figures.all_step_ms[30]` is 10, expected 100",
        );
        let found = found_after(with_results("/rows/0/figures/warmup_steps", json!(30)));
        assert_found(
            &found,
            "results.json: `rows[0].figures.warmup_steps` is 30, expected 10",
        );
        let found = found_after(with_results("/rows/0/figures/warmup_steps", json!(99)));
        assert_found(
            &found,
            "results.json: `rows[0].figures.warmup_steps` is 99, expected at most the 40 steps",
        );
    }

    #[test]
    fn a_larger_speed_up_is_noticed() {
        let found = found_after(with_results("/rows/1/derived/speedup", json!(3.0)));
        assert_found(&found, "results.json: `rows[1].derived.speedup` is 3, expected 2");
        let found = found_after(with_results("/rows/1/derived/efficiency", json!(1.5)));
        assert_found(&found, "results.json: `rows[1].derived.efficiency` is 1.5, expected 1");
        let found = found_after(with_results("/rows/1/derived/break_even_steps", json!(1)));
        assert_found(
            &found,
            "results.json: `rows[1].derived.break_even_steps` is 1, expected 10",
        );
    }

    #[test]
    fn losses_and_memory_are_those_of_the_run() {
        let found = found_after(with_results("/rows/0/figures/losses/39", json!(1.0)));
        assert_found(&found, "results.json: `rows[0].figures.losses[39]` is 1, expected 6");
        let found = found_after(with_results("/rows/0/figures/val_losses/3/1", json!(1.0)));
        assert_found(
            &found,
            "results.json: `rows[0].figures.val_losses[3][1]` is 1, expected 5",
        );
        let found = found_after(with_results("/rows/0/figures/peak_memory_bytes", json!(1)));
        assert_found(
            &found,
            "results.json: `rows[0].figures.peak_memory_bytes` is 1, expected 2040",
        );
    }

    #[test]
    fn a_faster_operation_is_noticed() {
        let profile = json!({
            "trials": 2,
            "unprofiled_step_ms": Summary::of(&[10.0, 10.0]),
            "profiled_step_ms": Summary::of(&[10.0, 12.0]),
            "flop_per_step": 4e9,
            "mfu": 0.4,
            "ceilings": { "product_flops": 1e12, "product_side": 2048, "bytes_per_sec": 1e11 },
            "kinds": [{
                "kind": "attention", "forward_ms": 2.0, "backward_ms": 4.0, "share": 0.6, "std_ms": 2f64.sqrt(),
                "trials_ms": [[1.0, 4.0], [3.0, 4.0]],
            }],
            "operations": [{
                "name": "qkv", "kind": "attention", "pass": "forward", "count": 1.0, "ms": 2.0, "std_ms": 0.0,
                "trials_ms": [2.0, 2.0], "flop": 1e9, "bytes": 1e7, "bound_by": "products", "of_ceiling": 0.5,
            }],
            "advice": [],
        });
        let found_in = |profile: Value| found_after(|study| study.edit_json(RESULTS, |json| json["profile"] = profile));
        assert_eq!(found_in(profile.clone()), Vec::<String>::new());
        for (pointer, value, expected) in [
            ("/mfu", json!(0.8), "`profile.mfu` is 0.8, expected 0.4"),
            ("/trials", json!(3), "`profile.trials` is 3, expected 2"),
            (
                "/kinds/0/forward_ms",
                json!(1.0),
                "`profile.kinds[0].forward_ms` is 1, expected 2",
            ),
            (
                "/kinds/0/share",
                json!(0.5),
                "`profile.kinds[0].share` is 0.5, expected 0.6",
            ),
            (
                "/operations/0/ms",
                json!(1.0),
                "`profile.operations[0].ms` is 1, expected 2",
            ),
            (
                "/operations/0/of_ceiling",
                json!(0.9),
                "`profile.operations[0].of_ceiling` is 0.9, expected 0.5",
            ),
        ] {
            let mut tampered = profile.clone();
            *tampered.pointer_mut(pointer).unwrap() = value;
            assert_found(&found_in(tampered), &format!("results.json: {expected}"));
        }
    }

    #[test]
    fn a_row_that_is_there_twice_is_noticed() {
        let found = found_after(with_results("/rows/1/name", json!("one")));
        assert_found(
            &found,
            "results.json: `rows[1].name` is \"one\" again, expected a name for each row",
        );
        let found = found_after(with_results("/rows/1/name", json!("../two")));
        assert_found(
            &found,
            "results.json: `rows[1].name` is \"../two\", expected the name of a directory in runs",
        );
    }

    #[test]
    fn rows_without_what_they_need_are_noticed() {
        let found = found_after(|study| {
            study.edit_json(RESULTS, |json| {
                let row = json["rows"][1].as_object_mut().unwrap();
                row.remove("figures");
            });
        });
        assert_found(
            &found,
            "results.json: `rows[1].figures` is missing, expected what was measured, since the row is done",
        );
        let found = found_after(|study| {
            study.edit_json(RESULTS, |json| {
                json["rows"][2].as_object_mut().unwrap().remove("reason");
            });
        });
        assert_found(
            &found,
            "results.json: `rows[2].reason` is missing, expected why the row is out of memory",
        );
        let found = found_after(with_results("/baseline", json!("three")));
        assert_found(
            &found,
            "results.json: `baseline` is \"three\", expected the name of a row",
        );
        let found = found_after(with_results("/conclusions/0/row", json!("three")));
        assert_found(
            &found,
            "results.json: `conclusions[0].row` is \"three\", expected the name of a row",
        );
    }

    #[test]
    fn a_missing_run_is_noticed() {
        let found = found_after(|study| fs::remove_file(study.dir.join("runs/two/plan.toml")).unwrap());
        assert_eq!(
            found,
            ["runs/two/plan.toml is missing, expected a file of the row \"two\""]
        );
        let found = found_after(|study| fs::remove_dir_all(study.dir.join("runs/two")).unwrap());
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn a_tampered_run_in_a_study_is_noticed() {
        let found = found_after(|study| {
            study.edit_json("runs/one/training_metrics.json", |json| {
                json["summary"]["best_val_loss"] = json!(1.0);
            });
        });
        assert_eq!(
            found,
            ["runs/one/training_metrics.json: `summary.best_val_loss` is 1, expected 5"]
        );
    }

    #[test]
    fn a_csv_of_another_study_is_noticed() {
        let found = found_after(|study| {
            let csv = study.read("results.csv").replacen("2560", "9999", 1);
            study.write("results.csv", &csv);
        });
        assert_eq!(
            found,
            ["results.csv: `line 3: tokens_per_sec` is \"9999\", expected \"2560\""]
        );
        let found = found_after(|study| {
            let csv = study.read("results.csv");
            let cut: String = csv.split_inclusive('\n').take(3).collect();
            study.write("results.csv", &cut);
        });
        assert_eq!(found, ["results.csv: `rows` is 3, expected 5"]);
        let found = found_after(|study| fs::remove_file(study.dir.join("results.csv")).unwrap());
        assert_eq!(found, ["results.csv is missing, expected the rows of results.json"]);
    }

    #[test]
    fn a_peers_row_is_what_it_printed() {
        let found = found_after(with_results("/rows/3/figures/all_step_ms/20", json!(1.0)));
        assert_found(
            &found,
            "results.json: `rows[3].figures.all_step_ms[20]` is 1, expected 80",
        );
        let found = found_after(with_results("/rows/3/figures/peak_memory_bytes", json!(1)));
        assert_found(
            &found,
            "results.json: `rows[3].figures.peak_memory_bytes` is 1, expected 4194304",
        );
        let found = found_after(|study| study.write("runs/peer/stdout.txt", "a warning\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("runs/peer/stdout.txt: `line 1` is no timing ("),
            "{found:?}"
        );
        let found = found_after(|study| fs::remove_file(study.dir.join("runs/peer/stdout.txt")).unwrap());
        assert_eq!(
            found,
            ["runs/peer/stdout.txt is missing, expected what the program of the row \"peer\" printed"]
        );
    }

    #[test]
    fn a_copy_that_was_changed_is_noticed() {
        let found = found_after(|study| {
            let text = study.read("runs/one/training_metrics.json");
            study.write(TRAINING_METRICS, &text);
        });
        assert_eq!(found, Vec::<String>::new());
        let found = found_after(|study| {
            let text = study.read("runs/one/training_metrics.json");
            study.write(TRAINING_METRICS, &text.replace("bf16", "f32"));
        });
        assert_eq!(
            found,
            ["training_metrics.json is another than in every run, expected a copy of a run's file"]
        );
    }
}
