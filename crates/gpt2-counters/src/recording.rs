//! Counts in a file: what was counted elsewhere, on a machine that allows it.
//!
//! The format is JSON of our own:
//!
//! ```json
//! {
//!   "version": 1,
//!   "from": "machine, command and date, for people",
//!   "measurements": [
//!     {
//!       "label": "attention",
//!       "counts": {
//!         "elapsed_sec": 1.5,
//!         "user_sec": 1.4,
//!         "system_sec": 0.1,
//!         "events": { "task_clock_ms": 1500.0, "cycles": 5.9e9, "uops_issued.any": 8.1e9 }
//!       }
//!     }
//!   ]
//! }
//! ```
//!
//! `label` names the piece of work and may be repeated: each time is a trial. `counts` are those of
//! [`Counts`](crate::Counts), of which `elapsed_sec` must be there. The output of `perf stat -x,` and `perf stat -j` is
//! read too.

use crate::counts::Counts;
use crate::error::CountersError;
use crate::perf_stat;
use crate::source::CounterSource;
use crate::top_down::top_down;
use gpt2_records::TopDown;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Version of the format. A file of another version is refused.
pub const RECORDING_VERSION: u32 = 1;

/// Counts of pieces of work, in the order in which they were counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// [`RECORDING_VERSION`].
    pub version: u32,
    /// Machine, command and date, for people.
    pub from: String,
    /// What was counted.
    pub measurements: Vec<Measurement>,
}

/// Counts of one piece of work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// What was done, such as `attention`.
    #[serde(default)]
    pub label: String,
    /// What was counted.
    pub counts: Counts,
}

impl Recording {
    /// Reads a recording, or the output of `perf stat -x,` or `perf stat -j` as one measurement.
    ///
    /// # Errors
    /// If the file cannot be read, is neither of the three, is of another version, or holds a value that is no count.
    pub fn read(path: &Path) -> Result<Self, CountersError> {
        let text = fs::read_to_string(path).map_err(|source| io_error("read", path, source))?;
        let recording = match serde_json::from_str::<Version>(&text) {
            Ok(Version { version }) if version != RECORDING_VERSION => {
                return Err(CountersError::RecordingVersion {
                    path: path.to_owned(),
                    found: version,
                    expected: RECORDING_VERSION,
                });
            }
            Ok(_) => serde_json::from_str(&text).map_err(|source| CountersError::NotARecording {
                path: path.to_owned(),
                source,
            })?,
            // One object that spreads over lines is meant to be a recording; `perf stat -j` has one a line.
            Err(source) if text.trim_start().starts_with('{') && !perf_stat::is_json(&text) => {
                return Err(CountersError::NotARecording {
                    path: path.to_owned(),
                    source,
                });
            }
            Err(_) => Self {
                version: RECORDING_VERSION,
                from: format!("perf stat, {}", path.display()),
                measurements: vec![Measurement {
                    label: String::new(),
                    counts: perf_stat::parse(&text, path)?,
                }],
            },
        };
        recording.check(path)?;
        Ok(recording)
    }

    /// Writes the recording, whole or not at all.
    ///
    /// # Errors
    /// [`CountersError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), CountersError> {
        let json = serde_json::to_string_pretty(self).map_err(|source| io_error("write", path, source.into()))?;
        gpt2_base::fs::write(path, (json + "\n").as_bytes()).map_err(|source| io_error("write", path, source))
    }

    fn check(&self, path: &Path) -> Result<(), CountersError> {
        for (index, Measurement { counts, .. }) in self.measurements.iter().enumerate() {
            let invalid = |name: &str, value, expected| CountersError::InvalidValue {
                path: path.to_owned(),
                measurement: index + 1,
                name: name.to_owned(),
                value,
                expected,
            };
            if !(counts.elapsed_sec > 0.0 && counts.elapsed_sec.is_finite()) {
                return Err(invalid("elapsed_sec", counts.elapsed_sec, "more than 0 seconds"));
            }
            let times = [("user_sec", counts.user_sec), ("system_sec", counts.system_sec)];
            let times = times.into_iter().filter_map(|(name, time)| Some((name, time?)));
            let events = counts.events.iter().map(|(name, &count)| (name.as_str(), count));
            for (name, value) in times.chain(events) {
                if !(value >= 0.0 && value.is_finite()) {
                    return Err(invalid(name, value, "a number from 0"));
                }
            }
        }
        Ok(())
    }

    /// The top-down metrics of all measurements, by label, marked as recorded.
    ///
    /// # Errors
    /// Those of [`top_down`](crate::top_down()) for any measurement.
    pub fn top_down(&self) -> Result<TopDown, CountersError> {
        let mut kinds: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for Measurement { label, counts } in &self.measurements {
            kinds.entry(label.clone()).or_default().push(top_down(counts)?);
        }
        Ok(TopDown {
            recorded: Some(self.from.clone()),
            kinds,
        })
    }
}

/// What every version has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

fn io_error(action: &'static str, path: &Path, source: std::io::Error) -> CountersError {
    CountersError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// A source whose counts are those of a recording, in its order. The work itself is not counted.
#[derive(Debug, Clone)]
pub struct RecordedCounters {
    path: PathBuf,
    recording: Recording,
    next: usize,
    is_started: bool,
}

impl RecordedCounters {
    /// Reads the recording at `path`.
    ///
    /// # Errors
    /// Those of [`Recording::read`].
    pub fn open(path: &Path) -> Result<Self, CountersError> {
        Ok(Self {
            path: path.to_owned(),
            recording: Recording::read(path)?,
            next: 0,
            is_started: false,
        })
    }

    /// The whole recording.
    pub fn recording(&self) -> &Recording {
        &self.recording
    }
}

impl CounterSource for RecordedCounters {
    fn describe(&self) -> String {
        format!("recorded: {}", self.recording.from)
    }

    fn start(&mut self) -> Result<(), CountersError> {
        if self.is_started {
            return Err(CountersError::AlreadyStarted);
        }
        self.is_started = true;
        Ok(())
    }

    fn stop(&mut self) -> Result<Counts, CountersError> {
        if !self.is_started {
            return Err(CountersError::NotStarted);
        }
        self.is_started = false;
        let held = self.recording.measurements.len();
        let measurement = self.recording.measurements.get(self.next);
        self.next += 1;
        measurement
            .map(|measurement| measurement.counts.clone())
            .ok_or_else(|| CountersError::RecordingExhausted {
                path: self.path.clone(),
                next: self.next,
                held,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::tests::published;
    use crate::missing::Missing;

    fn recordings() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings")
    }

    fn write(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("counts.json");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn error(text: &str) -> String {
        let (_dir, path) = write(text);
        let error = Recording::read(&path).unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error.replace(path.to_str().unwrap(), "counts.json")
    }

    #[test]
    fn a_recording_survives_the_file() {
        let mut counts = published();
        counts.missing.insert("slots".to_owned(), Missing::NoPmu);
        let recording = Recording {
            version: RECORDING_VERSION,
            from: "a test".to_owned(),
            measurements: vec![Measurement {
                label: "one thread".to_owned(),
                counts,
            }],
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("counts.json");
        recording.write(&path).unwrap();
        assert_eq!(Recording::read(&path).unwrap(), recording);
    }

    #[test]
    fn the_published_counts_come_through_the_trait() {
        let mut source = RecordedCounters::open(&recordings().join("threads-1.json")).unwrap();
        assert!(source.describe().starts_with("recorded: "));
        let (work, counts) = crate::count(&mut source, || 7).unwrap();
        assert_eq!((work, &counts), (7, &published()));
        let error = crate::count(&mut source, || ()).unwrap_err().to_string();
        assert!(
            error.ends_with("measurement 2 was asked for, expected at most 1; record more, or measure less"),
            "{error}"
        );
        assert!(matches!(source.stop(), Err(CountersError::NotStarted)));
    }

    #[test]
    fn what_is_no_recording_is_told() {
        assert_eq!(
            error(r#"{"version": 2, "shape": "unknown"}"#),
            "counts.json: `version` is 2, expected 1; record it again"
        );
        assert!(error("{\n\"version\": 1,\n\"from\": 3}").starts_with("counts.json: not a recording of counters: "));
        assert!(error("{\n").starts_with("counts.json: not a recording of counters: "));
        let with = |counts: &str| {
            error(&format!(
                r#"{{"version": 1, "from": "", "measurements": [{{"counts": {counts}}}]}}"#
            ))
        };
        assert_eq!(
            with(r#"{"elapsed_sec": 0.0}"#),
            "counts.json: measurement 1: `elapsed_sec` is 0, expected more than 0 seconds"
        );
        assert_eq!(
            with(r#"{"elapsed_sec": 1.0, "events": {"cycles": -1}}"#),
            "counts.json: measurement 1: `cycles` is -1, expected a number from 0"
        );
        assert!(with(r#"{"elapsed_sec": 1.0, "cycles": 3}"#).contains("unknown field `cycles`"));
        let missing = Recording::read(Path::new("no/counts.json")).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read no/counts.json: "), "{missing}");
    }

    #[test]
    fn trials_are_collected_by_label() {
        for (file, kinds) in [
            ("top-down-intel-metrics.json", 2),
            ("top-down-intel-skylake.json", 2),
            ("top-down-amd-zen4.json", 2),
        ] {
            let recording = Recording::read(&recordings().join(file)).unwrap();
            let top_down = recording.top_down().unwrap();
            assert_eq!(top_down.kinds.len(), kinds, "{file}");
            assert_eq!(top_down.recorded.as_deref(), Some(recording.from.as_str()));
            assert!(recording.from.starts_with("made by hand"), "{file}");
            for trial in top_down.kinds.values().flatten() {
                let sum = trial.retiring + trial.bad_speculation + trial.front_end + trial.back_end;
                assert!((sum - 1.0).abs() < 1e-9, "{file}: {trial:?}");
                assert!(
                    (trial.memory + trial.core - trial.back_end).abs() < 1e-12,
                    "{file}: {trial:?}"
                );
            }
        }
    }
}
