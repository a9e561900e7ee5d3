//! The log of a run that is being trained, read as it grows.
//!
//! A run that is resumed cuts its log back and goes on with other lines. Whoever follows must then forget what it has
//! read: the generation changes.

use gpt2_records::{StepRecord, complete_lines};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What has been read of a log.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    /// Changes when lines that were read are no longer there.
    generation: u64,
    lines: Vec<Line>,
    /// Bytes of the lines that were read.
    read: u64,
    /// Why the log cannot be read on.
    error: Option<String>,
}

/// A line, as it stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) step: u64,
    /// Its JSON, without the newline.
    pub(super) json: String,
}

impl Log {
    pub(super) fn new(path: PathBuf) -> Self {
        // Another server that followed the same run must not have the same generations.
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            path,
            generation: started.as_millis() as u64,
            lines: Vec::new(),
            read: 0,
            error: None,
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    pub(super) fn last_step(&self) -> Option<u64> {
        self.lines.last().map(|line| line.step)
    }

    /// The lines of later steps than `after`; all of them where it is none.
    pub(super) fn after(&self, after: Option<u64>) -> &[Line] {
        let start = after.map_or(0, |after| self.lines.partition_point(|line| line.step <= after));
        &self.lines[start..]
    }

    /// Reads what has been added. A log that is not there is empty; a half-written last line is left for the next time.
    pub(super) fn update(&mut self) {
        self.error = None;
        if !self.continues() {
            self.forget();
        }
        if let Err(error) = self.read_on() {
            self.error = Some(error);
        }
    }

    /// Whether the newest line that was read is still where it was.
    fn continues(&self) -> bool {
        let Some(newest) = self.lines.last() else {
            return true;
        };
        let length = newest.json.len() as u64 + 1;
        match read_at(&self.path, self.read - length, Some(length)) {
            Ok(bytes) => bytes.strip_suffix(b"\n") == Some(newest.json.as_bytes()),
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    }

    fn forget(&mut self) {
        self.generation += 1;
        self.lines.clear();
        self.read = 0;
    }

    fn read_on(&mut self) -> Result<(), String> {
        let bytes = match read_at(&self.path, self.read, None) {
            Ok(bytes) => bytes,
            // The run has not begun.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(format!("cannot read {}: {error}", self.path.display())),
        };
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let text = str::from_utf8(&bytes[..whole]).map_err(|error| format!("{}: {error}", self.path.display()))?;
        let lines = complete_lines::<StepRecord>(text, &self.path).map_err(|mut damaged| {
            damaged.line += self.lines.len();
            damaged.to_string()
        })?;
        self.lines.extend(lines.into_iter().map(|(line, record)| Line {
            step: record.step,
            json: line.trim_end_matches('\n').to_owned(),
        }));
        self.read += whole as u64;
        Ok(())
    }
}

/// The bytes from `start` on, `length` of them or up to the end.
fn read_at(path: &Path, start: u64, length: Option<u64>) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(length.unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn line(step: u64, loss: f64) -> String {
        format!("{{\"step\":{step},\"tokens\":{step},\"loss\":{loss}}}\n")
    }

    fn steps(log: &Log) -> Vec<u64> {
        log.after(None).iter().map(|line| line.step).collect()
    }

    #[test]
    fn what_is_added_is_read_once_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/metrics.jsonl");
        let mut log = Log::new(path.clone());
        log.update();
        assert_eq!((steps(&log), log.error()), (vec![], None));
        let generation = log.generation();

        fs::create_dir(dir.path().join("run")).unwrap();
        let text = line(0, 5.0) + &line(1, 4.0);
        // Torn inside the second line, and inside a character.
        fs::write(
            &path,
            [text.as_bytes(), "{\"step\":2,\"é".as_bytes()]
                .concat()
                .split_last()
                .unwrap()
                .1,
        )
        .unwrap();
        log.update();
        assert_eq!((steps(&log), log.error()), (vec![0, 1], None));
        fs::write(&path, text + &line(2, 3.0)).unwrap();
        log.update();
        assert_eq!(steps(&log), [0, 1, 2]);
        assert_eq!(log.after(Some(1)).len(), 1);
        assert_eq!(log.after(Some(9)), []);
        assert_eq!((log.generation(), log.last_step()), (generation, Some(2)));
    }

    #[test]
    fn a_log_that_was_cut_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = Log::new(path.clone());
        let first: String = (0..6).map(|step| line(step, 5.0)).collect();
        fs::write(&path, &first).unwrap();
        log.update();
        let generation = log.generation();

        // Cut to three lines.
        let cut: String = (0..3).map(|step| line(step, 5.0)).collect();
        fs::write(&path, &cut).unwrap();
        log.update();
        assert_eq!((steps(&log), log.generation()), (vec![0, 1, 2], generation + 1));

        // Cut, and grown past the place between two looks.
        let grown: String = (0..9)
            .map(|step| line(step, if step < 2 { 5.0 } else { 4.0 }))
            .collect();
        fs::write(&path, &grown).unwrap();
        log.update();
        assert_eq!((log.last_step(), log.generation()), (Some(8), generation + 2));
        assert!(log.after(Some(1))[0].json.contains("\"loss\":4"));

        fs::remove_file(&path).unwrap();
        log.update();
        assert_eq!((steps(&log), log.generation()), (vec![], generation + 3));
    }

    #[test]
    fn a_damaged_line_is_told_with_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = Log::new(path.clone());
        fs::write(&path, line(0, 5.0)).unwrap();
        log.update();
        fs::write(&path, line(0, 5.0) + "{\"step\":x}\n").unwrap();
        log.update();
        let error = log.error().unwrap();
        assert!(error.contains("metrics.jsonl:2: not a record of a step"), "{error}");
        assert_eq!(steps(&log), [0]);
        fs::write(&path, line(0, 5.0) + &line(1, 4.0)).unwrap();
        log.update();
        assert_eq!((steps(&log), log.error()), (vec![0, 1], None));
    }
}
