//! `launcher_metadata.json`: how the processes of a run were started, and how they ended.

use super::{Check, LAUNCHER_METADATA};
use gpt2_records::TrainingMetrics;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

/// How the processes of a run were started, and how they ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LauncherMetadata {
    /// Who started the processes, such as `gpt2`, `slurm` or `torchrun`.
    pub launcher: String,
    /// The command of each process.
    pub command: String,
    /// The processes, by rank.
    pub ranks: Vec<LauncherRank>,
    /// The variables that the launcher has set.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// When the first process was started.
    pub start_utc: String,
    /// When the last one had ended; null while one runs.
    pub end_utc: Option<String>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LauncherRank {
    /// Its number, from 0.
    pub rank: usize,
    /// Its machine.
    pub host: Option<String>,
    /// Its device.
    pub device: Option<String>,
    /// How it ended; null while it runs, or where a signal ended it.
    pub exit_code: Option<i32>,
}

/// Compares the file, if there is one, with the run.
pub(super) fn check(check: &mut Check<'_>, metrics: &TrainingMetrics) {
    if !check.file.exists() {
        return;
    }
    let Some(text) = check.read("what the launcher knows") else {
        return;
    };
    let metadata: LauncherMetadata = match serde_json::from_str(&text) {
        Ok(metadata) => metadata,
        Err(error) => return check.report("", format!("not the metadata of a launcher ({error})"), "one"),
    };
    check.equal("command", metadata.command.as_str(), &metrics.command_line);
    check.equal("ranks", metadata.ranks.len(), metrics.hardware.world_size);
    for (index, rank) in metadata.ranks.iter().enumerate() {
        check.equal(format!("ranks[{index}].rank"), rank.rank, index);
    }
    let start = time(check, "start_utc", &metadata.start_utc);
    let end = metadata.end_utc.as_deref().map(|end| time(check, "end_utc", end));
    if let (Some(start), Some(Some(end))) = (start, end)
        && end < start
    {
        let end = metadata.end_utc.clone().unwrap_or_default();
        check.report("end_utc", end, format!("not before start_utc, {}", metadata.start_utc));
    }
    if metrics.completion.is_none() {
        return;
    }
    if metadata.end_utc.is_none() {
        check.report("end_utc", "null", "a time, since the run is complete");
    }
    for (index, rank) in metadata.ranks.iter().enumerate() {
        if rank.exit_code != Some(0) {
            let code = rank
                .exit_code
                .map_or_else(|| "null".to_owned(), |code| code.to_string());
            check.report(
                format!("ranks[{index}].exit_code"),
                code,
                "0, since the run is complete",
            );
        }
    }
}

fn time(check: &mut Check<'_>, field: &str, text: &str) -> Option<SystemTime> {
    let time = humantime::parse_rfc3339(text).ok();
    if time.is_none() {
        check.report(field, format!("\"{text}\""), "a time such as 2026-01-31T12:00:00Z");
    }
    time
}

/// The file in a run's directory.
pub(super) fn path(dir: &Path) -> std::path::PathBuf {
    dir.join(LAUNCHER_METADATA)
}
