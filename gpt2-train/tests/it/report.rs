//! The report of a run has every field of schema 2.0, and is complete before it says so.

use gpt2_backend::HostFacts;
use gpt2_records::{Phases, Scheduler, TrainingMetrics};
use gpt2_train::config::RunConfig;
use gpt2_train::plan::{DataSummary, Environment, RunPlan};
use gpt2_train::report::{RunOutcome, training_metrics, write_report};
use gpt2_train::run_dir::{RunDir, RunPaths};
use gpt2_train::step_log::{StepLog, StepRecord, read_records};
use serde_json::Value;
use std::time::{Duration, SystemTime};

/// Field names of the schema, with the blocks they stand in.
const SCHEMA: [(&str, &[&str]); 9] = [
    (
        "",
        &[
            "schema_version",
            "run_id",
            "timestamp_utc",
            "git_commit",
            "command_line",
            "env",
            "host",
            "hardware",
            "training_config",
            "epochs",
            "summary",
            "completion",
            "scheduler",
        ],
    ),
    ("/host", &["hostname", "os"]),
    (
        "/hardware",
        &["gpu_name", "gpu_count_visible", "world_size", "cuda_version", "cluster"],
    ),
    (
        "/training_config",
        &[
            "model_name",
            "model_size",
            "seq_len",
            "epochs",
            "micro_batch_size_per_gpu",
            "grad_accum_steps",
            "global_batch_size",
            "lr",
            "optimizer",
            "precision",
            "dataset_name",
            "dataset_subset_sizes",
        ],
    ),
    ("/training_config/dataset_subset_sizes", &["train", "val"]),
    (
        "/epochs/0",
        &[
            "epoch_idx",
            "epoch_wall_time_sec",
            "micro_steps",
            "optimizer_steps",
            "tokens_processed_global",
            "tokens_per_sec_global",
            "train_loss_avg_global",
            "val_loss_avg_global",
            "max_cuda_mem_allocated_bytes_rank0",
            "max_cuda_mem_allocated_bytes_global",
            "max_cuda_mem_reserved_bytes_rank0",
            "max_cuda_mem_reserved_bytes_global",
            "step_time_mean_sec",
            "step_time_p50_sec",
            "step_time_p95_sec",
            "dataload_time_mean_sec",
        ],
    ),
    (
        "/summary",
        &["total_wall_time_sec", "best_val_loss", "mean_tokens_per_sec_global"],
    ),
    ("/completion", &["run_complete_file", "timestamp_utc"]),
    (
        "/scheduler",
        &[
            "type",
            "job_id",
            "nodelist",
            "nnodes",
            "procid",
            "localid",
            "gpus",
            "partition",
        ],
    ),
];

fn environment() -> Environment {
    Environment {
        data: DataSummary {
            name: "stories".into(),
            train_tokens: 10_000,
            val_tokens: 1_000,
            floor: Some(1.5),
        },
        default_run: "runs/demo".into(),
        auto_backend: gpt2_model::capabilities::BackendKind::Flex,
        cores: 2,
        device: 0,
        memory_bytes: None,
        memory_is_of_host: true,
        init_model: None,
    }
}

/// Thirty steps of 1,024 tokens at 2,048 tokens a second, with an evaluation before and after every ten.
fn train(run: &RunDir) -> Vec<StepRecord> {
    let mut log = StepLog::open(run.metrics(), 0).unwrap();
    for step in 0..=30_u64 {
        let trained = step > 0;
        log.append(&StepRecord {
            step,
            tokens: step * 1024,
            loss: trained.then_some(10.0 - 0.1 * step as f64),
            val_loss: step.is_multiple_of(10).then_some(11.0 - 0.1 * step as f64),
            step_ms: trained.then_some(500.0),
            tokens_per_sec: trained.then_some(2048.0),
            elapsed_sec: Some(step as f64 * 0.6),
            host_peak_bytes: Some(1_000_000 + step),
            ..StepRecord::default()
        })
        .unwrap();
    }
    read_records(&run.metrics()).unwrap()
}

fn report(records: &[StepRecord], completed: Option<SystemTime>) -> TrainingMetrics {
    let environment = environment();
    let plan = RunPlan::resolve(&RunConfig::default(), &environment).unwrap();
    training_metrics(RunOutcome {
        run_id: "demo".into(),
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        completed,
        git_commit: None,
        command_line: vec!["gpt2".into(), "train".into()],
        env: [("RAYON_NUM_THREADS".to_owned(), "2".to_owned())].into(),
        host: HostFacts::detect(),
        gpu_name: None,
        gpu_count_visible: None,
        cuda_version: None,
        peak_flops: Some(1e12),
        scheduler: Scheduler::default(),
        burn_version: "0.21.0".into(),
        plan: &plan,
        data: &environment.data,
        records,
        rank_steps: &[],
        communication: None,
        phases: Phases {
            steps_sec: 15.0,
            ..Phases::default()
        },
    })
}

#[test]
fn every_field_of_the_schema_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path()).unwrap();
    let metrics = report(&train(&run), Some(SystemTime::UNIX_EPOCH));
    write_report(&run, &metrics).unwrap();

    let text = std::fs::read_to_string(run.training_metrics()).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    for (block, fields) in SCHEMA {
        let block_value = json.pointer(block).unwrap();
        for field in fields {
            assert!(block_value.get(field).is_some(), "{block}/{field} is missing");
        }
    }
    assert_eq!(json["schema_version"], "2.0");
    assert_eq!(json["timestamp_utc"], "2023-11-14T22:13:20Z");
    assert_eq!(json["command_line"], "gpt2 train");
    let again: TrainingMetrics = serde_json::from_str(&text).unwrap();
    assert_eq!(again, metrics);
}

#[test]
fn the_figures_follow_from_the_records() {
    let dir = tempfile::tempdir().unwrap();
    let metrics = report(&train(&RunDir::create(dir.path()).unwrap()), None);
    let summary = metrics.summary;
    assert_eq!((summary.steps, summary.tokens), (30, 30_720));
    assert_eq!((summary.best_val_loss, summary.best_step), (Some(8.0), Some(30)));
    assert_eq!(
        (summary.final_train_loss, summary.final_val_loss),
        (Some(7.0), Some(8.0))
    );
    assert!((summary.total_wall_time_sec - 18.0).abs() < 1e-9);
    assert_eq!(summary.median_tokens_per_sec, Some(2048.0));
    let mfu = 2048.0 * metrics.flops_per_token as f64 / 1e12;
    assert!((summary.mfu.unwrap() - mfu).abs() < 1e-12);
    assert_eq!(metrics.epochs.len(), 4);
    assert_eq!(
        metrics.epochs.iter().map(|epoch| epoch.optimizer_steps).sum::<u64>(),
        30
    );
    let steps: Vec<_> = metrics.losses.iter().map(|point| point.step).collect();
    assert_eq!(steps, [0, 10, 20, 30]);
    assert_eq!(metrics.host_peak_bytes, Some(1_000_030));
}

#[test]
fn only_a_run_that_reached_its_end_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path()).unwrap();
    let records = train(&run);
    write_report(&run, &report(&records, None)).unwrap();
    assert!(run.training_metrics().exists() && !run.run_complete().exists());
    write_report(&run, &report(&records, Some(SystemTime::UNIX_EPOCH))).unwrap();
    assert_eq!(
        std::fs::read_to_string(run.run_complete()).unwrap(),
        "demo ended at 1970-01-01T00:00:00Z\n"
    );
}

#[test]
fn a_report_that_cannot_be_written_leaves_no_sign_of_completion() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path()).unwrap();
    let metrics = report(&train(&run), Some(SystemTime::UNIX_EPOCH));
    std::fs::create_dir(run.training_metrics()).unwrap();
    let error = write_report(&run, &metrics).unwrap_err();
    assert!(error.to_string().starts_with("cannot write "), "{error}");
    assert!(!RunPaths::new(dir.path()).run_complete().exists());
}
