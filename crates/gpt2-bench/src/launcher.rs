//! `launcher_metadata.json` of a run that a study has started.

use crate::error::BenchError;
use crate::work::{WorkPaths, read_json, write_json};
use gpt2_records::{TrainingMetrics, recorded_variables};
use gpt2_report::verify::{LauncherMetadata, LauncherRank};
use std::time::{Duration, SystemTime};

/// Writes it beside the run's report. `time` is what its process took until now.
///
/// # Errors
/// If the report cannot be read or the file not written.
pub(crate) fn write_launcher_metadata(
    paths: &WorkPaths,
    exit_code: Option<i32>,
    time: Duration,
) -> Result<(), BenchError> {
    let metrics: TrainingMetrics = read_json(&paths.0.join("training_metrics.json"))?;
    let end = SystemTime::now();
    let utc = |time: SystemTime| humantime::format_rfc3339_seconds(time).to_string();
    let rank = |rank| LauncherRank {
        rank,
        host: metrics.host.hostname.clone(),
        device: metrics.hardware.gpu_name.clone().or_else(|| metrics.host.cpu.clone()),
        exit_code,
    };
    let ranks = (0..metrics.hardware.world_size).map(rank).collect();
    let metadata = LauncherMetadata {
        launcher: "gpt2".to_owned(),
        command: metrics.command_line,
        ranks,
        variables: recorded_variables(std::env::vars()),
        start_utc: utc(end - time),
        end_utc: Some(utc(end)),
    };
    write_json(&paths.0.join("launcher_metadata.json"), &metadata)
}
