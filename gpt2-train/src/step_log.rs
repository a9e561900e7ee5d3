//! `metrics.jsonl`: one JSON object a step, appended as the run goes and cut back when it resumes.

use crate::error::TrainError;
pub use gpt2_records::StepRecord;
use gpt2_records::{complete_lines, complete_records};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The open log of a run that is being trained.
#[derive(Debug)]
pub struct StepLog {
    path: PathBuf,
    file: File,
}

impl StepLog {
    /// Opens the log at `path` to go on after `step` steps; 0 starts from nothing.
    ///
    /// Lines of later steps are taken away at once or not at all: the steps will be taken again. The lines that stay are
    /// kept byte for byte. A last line that a killed process left half-written is dropped.
    ///
    /// # Errors
    /// [`TrainError::RecordDamaged`] for any other line that is no record, and I/O errors.
    pub fn open(path: impl Into<PathBuf>, step: u64) -> Result<Self, TrainError> {
        let path = path.into();
        let text = read_or_empty(&path)?;
        let kept: String = complete_lines(&text, &path)?
            .into_iter()
            // The evaluation before the first step is taken again when a run starts anew.
            .filter(|(_, record): &(&str, StepRecord)| step > 0 && record.step <= step)
            .map(|(line, _)| line)
            .collect();
        let file = reopen(&path, &text, &kept)?;
        Ok(Self { path, file })
    }

    /// Appends a line. It is with the operating system when this returns, so that it outlives the process being killed.
    ///
    /// # Errors
    /// [`TrainError::Io`] or [`TrainError::DiskFull`].
    pub fn append(&mut self, record: &StepRecord) -> Result<(), TrainError> {
        let mut line =
            serde_json::to_vec(record).map_err(|source| TrainError::io("write", &self.path, source.into()))?;
        line.push(b'\n');
        // One write, without a buffer: a line is torn only if the process dies inside it.
        self.file
            .write_all(&line)
            .map_err(|source| TrainError::io("write", &self.path, source))
    }

    /// Makes the lines so far durable. To be called before a checkpoint counts on them.
    ///
    /// # Errors
    /// [`TrainError::Io`] or [`TrainError::DiskFull`].
    pub fn sync(&mut self) -> Result<(), TrainError> {
        self.file
            .sync_data()
            .map_err(|source| TrainError::io("sync", &self.path, source))
    }
}

/// Reads every record of a log, for reports. A half-written last line, as of a run that is being trained, is left out.
///
/// # Errors
/// [`TrainError::Io`], or [`TrainError::RecordDamaged`] for any other line that is no record.
pub fn read_records(path: &Path) -> Result<Vec<StepRecord>, TrainError> {
    let text = fs::read_to_string(path).map_err(|source| TrainError::io("read", path, source))?;
    Ok(complete_records(&text, path)?)
}

/// Opens a log that holds `text`, to be appended to; of that, `kept` stays.
pub(crate) fn reopen(path: &Path, text: &str, kept: &str) -> Result<File, TrainError> {
    if kept != text {
        gpt2_base::fs::write(path, kept.as_bytes()).map_err(|source| TrainError::io("write", path, source))?;
    }
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map_err(|source| TrainError::io("open", path, source))
}

/// The text of a log; nothing if there is none yet.
pub(crate) fn read_or_empty(path: &Path) -> Result<String, TrainError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(TrainError::io("read", path, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(step: u64, loss: f64) -> StepRecord {
        StepRecord {
            step,
            tokens: step * 1024,
            loss: Some(loss),
            ..StepRecord::default()
        }
    }

    fn log_of(steps: u64) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = StepLog::open(&path, 0).unwrap();
        for step in 0..=steps {
            log.append(&record(step, 1.0 / (step + 1) as f64)).unwrap();
        }
        log.sync().unwrap();
        (dir, path)
    }

    #[test]
    fn what_was_not_measured_is_left_out() {
        let line = serde_json::to_string(&record(3, 2.5)).unwrap();
        assert_eq!(line, r#"{"step":3,"tokens":3072,"loss":2.5}"#);
    }

    #[test]
    fn resuming_cuts_later_steps_and_keeps_the_rest_to_the_byte() {
        let (_dir, path) = log_of(5);
        let before = fs::read_to_string(&path).unwrap();
        let mut log = StepLog::open(&path, 3).unwrap();
        log.append(&record(4, 0.5)).unwrap();
        let after = fs::read_to_string(&path).unwrap();
        let kept: String = before.split_inclusive('\n').take(4).collect();
        assert_eq!(after, kept + "{\"step\":4,\"tokens\":4096,\"loss\":0.5}\n");
    }

    #[test]
    fn a_new_start_empties_the_log() {
        let (_dir, path) = log_of(2);
        StepLog::open(&path, 0).unwrap();
        assert_eq!(read_records(&path).unwrap(), []);
    }

    #[test]
    fn a_half_written_last_line_is_dropped() {
        let (_dir, path) = log_of(2);
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"step\":3,\"tok");
        fs::write(&path, &text).unwrap();
        assert_eq!(read_records(&path).unwrap().len(), 3);
        StepLog::open(&path, 9).unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with("}\n"));
    }

    #[test]
    fn any_other_damage_is_reported_with_its_line() {
        let (_dir, path) = log_of(2);
        let text = fs::read_to_string(&path)
            .unwrap()
            .replacen("\"step\":1", "\"step\":x", 1);
        fs::write(&path, text).unwrap();
        let error = StepLog::open(&path, 2).unwrap_err();
        assert!(
            matches!(&error, TrainError::RecordDamaged(damaged) if damaged.line == 2),
            "{error}"
        );
    }

    #[test]
    fn a_missing_log_is_named() {
        let error = read_records(Path::new("no/metrics.jsonl")).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot read no/metrics.jsonl: "),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn losses_survive_the_file(loss in prop::num::f64::NORMAL, step in any::<u64>()) {
            let line = serde_json::to_string(&record(step % (1 << 50), loss)).unwrap();
            let back: StepRecord = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(back.loss.map(f64::to_bits), Some(loss.to_bits()));
        }
    }

    proptest! {
        // Each case writes and syncs files.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_log_torn_anywhere_opens_again(cut in 0..200_usize, step in 0..8_u64) {
            let (_dir, path) = log_of(5);
            let text = fs::read(&path).unwrap();
            fs::write(&path, &text[..cut.min(text.len())]).unwrap();
            StepLog::open(&path, step).unwrap();
            let records = read_records(&path).unwrap();
            prop_assert!(records.iter().all(|r| r.step <= step));
            prop_assert!(records.iter().map(|r| r.step).eq(0..records.len() as u64));
        }
    }
}
