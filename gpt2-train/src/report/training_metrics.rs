//! `training_metrics.json` of a run that has ended, from what its process knows.

use crate::plan::{DataSummary, RunPlan};
use gpt2_backend::HostFacts;
use gpt2_model::cost;
use gpt2_records::{
    Communication, Completion, Epoch, Hardware, Host, LossPoint, Phases, RankStep, RunSummary, Scheduler, StepRecord,
    SubsetSizes, TrainingConfig, TrainingMetrics,
};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// What a report is made from: plain facts, gathered by the caller.
#[derive(Debug, Clone)]
pub struct RunOutcome<'a> {
    /// Name of the run.
    pub run_id: String,
    /// When this process began.
    pub started: SystemTime,
    /// When the run reached its end; none if it was stopped before.
    pub completed: Option<SystemTime>,
    /// Commit that the program was built from.
    pub git_commit: Option<String>,
    /// The program and its arguments.
    pub command_line: Vec<String>,
    /// Environment variables that matter, see [`gpt2_records::recorded_variables`].
    pub env: BTreeMap<String, String>,
    /// The machine.
    pub host: HostFacts,
    /// The device's name; none on the CPU.
    pub gpu_name: Option<String>,
    /// GPUs that the process could see.
    pub gpu_count_visible: Option<usize>,
    /// CUDA's version.
    pub cuda_version: Option<String>,
    /// The device's peak in the arithmetic that was used, in FLOP/s, if it is known.
    pub peak_flops: Option<f64>,
    /// The batch scheduler.
    pub scheduler: Scheduler,
    /// Burn's version.
    pub burn_version: String,
    /// The plan.
    pub plan: &'a RunPlan,
    /// The data.
    pub data: &'a DataSummary,
    /// Every record of the run, those from before a resumption included.
    pub records: &'a [StepRecord],
    /// What several ranks have told of their steps.
    pub rank_steps: &'a [RankStep],
    /// Where the time went.
    pub phases: Phases,
    /// How several ranks exchanged; none for one.
    pub communication: Option<Communication>,
}

/// Builds the report of a run.
pub fn training_metrics(outcome: RunOutcome<'_>) -> TrainingMetrics {
    let RunOutcome {
        plan, data, records, ..
    } = outcome;
    let flops_per_token = cost::flops_per_token(&plan.model, plan.batch.seq);
    let planned_tokens = plan.last_step().saturating_mul(plan.tokens_per_step());
    let epochs = Epoch::of_run(
        records,
        outcome.rank_steps,
        data.train_tokens,
        plan.batch.grad_accum as u64,
    );
    TrainingMetrics {
        schema_version: "2.0".to_owned(),
        run_id: outcome.run_id,
        timestamp_utc: utc(outcome.started),
        git_commit: outcome.git_commit,
        command_line: outcome.command_line.join(" "),
        env: outcome.env,
        host: Host {
            hostname: outcome.host.hostname,
            os: outcome.host.os,
            cpu: outcome.host.cpu,
            cores: outcome.host.cores,
            memory_bytes: outcome.host.memory_bytes,
        },
        hardware: Hardware {
            gpu_name: outcome.gpu_name,
            gpu_count_visible: outcome.gpu_count_visible,
            world_size: plan.machine.ranks,
            cuda_version: outcome.cuda_version,
            cluster: outcome.scheduler.cluster.clone(),
            peak_flops: outcome.peak_flops,
        },
        training_config: TrainingConfig {
            model_name: plan.preset.clone(),
            model_size: cost::parameters(&plan.model),
            seq_len: plan.batch.seq,
            epochs: planned_tokens as f64 / data.train_tokens as f64,
            micro_batch_size_per_gpu: plan.batch.micro_batch,
            grad_accum_steps: plan.batch.grad_accum,
            global_batch_size: plan.global_batch(),
            lr: plan.schedule.lr,
            optimizer: "AdamW".to_owned(),
            precision: plan.machine.precision.to_string(),
            dataset_name: data.name.clone(),
            dataset_subset_sizes: SubsetSizes {
                train: data.train_tokens,
                val: data.val_tokens,
            },
        },
        summary: RunSummary::new(records, &epochs, flops_per_token, outcome.peak_flops),
        epochs,
        completion: outcome.completed.map(|time| Completion {
            run_complete_file: "RUN_COMPLETE.txt".to_owned(),
            timestamp_utc: utc(time),
        }),
        scheduler: outcome.scheduler,
        burn_version: outcome.burn_version,
        backend: plan.machine.backend.to_string(),
        threads: plan.machine.threads,
        flops_per_token,
        phases: outcome.phases,
        communication: outcome.communication,
        losses: records
            .iter()
            .filter_map(|r| {
                Some(LossPoint {
                    step: r.step,
                    train: r.loss,
                    val: r.val_loss?,
                })
            })
            .collect(),
        floor_loss: data.floor,
        host_peak_bytes: records.iter().filter_map(|r| r.host_peak_bytes).max(),
    }
}

/// RFC 3339 in UTC, to the second.
fn utc(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
