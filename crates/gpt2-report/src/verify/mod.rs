//! Whether the files of a run or a study are whole, and agree with each other.
//!
//! Nothing is taken on trust that can be computed again: figures are recomputed from the log of the steps, with the
//! functions that made them.

#[cfg(test)]
pub(crate) mod example;
mod launcher;
mod run;
mod schema;
mod study;

pub use launcher::{LauncherMetadata, LauncherRank};

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

const RESULTS: &str = "results.json";
const METRICS: &str = "metrics.jsonl";
const RANKS: &str = "ranks.jsonl";
const TRAINING_METRICS: &str = "training_metrics.json";
const RUN_COMPLETE: &str = "RUN_COMPLETE.txt";
const LAUNCHER_METADATA: &str = "launcher_metadata.json";
const PLAN: &str = "plan.toml";

/// How far recomputed numbers may be off: sums may have been made in another order.
const TOLERANCE: f64 = 1e-9;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub file: PathBuf,
    /// The field in it, or the line; empty where it is the whole file.
    pub field: String,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub expected: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            field,
            found,
            expected,
        } = self;
        let file = file.display();
        if field.is_empty() {
            write!(f, "{file} is {found}, expected {expected}")
        } else {
            write!(f, "{file}: `{field}` is {found}, expected {expected}")
        }
    }
}

/// Checks the directory of a run (with `training_metrics.json` or `metrics.jsonl`) or of a study (with `results.json`),
/// with its runs. Nothing found is nothing wrong.
pub fn verify(dir: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    if dir.join(RESULTS).exists() {
        study::check(dir, &mut findings);
    } else if dir.join(TRAINING_METRICS).exists() || dir.join(METRICS).exists() {
        run::check(dir, &mut findings);
    } else {
        findings.push(Finding {
            file: dir.to_owned(),
            field: String::new(),
            found: if dir.is_dir() {
                "a directory of something else".to_owned()
            } else {
                "no directory".to_owned()
            },
            expected: format!("a run (with {TRAINING_METRICS}) or a study (with {RESULTS})"),
        });
    }
    findings
}

/// A field, and how it is read from what holds it.
type Named<T, V> = (&'static str, fn(&T) -> V);

/// Collects what is wrong with one file.
struct Check<'a> {
    file: PathBuf,
    findings: &'a mut Vec<Finding>,
}

impl<'a> Check<'a> {
    fn new(file: PathBuf, findings: &'a mut Vec<Finding>) -> Self {
        Self { file, findings }
    }

    fn report(&mut self, field: impl Into<String>, found: impl fmt::Display, expected: impl fmt::Display) {
        self.findings.push(Finding {
            file: self.file.clone(),
            field: field.into(),
            found: found.to_string(),
            expected: expected.to_string(),
        });
    }

    fn equal<T: PartialEq + fmt::Display>(&mut self, field: impl Into<String>, found: T, expected: T) {
        if found != expected {
            self.report(field, found, expected);
        }
    }

    /// Numbers that may be missing, and were computed.
    fn close(&mut self, field: impl Into<String>, found: Option<f64>, expected: Option<f64>) {
        let agree = match (found, expected) {
            (Some(found), Some(expected)) => is_close(found, expected),
            (found, expected) => found.is_none() == expected.is_none(),
        };
        if !agree {
            let text = |value: Option<f64>| value.map_or_else(|| "nothing".to_owned(), |value| value.to_string());
            self.report(field, text(found), text(expected));
        }
    }

    /// Counts that may be missing.
    fn same(&mut self, field: impl Into<String>, found: Option<u64>, expected: Option<u64>) {
        if found != expected {
            let text = |value: Option<u64>| value.map_or_else(|| "nothing".to_owned(), |value| value.to_string());
            self.report(field, text(found), text(expected));
        }
    }

    /// The text of the file; none, and a finding, where it cannot be read.
    fn read(&mut self, expected: &str) -> Option<String> {
        match fs::read_to_string(&self.file) {
            Ok(text) => Some(text),
            Err(error) => {
                let found = match error.kind() {
                    ErrorKind::NotFound => "missing".to_owned(),
                    ErrorKind::InvalidData => "not text".to_owned(),
                    _ => format!("not readable ({error})"),
                };
                self.report("", found, expected);
                None
            }
        }
    }
}

fn is_close(found: f64, expected: f64) -> bool {
    let size = found.abs().max(expected.abs());
    let same = found.total_cmp(&expected).is_eq() || (found.is_nan() && expected.is_nan());
    same || (size.is_finite() && (found - expected).abs() <= TOLERANCE * size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_something_else_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let [finding] = verify(dir.path()).try_into().unwrap();
        assert_eq!(
            finding.to_string(),
            format!(
                "{} is a directory of something else, expected a run (with training_metrics.json) or a study \
                 (with results.json)",
                dir.path().display()
            )
        );
        assert_eq!(verify(Path::new("no/run"))[0].found, "no directory");
    }

    #[test]
    fn numbers_agree_to_nine_digits() {
        assert!(is_close(1.0, 1.0 + 1e-10) && is_close(0.0, 0.0) && is_close(f64::NAN, f64::NAN));
        assert!(!is_close(1.0, 1.0 + 1e-8) && !is_close(0.0, 1e-12) && !is_close(f64::NAN, 1.0));
        assert!(is_close(f64::INFINITY, f64::INFINITY) && !is_close(f64::INFINITY, 1.0));
    }
}
