//! A run and a study of two runs, whose files agree with each other, for tests that tamper with them.

use super::{Finding, LAUNCHER_METADATA, METRICS, PLAN, RANKS, RESULTS, RUN_COMPLETE, TRAINING_METRICS};
use crate::tables::results_csv;
use gpt2_base::stats::Summary;
use gpt2_records::{
    Completion, Conclusion, Epoch, Figures, Hardware, Host, LossPoint, Made, Phases, RankStep, Row, RunSummary,
    STUDY_VERSION, Scheduler, Status, StepRecord, Study, StudyKind, SubsetSizes, TrainingConfig, TrainingMetrics,
    breakdown, settled, steady_steps,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Tokens of a step: 2 ranks, 2 micro-steps, 2 sequences of 16.
const TOKENS_PER_STEP: u64 = 128;

/// Files that a test tampers with.
pub(crate) struct RunFiles {
    pub(crate) dir: PathBuf,
}

impl RunFiles {
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.join(name), text).unwrap();
    }

    pub(crate) fn append(&self, name: &str, text: &str) {
        self.write(name, &(self.read(name) + text));
    }

    pub(crate) fn edit_json(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut value = serde_json::from_str(&self.read(name)).unwrap();
        change(&mut value);
        self.write(name, &value.to_string());
    }

    /// Changes a line, from 1, of the log.
    pub(crate) fn edit_line(&self, line: usize, change: impl FnOnce(&mut Value)) {
        let mut lines: Vec<String> = self.read(METRICS).lines().map(ToOwned::to_owned).collect();
        let mut value = serde_json::from_str(&lines[line - 1]).unwrap();
        change(&mut value);
        lines[line - 1] = value.to_string();
        self.write(METRICS, &(lines.join("\n") + "\n"));
    }
}

/// The findings, without the directory.
pub(crate) fn texts(findings: &[Finding], dir: &Path) -> Vec<String> {
    let prefix = format!("{}/", dir.display());
    findings
        .iter()
        .map(|finding| finding.to_string().replace(&prefix, ""))
        .collect()
}

/// Forty steps, the first ten slow, and an evaluation before the first and after every ten.
fn records(step_ms: f64) -> Vec<StepRecord> {
    let evaluated = |step: u64| step.is_multiple_of(10).then(|| 9.0 - step as f64 / 10.0);
    let mut records = vec![StepRecord {
        val_loss: evaluated(0),
        elapsed_sec: Some(1.0),
        ..StepRecord::default()
    }];
    records.extend((1..=40).map(|step| {
        let step_ms = if step <= 10 { 1000.0 } else { step_ms };
        StepRecord {
            step,
            tokens: step * TOKENS_PER_STEP,
            loss: Some(8.0 - step as f64 / 20.0),
            val_loss: evaluated(step),
            step_ms: Some(step_ms),
            tokens_per_sec: Some(TOKENS_PER_STEP as f64 / (step_ms / 1e3)),
            data_wait_ms: Some(5.0),
            host_to_device_ms: Some(1.0),
            rank_wait_ms: Some(4.0),
            communication_ms: Some(20.0),
            overlapped_communication_ms: Some(5.0),
            compute_ms: Some(step_ms - 30.0),
            elapsed_sec: Some(1.0 + step as f64),
            host_peak_bytes: Some(3000 + step),
            device_mem_bytes: Some(1000 + step),
            device_peak_bytes: Some(2000 + step),
            ..StepRecord::default()
        }
    }));
    records
}

/// What two ranks would tell of these steps: rank 1 is the slower one.
fn rank_steps(records: &[StepRecord]) -> Vec<RankStep> {
    let of_rank = |record: &StepRecord, rank: usize| {
        let step = RankStep::new(rank, record)?;
        let late = 4.0 * rank as f64;
        Some(RankStep {
            rank_wait_ms: Some(4.0 - late),
            compute_ms: step.compute_ms + late,
            ..step
        })
    };
    records
        .iter()
        .flat_map(|record| [of_rank(record, 0), of_rank(record, 1)])
        .flatten()
        .collect()
}

/// What the trainer would write of such a run.
pub(crate) fn training_metrics() -> TrainingMetrics {
    metrics_of(&records(100.0), "example")
}

fn metrics_of(records: &[StepRecord], run_id: &str) -> TrainingMetrics {
    let train = 20 * TOKENS_PER_STEP;
    let epochs = Epoch::of_run(records, &rank_steps(records), train, 2);
    let flops_per_token = 1_000_000;
    TrainingMetrics {
        schema_version: "2.0".to_owned(),
        run_id: run_id.to_owned(),
        timestamp_utc: "2026-01-31T12:00:00Z".to_owned(),
        git_commit: Some("0123abc".to_owned()),
        command_line: "gpt2 train".to_owned(),
        env: BTreeMap::new(),
        host: host(),
        hardware: Hardware {
            gpu_name: Some("Example GPU".to_owned()),
            gpu_count_visible: Some(2),
            world_size: 2,
            cuda_version: None,
            cluster: None,
            peak_flops: Some(1e12),
        },
        training_config: TrainingConfig {
            model_name: "gpt2".to_owned(),
            model_size: 124_439_808,
            seq_len: 16,
            epochs: 2.0,
            micro_batch_size_per_gpu: 2,
            grad_accum_steps: 2,
            global_batch_size: 8,
            lr: 6e-4,
            optimizer: "AdamW".to_owned(),
            precision: "bf16".to_owned(),
            dataset_name: "stories".to_owned(),
            dataset_subset_sizes: SubsetSizes { train, val: 512 },
        },
        summary: RunSummary::new(records, &epochs, flops_per_token, Some(1e12)),
        epochs,
        completion: Some(Completion {
            run_complete_file: RUN_COMPLETE.to_owned(),
            timestamp_utc: "2026-01-31T12:01:00Z".to_owned(),
        }),
        scheduler: Scheduler::default(),
        burn_version: "0.21.0".to_owned(),
        backend: "cuda".to_owned(),
        threads: 2,
        flops_per_token,
        phases: Phases {
            steps_sec: records.iter().filter_map(|record| record.step_ms).sum::<f64>() / 1e3,
            data_wait_sec: 0.2,
            ..Phases::default()
        },
        communication: None,
        losses: records
            .iter()
            .filter_map(|record| {
                Some(LossPoint {
                    step: record.step,
                    train: record.loss,
                    val: record.val_loss?,
                })
            })
            .collect(),
        floor_loss: None,
        host_peak_bytes: records.iter().filter_map(|record| record.host_peak_bytes).max(),
    }
}

fn host() -> Host {
    Host {
        hostname: Some("laptop".to_owned()),
        os: Some("Linux".to_owned()),
        cpu: None,
        cores: 2,
        memory_bytes: 1 << 33,
    }
}

/// Writes the files of a run into `dir`.
pub(crate) fn run_in(dir: &Path) -> RunFiles {
    write_run(dir, &records(100.0), "example");
    let ranks = [0, 1].map(|rank| json!({"rank": rank, "host": "laptop", "device": "Example GPU", "exit_code": 0}));
    let launcher = json!({
        "launcher": "gpt2",
        "command": "gpt2 train",
        "ranks": ranks,
        "variables": {"WORLD_SIZE": "2"},
        "start_utc": "2026-01-31T11:59:59Z",
        "end_utc": "2026-01-31T12:01:05Z",
    });
    let files = RunFiles { dir: dir.to_owned() };
    files.write(LAUNCHER_METADATA, &launcher.to_string());
    files
}

fn write_run(dir: &Path, records: &[StepRecord], run_id: &str) {
    fs::create_dir_all(dir).unwrap();
    let files = RunFiles { dir: dir.to_owned() };
    let lines = records
        .iter()
        .map(|record| serde_json::to_string(record).unwrap() + "\n");
    files.write(METRICS, &lines.collect::<String>());
    let lines = rank_steps(records)
        .into_iter()
        .map(|step| serde_json::to_string(&step).unwrap() + "\n");
    files.write(RANKS, &lines.collect::<String>());
    let metrics = metrics_of(records, run_id);
    files.write(TRAINING_METRICS, &serde_json::to_string_pretty(&metrics).unwrap());
    files.write(RUN_COMPLETE, &format!("{run_id} ended at 2026-01-31T12:01:00Z\n"));
    files.write(PLAN, "steps = 40\n");
}

/// Writes a study of one and two threads, a row that ran out of memory, and another program's, into `dir`.
pub(crate) fn study_in(dir: &Path) -> RunFiles {
    let row = |name: &str, threads: &str, step_ms: f64| {
        let records = records(step_ms);
        write_run(&dir.join("runs").join(name), &records, name);
        Row {
            name: name.to_owned(),
            peer: None,
            axes: BTreeMap::from([("threads".to_owned(), threads.to_owned())]),
            status: Status::Done,
            reason: None,
            predicted_memory_bytes: None,
            process_sec: Some(50.0),
            figures: Some(figures(&records[1..])),
            derived: None,
        }
    };
    let failed = Row {
        status: Status::OutOfMemory,
        reason: Some("the device is full".to_owned()),
        figures: None,
        ..row("four", "4", 1.0)
    };
    let steps: Vec<StepRecord> = records(80.0)[1..]
        .iter()
        .map(|record| StepRecord {
            val_loss: None,
            device_peak_bytes: Some(4 << 20),
            ..record.clone()
        })
        .collect();
    let peer_figures = Figures {
        mfu: None,
        breakdown: None,
        losses: Vec::new(),
        ..figures(&steps)
    };
    let printed = json!({
        "peer": "pytorch", "batch": 2, "seq": 16, "grad_accum": 4, "step_ms": peer_figures.all_step_ms,
        "peak_mem_mib": 4.0, "loss_last": peer_figures.loss_last,
    });
    let peer_dir = dir.join("runs/peer");
    fs::create_dir_all(&peer_dir).unwrap();
    fs::write(peer_dir.join("stdout.txt"), format!("a warning\n{printed}\n")).unwrap();
    let peer = Row {
        name: "peer".to_owned(),
        peer: Some("pytorch".to_owned()),
        figures: Some(peer_figures),
        ..row("one", "1", 100.0)
    };
    let mut study = Study {
        version: STUDY_VERSION,
        kind: StudyKind::Threads,
        made: Made {
            timestamp_utc: "2026-01-31T12:00:00Z".to_owned(),
            command_line: "gpt2 bench threads".to_owned(),
            gpt2_version: "0.1.0".to_owned(),
            git_commit: None,
            burn_version: "0.21.0".to_owned(),
            host: host(),
            devices: vec!["Example GPU".to_owned()],
        },
        settings: BTreeMap::new(),
        axes: vec!["threads".to_owned()],
        baseline: Some("one".to_owned()),
        rows: vec![row("one", "1", 100.0), row("two", "2", 50.0), failed, peer],
        conclusions: vec![Conclusion {
            goal: "fastest".to_owned(),
            row: Some("two".to_owned()),
            because: "2560 tokens/s".to_owned(),
        }],
        notes: Vec::new(),
        profile: None,
    };
    study.derive();
    let files = RunFiles { dir: dir.to_owned() };
    files.write(RESULTS, &serde_json::to_string_pretty(&study).unwrap());
    fs::write(dir.join("results.csv"), results_csv(&study)).unwrap();
    files
}

fn figures(records: &[StepRecord]) -> Figures {
    let times = |records: &[StepRecord]| records.iter().filter_map(|record| record.step_ms).collect::<Vec<_>>();
    let steady = steady_steps(records);
    let warmup_steps = records.len() - steady.len();
    let (all, timed) = (times(records), times(steady));
    let step_ms = Summary::of(&timed).unwrap();
    let settled = settled(&all).unwrap();
    let tokens_per_sec = TOKENS_PER_STEP as f64 / step_ms.p50 * 1e3;
    Figures {
        program: "gpt2".to_owned(),
        device: "Example GPU".to_owned(),
        tokens_per_step: TOKENS_PER_STEP,
        step_ms,
        tokens_per_sec,
        timed_sec: timed.iter().sum::<f64>() / 1e3,
        warmup_steps,
        warmup_sec: all[..warmup_steps].iter().sum::<f64>() / 1e3,
        first_step_sec: all[0] / 1e3,
        settled_after_steps: Some(settled.steps),
        settling_cost_sec: Some(settled.cost_ms / 1e3),
        peak_memory_bytes: records.iter().filter_map(StepRecord::peak_memory_bytes).max().unwrap(),
        mfu: Some(1e6 * tokens_per_sec / 1e12),
        losses: records.iter().filter_map(|record| record.loss).collect(),
        all_step_ms: all,
        loss_last: records.last().and_then(|record| record.loss),
        val_losses: records
            .iter()
            .filter_map(|record| Some((record.step, record.val_loss?)))
            .collect(),
        breakdown: breakdown(steady, &rank_steps(records)),
        ..Figures::default()
    }
}
