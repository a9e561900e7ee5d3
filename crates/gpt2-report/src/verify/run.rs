//! The files of a run: `training_metrics.json` against its schema and against `metrics.jsonl`, and that the run is
//! complete exactly when it says so.

use super::{Check, Finding, METRICS, Named, RANKS, RUN_COMPLETE, TRAINING_METRICS, launcher, schema};
use gpt2_records::{
    Breakdown, Completion, Epoch, LossPoint, RankStep, RunSummary, StepRecord, StepTimes, TrainingMetrics,
    complete_records,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Component, Path};

/// What a run says of itself, where its files could be read.
pub(super) struct Run {
    pub(super) metrics: TrainingMetrics,
    pub(super) records: Vec<StepRecord>,
    /// Of a run of several ranks.
    pub(super) rank_steps: Vec<RankStep>,
}

/// Checks the run in `dir`, and returns it if both its files can be read.
pub(super) fn check(dir: &Path, findings: &mut Vec<Finding>) -> Option<Run> {
    let mut summary = Check::new(dir.join(TRAINING_METRICS), findings);
    let metrics = read_metrics(&mut summary);
    if let Some(metrics) = &metrics {
        check_work(&mut summary, metrics);
        check_completion(dir, metrics, findings);
        launcher::check(&mut Check::new(launcher::path(dir), findings), metrics);
    }
    let ranks = dir.join(RANKS);
    let rank_steps = match &metrics {
        Some(metrics) if metrics.hardware.world_size > 1 || ranks.exists() => {
            read_lines(&mut Check::new(ranks, findings), Some(metrics))
        }
        _ => Some(Vec::new()),
    };
    let mut log = Check::new(dir.join(METRICS), findings);
    let records = read_lines(&mut log, metrics.as_ref());
    let run = Run {
        metrics: metrics?,
        records: records?,
        rank_steps: rank_steps?,
    };
    check_records(&mut log, &run);
    // Tokens that go backwards have been told; nothing can be summed up from them.
    if run.records.is_sorted_by_key(|record| record.tokens) {
        check_figures(&mut Check::new(dir.join(TRAINING_METRICS), findings), &run);
    }
    Some(run)
}

fn read_metrics(check: &mut Check<'_>) -> Option<TrainingMetrics> {
    let text = check.read("the metrics of a run that has ended")?;
    let value: Value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(error) => {
            check.report("", format!("not JSON ({error})"), "the metrics of a run");
            return None;
        }
    };
    if !schema::check(check, &value) {
        return None;
    }
    match serde_json::from_str(&text) {
        Ok(metrics) => Some(metrics),
        Err(error) => {
            check.report("", format!("not the metrics of a run ({error})"), "every field");
            None
        }
    }
}

/// What the lines of a log hold.
fn read_lines<T: DeserializeOwned>(check: &mut Check<'_>, metrics: Option<&TrainingMetrics>) -> Option<Vec<T>> {
    let text = check.read("a line for each step")?;
    if !text.is_empty() && !text.ends_with('\n') && metrics.is_some_and(|metrics| metrics.completion.is_some()) {
        let last = text.lines().count();
        check.report(
            format!("line {last}"),
            "half-written",
            "a whole line, since the run is complete",
        );
    }
    match complete_records(&text, &check.file) {
        Ok(records) => Some(records),
        Err(damaged) => {
            check.report(
                format!("line {}", damaged.line),
                format!("no record ({})", damaged.source),
                "the record of a step",
            );
            None
        }
    }
}

/// What the configuration says of itself.
fn check_work(check: &mut Check<'_>, metrics: &TrainingMetrics) {
    let config = &metrics.training_config;
    let factors = [
        config.micro_batch_size_per_gpu,
        config.grad_accum_steps,
        metrics.hardware.world_size,
    ];
    let [micro_batch, grad_accum, world_size] = factors;
    let global_batch = factors
        .into_iter()
        .map(|factor| factor as u64)
        .fold(1, u64::saturating_mul);
    if config.global_batch_size as u64 != global_batch {
        check.report(
            "training_config.global_batch_size",
            config.global_batch_size,
            format!("{global_batch} ({micro_batch} × {grad_accum} × {world_size})"),
        );
    }
    check.equal(
        "summary.tokens",
        metrics.summary.tokens,
        metrics.summary.steps.saturating_mul(tokens_per_step(metrics)),
    );
    let phases = &metrics.phases;
    if phases.data_wait_sec > phases.steps_sec {
        check.report(
            "phases.data_wait_sec",
            phases.data_wait_sec,
            format!("at most `phases.steps_sec`, {}", phases.steps_sec),
        );
    }
}

fn tokens_per_step(metrics: &TrainingMetrics) -> u64 {
    let config = &metrics.training_config;
    (config.global_batch_size as u64).saturating_mul(config.seq_len as u64)
}

/// The marker is there exactly when the run is complete, and names it.
fn check_completion(dir: &Path, metrics: &TrainingMetrics, findings: &mut Vec<Finding>) {
    let Some(Completion {
        run_complete_file,
        timestamp_utc,
    }) = &metrics.completion
    else {
        let marker = dir.join(RUN_COMPLETE);
        if marker.exists() {
            Check::new(marker, findings).report("", "there", "no file, since `completion` is null");
        }
        return;
    };
    let mut check = Check::new(dir.join(TRAINING_METRICS), findings);
    let times = [&metrics.timestamp_utc, timestamp_utc].map(|time| humantime::parse_rfc3339(time).ok());
    if times[1] < times[0] {
        check.report(
            "completion.timestamp_utc",
            timestamp_utc,
            format!("not before `timestamp_utc`, {}", metrics.timestamp_utc),
        );
    }
    if !is_plain_name(run_complete_file) {
        check.report("completion.run_complete_file", run_complete_file, RUN_COMPLETE);
        return;
    }
    let mut marker = Check::new(dir.join(run_complete_file), findings);
    let expected = format!("{} ended at {timestamp_utc}", metrics.run_id);
    if let Some(text) = marker.read("there, since `completion` is not null")
        && text.trim_end() != expected
    {
        marker.report("line 1", format!("\"{}\"", text.trim_end()), format!("\"{expected}\""));
    }
}

/// Whether `name` is that of a file or directory, and no way to another place.
pub(super) fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!(
        (components.next(), components.next()),
        (Some(Component::Normal(_)), None)
    )
}

/// What the lines of the log say of themselves.
fn check_records(check: &mut Check<'_>, run: &Run) {
    let per_step = tokens_per_step(&run.metrics);
    let (mut step_sec, mut elapsed_sec) = (0.0, 0.0);
    for (index, record) in run.records.iter().enumerate() {
        let at = |field: &str| format!("line {}: {field}", index + 1);
        // An evaluation before the first step is step 0.
        let expected = match index.checked_sub(1) {
            Some(previous) => run.records[previous].step + 1,
            None => record.step.min(1),
        };
        check.equal(at("step"), record.step, expected);
        check.equal(at("tokens"), record.tokens, record.step.saturating_mul(per_step));
        if let (Some(rate), Some(ms)) = (record.tokens_per_sec, record.step_ms) {
            check.close(at("tokens_per_sec"), Some(rate), Some(per_step as f64 / (ms / 1e3)));
        }
        step_sec += record.step_ms.unwrap_or(0.0) / 1e3;
        if let Some(elapsed) = record.elapsed_sec {
            if elapsed < elapsed_sec {
                check.report(
                    at("elapsed_sec"),
                    elapsed,
                    format!("not before the line above, {elapsed_sec}"),
                );
            }
            elapsed_sec = elapsed;
            if step_sec > elapsed * (1.0 + super::TOLERANCE) {
                check.report(
                    at("elapsed_sec"),
                    elapsed,
                    format!("at least the {step_sec} s of the steps so far"),
                );
                step_sec = f64::NEG_INFINITY;
            }
        }
    }
}

/// What `training_metrics.json` says, computed again from the log.
fn check_figures(check: &mut Check<'_>, run: &Run) {
    let Run {
        metrics,
        records,
        rank_steps,
    } = run;
    let config = &metrics.training_config;
    let epochs = Epoch::of_run(
        records,
        rank_steps,
        config.dataset_subset_sizes.train,
        config.grad_accum_steps as u64,
    );
    check.equal("epochs", metrics.epochs.len(), epochs.len());
    for (index, (found, expected)) in metrics.epochs.iter().zip(&epochs).enumerate() {
        check_epoch(check, index, found, expected);
    }
    let peak = metrics.hardware.peak_flops;
    let expected = RunSummary::new(records, &epochs, metrics.flops_per_token, peak);
    let found = &metrics.summary;
    check.equal("summary.steps", found.steps, expected.steps);
    check.equal("summary.tokens", found.tokens, expected.tokens);
    check.same("summary.best_step", found.best_step, expected.best_step);
    for (name, value) in SUMMARY {
        check.close(format!("summary.{name}"), value(found), value(&expected));
    }
    let steps_sec: f64 = records.iter().filter_map(|record| record.step_ms).sum::<f64>() / 1e3;
    if metrics.phases.steps_sec > steps_sec * (1.0 + super::TOLERANCE) {
        check.report(
            "phases.steps_sec",
            metrics.phases.steps_sec,
            format!("at most the {steps_sec} s of all steps in the log"),
        );
    }
    check_losses(check, &metrics.losses, records);
    let host_peak = records.iter().filter_map(|record| record.host_peak_bytes).max();
    check.same("host_peak_bytes", metrics.host_peak_bytes, host_peak);
}

/// Numbers of the summary that are computed.
const SUMMARY: [Named<RunSummary, Option<f64>>; 7] = [
    ("total_wall_time_sec", |summary| Some(summary.total_wall_time_sec)),
    ("best_val_loss", |summary| summary.best_val_loss),
    ("mean_tokens_per_sec_global", |summary| {
        summary.mean_tokens_per_sec_global
    }),
    ("median_tokens_per_sec", |summary| summary.median_tokens_per_sec),
    ("final_train_loss", |summary| summary.final_train_loss),
    ("final_val_loss", |summary| summary.final_val_loss),
    ("mfu", |summary| summary.mfu),
];

/// Numbers of an epoch that are computed.
const EPOCH: [Named<Epoch, Option<f64>>; 8] = [
    ("epoch_wall_time_sec", |epoch| Some(epoch.epoch_wall_time_sec)),
    ("tokens_per_sec_global", |epoch| epoch.tokens_per_sec_global),
    ("train_loss_avg_global", |epoch| epoch.train_loss_avg_global),
    ("val_loss_avg_global", |epoch| epoch.val_loss_avg_global),
    ("step_time_mean_sec", |epoch| epoch.step_time_mean_sec),
    ("step_time_p50_sec", |epoch| epoch.step_time_p50_sec),
    ("step_time_p95_sec", |epoch| epoch.step_time_p95_sec),
    ("dataload_time_mean_sec", |epoch| epoch.dataload_time_mean_sec),
];

fn check_epoch(check: &mut Check<'_>, index: usize, found: &Epoch, expected: &Epoch) {
    let at = |field: &str| format!("epochs[{index}].{field}");
    check.equal(at("epoch_idx"), found.epoch_idx, expected.epoch_idx);
    check.equal(at("micro_steps"), found.micro_steps, expected.micro_steps);
    check.equal(at("optimizer_steps"), found.optimizer_steps, expected.optimizer_steps);
    check.equal(
        at("tokens_processed_global"),
        found.tokens_processed_global,
        expected.tokens_processed_global,
    );
    for (name, value) in EPOCH {
        check.close(at(name), value(found), value(expected));
    }
    check_breakdown(
        check,
        &at("breakdown"),
        found.breakdown.as_ref(),
        expected.breakdown.as_ref(),
    );
    let memory: [Named<Epoch, Option<u64>>; 4] = [
        ("max_cuda_mem_allocated_bytes_rank0", |epoch| {
            epoch.max_cuda_mem_allocated_bytes_rank0
        }),
        ("max_cuda_mem_allocated_bytes_global", |epoch| {
            epoch.max_cuda_mem_allocated_bytes_global
        }),
        ("max_cuda_mem_reserved_bytes_rank0", |epoch| {
            epoch.max_cuda_mem_reserved_bytes_rank0
        }),
        ("max_cuda_mem_reserved_bytes_global", |epoch| {
            epoch.max_cuda_mem_reserved_bytes_global
        }),
    ];
    for (name, value) in memory {
        check.same(at(name), value(found), value(expected));
    }
}

/// Where the time of steps went, computed again from what the ranks told of them.
pub(super) fn check_breakdown(
    check: &mut Check<'_>,
    at: &str,
    found: Option<&Breakdown>,
    expected: Option<&Breakdown>,
) {
    let (Some(found), Some(expected)) = (found, expected) else {
        let ranks = |breakdown: Option<&Breakdown>| breakdown.map_or(0, |breakdown| breakdown.ranks.len());
        return check.equal(format!("{at}.ranks"), ranks(found), ranks(expected));
    };
    check.equal(format!("{at}.ranks"), found.ranks.len(), expected.ranks.len());
    check.equal(format!("{at}.slowest"), found.slowest, expected.slowest);
    check.close(
        format!("{at}.compute_to_communication"),
        found.compute_to_communication,
        expected.compute_to_communication,
    );
    let mut times = |at: String, found: &StepTimes, expected: &StepTimes| {
        check.close(format!("{at}.step_ms"), Some(found.step_ms), Some(expected.step_ms));
        for ((name, found), (_, expected)) in found.parts().into_iter().zip(expected.parts()) {
            check.close(format!("{at}.{name}"), Some(found), Some(expected));
        }
        let [found, expected] = [found, expected].map(|times| times.overlapped_communication_ms);
        check.close(format!("{at}.overlapped_communication_ms"), found, expected);
    };
    times(format!("{at}.mean"), &found.mean, &expected.mean);
    for (index, (found, expected)) in found.ranks.iter().zip(&expected.ranks).enumerate() {
        times(format!("{at}.ranks[{index}]"), &found.times, &expected.times);
    }
}

fn check_losses(check: &mut Check<'_>, found: &[LossPoint], records: &[StepRecord]) {
    let expected: Vec<(u64, Option<f64>, f64)> = records
        .iter()
        .filter_map(|record| Some((record.step, record.loss, record.val_loss?)))
        .collect();
    check.equal("losses", found.len(), expected.len());
    for (index, (found, (step, train, val))) in found.iter().zip(expected).enumerate() {
        let at = |field: &str| format!("losses[{index}].{field}");
        check.equal(at("step"), found.step, step);
        check.close(at("train"), found.train, train);
        check.close(at("val"), Some(found.val), Some(val));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::example::{self, RunFiles};
    use crate::verify::verify;
    use serde_json::json;
    use std::fs;

    /// Checks the example run after `tamper`, and returns what is found, without the directory.
    fn found_after(tamper: impl FnOnce(&RunFiles)) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let run = example::run_in(dir.path());
        tamper(&run);
        example::texts(&verify(dir.path()), dir.path())
    }

    fn with_metrics(pointer: &'static str, value: Value) -> impl FnOnce(&RunFiles) {
        move |run| run.edit_json(TRAINING_METRICS, |json| *json.pointer_mut(pointer).unwrap() = value)
    }

    fn with_record(line: usize, change: impl FnOnce(&mut Value)) -> impl FnOnce(&RunFiles) {
        move |run| run.edit_line(line, change)
    }

    #[track_caller]
    fn assert_found(found: &[String], expected: &str) {
        assert!(
            found.iter().any(|text| text == expected),
            "{found:#?}\n does not hold\n{expected}"
        );
    }

    #[test]
    fn an_honest_run_passes() {
        assert_eq!(found_after(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn a_run_that_was_stopped_passes() {
        let found = found_after(|run| {
            run.edit_json(TRAINING_METRICS, |json| json["completion"] = Value::Null);
            fs::remove_file(run.dir.join(RUN_COMPLETE)).unwrap();
            fs::remove_file(run.dir.join(super::super::LAUNCHER_METADATA)).unwrap();
            // A line that was being written when the process was killed.
            run.append(METRICS, "{\"step\":41,\"tok");
        });
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn a_faster_mean_is_noticed() {
        let found = found_after(with_metrics("/summary/mean_tokens_per_sec_global", json!(2000.0)));
        assert_eq!(
            found,
            ["training_metrics.json: `summary.mean_tokens_per_sec_global` is 2000, expected 1280"]
        );
    }

    #[test]
    fn a_better_loss_is_noticed() {
        let found = found_after(with_metrics("/summary/best_val_loss", json!(2.5)));
        assert_eq!(
            found,
            ["training_metrics.json: `summary.best_val_loss` is 2.5, expected 5"]
        );
        let found = found_after(with_metrics("/summary/final_train_loss", json!(2.5)));
        assert_eq!(
            found,
            ["training_metrics.json: `summary.final_train_loss` is 2.5, expected 6"]
        );
        let found = found_after(with_metrics("/losses/1/val", json!(1.0)));
        assert_eq!(found, ["training_metrics.json: `losses[1].val` is 1, expected 8"]);
        let found = found_after(with_metrics("/epochs/0/train_loss_avg_global", json!(1.0)));
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn another_wall_time_is_noticed() {
        let found = found_after(with_metrics("/summary/total_wall_time_sec", json!(30.0)));
        assert_eq!(
            found,
            ["training_metrics.json: `summary.total_wall_time_sec` is 30, expected 41"]
        );
    }

    #[test]
    fn a_faster_step_in_the_log_is_noticed() {
        let found = found_after(with_record(21, |record| record["step_ms"] = json!(50.0)));
        assert_found(
            &found,
            "metrics.jsonl: `line 21: tokens_per_sec` is 1280, expected 2560",
        );
        assert_found(
            &found,
            "training_metrics.json: `epochs[0].step_time_mean_sec` is 0.1, expected 0.095",
        );
    }

    #[test]
    fn less_communication_is_noticed() {
        let found = found_after(with_metrics("/epochs/0/breakdown/ranks/0/communication_ms", json!(2.0)));
        assert_eq!(
            found,
            ["training_metrics.json: `epochs[0].breakdown.ranks[0].communication_ms` is 2, expected 20"]
        );
        let place = "/epochs/0/breakdown/ranks/0/overlapped_communication_ms";
        let found = found_after(with_metrics(place, json!(9.0)));
        assert_eq!(
            found,
            ["training_metrics.json: `epochs[0].breakdown.ranks[0].overlapped_communication_ms` is 9, expected 5"]
        );
        // The rank that all others wait for.
        let found = found_after(with_metrics("/epochs/1/breakdown/slowest", json!(0)));
        assert_found(
            &found,
            "training_metrics.json: `epochs[1].breakdown.slowest` is 0, expected 1",
        );
        let found = found_after(|run| fs::remove_file(run.dir.join(RANKS)).unwrap());
        assert_found(&found, "ranks.jsonl is missing, expected a line for each step");
    }

    #[test]
    fn a_missing_step_is_noticed() {
        let found = found_after(|run| {
            let text = run.read(METRICS);
            let kept: String = text
                .split_inclusive('\n')
                .enumerate()
                .filter(|(i, _)| *i != 20)
                .map(|(_, l)| l)
                .collect();
            run.write(METRICS, &kept);
        });
        assert_found(&found, "metrics.jsonl: `line 21: step` is 21, expected 20");
        assert_found(
            &found,
            "training_metrics.json: `epochs[0].optimizer_steps` is 20, expected 19",
        );
    }

    #[test]
    fn more_tokens_than_the_steps_have_are_noticed() {
        let found = found_after(with_record(21, |record| record["tokens"] = json!(9999)));
        assert_found(&found, "metrics.jsonl: `line 21: tokens` is 9999, expected 2560");
        let found = found_after(with_metrics("/summary/tokens", json!(1_000_000)));
        assert_found(
            &found,
            "training_metrics.json: `summary.tokens` is 1000000, expected 5120",
        );
    }

    #[test]
    fn another_global_batch_is_noticed() {
        let found = found_after(with_metrics("/training_config/global_batch_size", json!(16)));
        assert_found(
            &found,
            "training_metrics.json: `training_config.global_batch_size` is 16, expected 8 (2 × 2 × 2)",
        );
    }

    #[test]
    fn fewer_steps_are_noticed() {
        let found = found_after(with_metrics("/summary/steps", json!(30)));
        assert_found(&found, "training_metrics.json: `summary.steps` is 30, expected 40");
    }

    #[test]
    fn a_marker_that_does_not_belong_is_noticed() {
        let found = found_after(|run| fs::remove_file(run.dir.join(RUN_COMPLETE)).unwrap());
        assert_eq!(
            found,
            ["RUN_COMPLETE.txt is missing, expected there, since `completion` is not null"]
        );
        let found = found_after(|run| run.edit_json(TRAINING_METRICS, |json| json["completion"] = Value::Null));
        assert_eq!(
            found,
            ["RUN_COMPLETE.txt is there, expected no file, since `completion` is null"]
        );
        let found = found_after(|run| run.write(RUN_COMPLETE, "other ended at 2026-01-31T12:01:00Z\n"));
        assert_eq!(
            found,
            [
                "RUN_COMPLETE.txt: `line 1` is \"other ended at 2026-01-31T12:01:00Z\", expected \"example ended at \
              2026-01-31T12:01:00Z\""
            ]
        );
        let found = found_after(with_metrics(
            "/completion/run_complete_file",
            json!("../other/RUN_COMPLETE.txt"),
        ));
        assert_eq!(
            found,
            [
                "training_metrics.json: `completion.run_complete_file` is ../other/RUN_COMPLETE.txt, expected \
             RUN_COMPLETE.txt"
            ]
        );
    }

    #[test]
    fn an_end_before_the_start_is_noticed() {
        let found = found_after(with_metrics("/timestamp_utc", json!("2026-01-31T13:00:00Z")));
        assert_found(
            &found,
            "training_metrics.json: `completion.timestamp_utc` is 2026-01-31T12:01:00Z, expected not before \
             `timestamp_utc`, 2026-01-31T13:00:00Z",
        );
    }

    #[test]
    fn a_field_that_was_taken_out_is_noticed() {
        let found = found_after(|run| {
            run.edit_json(TRAINING_METRICS, |json| {
                json["hardware"].as_object_mut().unwrap().remove("gpu_name");
            });
        });
        assert_eq!(
            found,
            ["training_metrics.json: `hardware.gpu_name` is missing, expected text"]
        );
    }

    #[test]
    fn less_memory_and_other_step_times_are_noticed() {
        let found = found_after(with_metrics("/epochs/1/max_cuda_mem_allocated_bytes_global", json!(1)));
        assert_eq!(
            found,
            ["training_metrics.json: `epochs[1].max_cuda_mem_allocated_bytes_global` is 1, expected 1040"]
        );
        let found = found_after(with_metrics("/epochs/1/step_time_p95_sec", json!(0.05)));
        assert_eq!(
            found,
            ["training_metrics.json: `epochs[1].step_time_p95_sec` is 0.05, expected 0.1"]
        );
        let found = found_after(with_metrics("/phases/steps_sec", json!(99.0)));
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn time_that_runs_backwards_is_noticed() {
        let found = found_after(with_record(31, |record| record["elapsed_sec"] = json!(7.5)));
        assert_found(
            &found,
            "metrics.jsonl: `line 31: elapsed_sec` is 7.5, expected not before the line above, 30",
        );
    }

    #[test]
    fn a_damaged_line_is_noticed() {
        let found = found_after(|run| {
            let text = run.read(METRICS).replacen("\"step\":7,", "\"step\":x,", 1);
            run.write(METRICS, &text);
        });
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("metrics.jsonl: `line 8` is no record ("),
            "{found:?}"
        );
        let found = found_after(|run| run.append(METRICS, "{\"step\":41"));
        assert_eq!(
            found,
            ["metrics.jsonl: `line 42` is half-written, expected a whole line, since the run is complete"]
        );
    }

    #[test]
    fn a_launcher_of_another_run_is_noticed() {
        let launcher = super::super::LAUNCHER_METADATA;
        let edit = |change: fn(&mut Value)| found_after(move |run| run.edit_json(launcher, change));
        for (change, expected) in [
            (
                (|json: &mut Value| json["command"] = json!("gpt2 train --steps 4")) as fn(&mut Value),
                "launcher_metadata.json: `command` is gpt2 train --steps 4, expected gpt2 train",
            ),
            (
                |json| json["ranks"][1]["exit_code"] = json!(1),
                "launcher_metadata.json: `ranks[1].exit_code` is 1, expected 0, since the run is complete",
            ),
            (
                |json| json["ranks"] = json!([]),
                "launcher_metadata.json: `ranks` is 0, expected 2",
            ),
            (
                |json| json["end_utc"] = json!("2026-01-31T11:00:00Z"),
                "launcher_metadata.json: `end_utc` is 2026-01-31T11:00:00Z, expected not before start_utc, \
                 2026-01-31T11:59:59Z",
            ),
            (
                |json| json["end_utc"] = Value::Null,
                "launcher_metadata.json: `end_utc` is null, expected a time, since the run is complete",
            ),
        ] {
            assert_eq!(edit(change), [expected]);
        }
    }

    #[test]
    fn missing_files_are_named() {
        let found = found_after(|run| fs::remove_file(run.dir.join(METRICS)).unwrap());
        assert_eq!(found, ["metrics.jsonl is missing, expected a line for each step"]);
        let found = found_after(|run| fs::remove_file(run.dir.join(TRAINING_METRICS)).unwrap());
        assert_eq!(
            found,
            ["training_metrics.json is missing, expected the metrics of a run that has ended"]
        );
    }

    #[test]
    fn names_lead_nowhere_else() {
        assert!(is_plain_name("RUN_COMPLETE.txt"));
        for name in ["", ".", "..", "../x", "a/b", "/x"] {
            assert!(!is_plain_name(name), "{name}");
        }
    }
}
