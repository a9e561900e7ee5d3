//! `ranks.jsonl`: where the time of each step went on each rank. The ranks send rank 0 their lines without waiting for it.

use crate::error::TrainError;
use crate::step_log::{read_or_empty, reopen};
use gpt2_records::{RankStep, complete_records};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The open log, on rank 0.
#[derive(Debug)]
pub(crate) struct RankLog {
    path: PathBuf,
    file: File,
}

impl RankLog {
    /// Opens the log at `path` to go on after `step` steps: lines of later steps are taken away, those steps are taken again.
    ///
    /// # Errors
    /// [`TrainError::Io`] or [`TrainError::DiskFull`].
    pub(crate) fn open(path: PathBuf, step: u64) -> Result<Self, TrainError> {
        let text = read_or_empty(&path)?;
        let is_kept = |line: &&str| serde_json::from_str::<RankStep>(line).is_ok_and(|line| line.step <= step);
        let kept: String = text.split_inclusive('\n').filter(is_kept).collect();
        let file = reopen(&path, &text, &kept)?;
        Ok(Self { path, file })
    }

    /// Appends what ranks have sent, each a line.
    ///
    /// # Errors
    /// [`TrainError::Io`] or [`TrainError::DiskFull`].
    pub(crate) fn append(&mut self, lines: &[String]) -> Result<(), TrainError> {
        if lines.is_empty() {
            return Ok(());
        }
        let text = lines.join("\n") + "\n";
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|source| TrainError::io("write", &self.path, source))
    }
}

/// Reads every line of a log, for reports: nothing of a run of one rank, which has none.
///
/// # Errors
/// [`TrainError::Io`], or [`TrainError::RecordDamaged`] for a line that is no record.
pub fn read_rank_steps(path: &Path) -> Result<Vec<RankStep>, TrainError> {
    let text = read_or_empty(path)?;
    Ok(complete_records(&text, path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn steps_that_are_taken_again_are_not_in_it_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ranks.jsonl");
        let line = |step, rank| {
            let line = RankStep {
                step,
                rank,
                step_ms: 10.0,
                data_wait_ms: 1.0,
                host_to_device_ms: 1.0,
                rank_wait_ms: Some(2.0),
                communication_ms: Some(3.0),
                overlapped_communication_ms: None,
                compute_ms: 3.0,
                loss: 10.5,
                peak_memory_bytes: None,
                device_mem_bytes: None,
                device_reserved_bytes: None,
            };
            serde_json::to_string(&line).unwrap()
        };
        let mut log = RankLog::open(path.clone(), 0).unwrap();
        log.append(&[line(1, 0), line(1, 1)]).unwrap();
        log.append(&[line(2, 1)]).unwrap();
        fs::write(&path, fs::read_to_string(&path).unwrap() + "{\"step\": 2").unwrap();
        RankLog::open(path.clone(), 1).unwrap().append(&[line(2, 0)]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().collect::<Vec<_>>(), [line(1, 0), line(1, 1), line(2, 0)]);
    }
}
