//! `launcher_metadata.json` of a run that a study has started.

use crate::error::BenchError;
use crate::work::{WorkPaths, read_json, write_json};
use gpt2_records::{RankPlace, TrainingMetrics, recorded_variables};
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
    let alone = RankPlace {
        host: metrics.host.hostname,
        local_rank: 0,
        device: metrics.hardware.gpu_name.or(metrics.host.cpu).unwrap_or_default(),
        nvlinks: None,
    };
    let places = metrics.communication.map_or_else(|| vec![alone], |ranks| ranks.ranks);
    let ranks = places.into_iter().enumerate().map(|(rank, place)| LauncherRank {
        rank,
        host: place.host,
        device: Some(place.device),
        exit_code,
    });
    let metadata = LauncherMetadata {
        launcher: "gpt2".to_owned(),
        command: metrics.command_line,
        ranks: ranks.collect(),
        variables: recorded_variables(std::env::vars()),
        start_utc: utc(end - time),
        end_utc: Some(utc(end)),
    };
    write_json(&paths.0.join("launcher_metadata.json"), &metadata)
}
