//! Run files: TOML to [`RunConfig`] and back, with errors that point to the line and the key.

use super::RunConfig;
use crate::error::TrainError;
use gpt2_base::{nearest, other_name};
use std::fs;
use std::ops::Range;
use std::path::Path;
use toml::de::DeTable;

impl RunConfig {
    /// Reads a run file, which may also be the `plan.toml` of an earlier run.
    ///
    /// # Errors
    /// [`TrainError::Io`], or what [`RunConfig::from_toml`] finds.
    pub fn from_toml_file(path: &Path) -> Result<Self, TrainError> {
        let text = fs::read_to_string(path).map_err(|source| TrainError::io("read", path, source))?;
        Self::from_toml(&text, path)
    }

    /// Parses the text of a run file; `path` is for messages.
    ///
    /// # Errors
    /// [`TrainError::ConfigSyntax`], [`TrainError::UnknownKey`] and [`TrainError::KeyType`], each with its line.
    pub fn from_toml(text: &str, path: &Path) -> Result<Self, TrainError> {
        let table = DeTable::parse(text).map_err(|error| TrainError::ConfigSyntax {
            path: path.to_path_buf(),
            line: line_of(text, error.span()),
            reason: one_line(error.message()),
        })?;
        let table = table.get_ref();

        let known = Self::keys();
        let unknown = table.keys().filter(|key| !known.iter().any(|k| k == key.get_ref()));
        if let Some(key) = unknown.min_by_key(|key| key.span().start) {
            return Err(TrainError::UnknownKey {
                path: path.to_path_buf(),
                line: line_of(text, Some(key.span())),
                key: key.get_ref().to_string(),
                nearest: other_name(key.get_ref())
                    .map(str::to_owned)
                    .filter(|ours| known.contains(ours))
                    .or_else(|| nearest(key.get_ref(), known)),
            });
        }

        toml::from_str(text).map_err(|error| {
            let at = error.span().unwrap_or_default();
            let key = table
                .iter()
                .find(|(key, value)| key.span().start <= at.start && at.start < value.span().end);
            TrainError::KeyType {
                path: path.to_path_buf(),
                line: line_of(text, error.span()),
                key: key.map(|(key, _)| key.get_ref().to_string()).unwrap_or_default(),
                reason: one_line(error.message()),
            }
        })
    }

    /// These settings as the text of a run file; what is not set is left out.
    ///
    /// # Errors
    /// [`TrainError::NotToml`] if a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, TrainError> {
        toml::to_string(self).map_err(|source| TrainError::NotToml { source })
    }

    /// Every key of a run file.
    pub fn keys() -> Vec<String> {
        // Serialising the empty settings is the one way to the names that cannot forget a field.
        match serde_json::to_value(Self::default()) {
            Ok(serde_json::Value::Object(fields)) => fields.into_iter().map(|(key, _)| key).collect(),
            other => unreachable!("a struct of options serialises to an object, not {other:?}"),
        }
    }
}

/// Line of the start of `span`, from 1.
fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let start = span.map_or(0, |span| span.start);
    1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count()
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RunConfig, TrainError> {
        RunConfig::from_toml(text, Path::new("run.toml"))
    }

    fn message(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_file_in_kebab_case_is_read() {
        let config = parse("# a comment\nmodel = \"d6\"\nn-layer = 3\nlr = 1\nschedule = \"wsd\"\n").unwrap();
        assert_eq!(config.model.as_deref(), Some("d6"));
        assert_eq!((config.n_layer, config.lr), (Some(3), Some(1.0)));
        assert_eq!(config.schedule, Some(crate::config::ScheduleKind::Wsd));
        assert_eq!(config.batch, None);
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest() {
        assert_eq!(
            message("lr = 1e-3\n\nn_layer = 3\nzzz = 1\n"),
            "run.toml:3: unknown key `n_layer`; did you mean `n-layer`?"
        );
        assert_eq!(
            message("batch-size = 3\n"),
            "run.toml:1: unknown key `batch-size`; did you mean `batch`?"
        );
        assert_eq!(
            message("max_iters = 3\n"),
            "run.toml:1: unknown key `max_iters`; did you mean `steps`?"
        );
        assert_eq!(
            message("[train]\nlr = 1\n"),
            "run.toml:1: unknown key `train`; keys are the long flags of `gpt2 train`, without sections"
        );
    }

    #[test]
    fn a_wrong_type_names_its_key_and_what_was_expected() {
        assert_eq!(
            message("lr = 1e-3\nsteps = \"many\"\n"),
            "run.toml:2: key `steps`: invalid type: string \"many\", expected u64"
        );
        assert_eq!(
            message("backend = \"gpu\"\n"),
            "run.toml:1: key `backend`: unknown variant `gpu`, expected one of `auto`, `ndarray`, `flex`, `wgpu`, `cuda`"
        );
        assert!(message("batch = -1\n").starts_with("run.toml:1: key `batch`: "));
    }

    #[test]
    fn what_is_not_toml_names_its_line() {
        let message = message("lr = 1e-3\nsteps = = 3\n");
        assert!(message.starts_with("run.toml:2: not valid TOML: "), "{message}");
        assert_eq!(message.lines().count(), 1);
    }

    #[test]
    fn settings_survive_the_way_to_toml_and_back() {
        let config = RunConfig {
            run: Some("runs/a b".into()),
            lr: Some(3e-4),
            eps: Some(1e-8),
            seed: Some(u64::MAX),
            sample_prompt: Some("\"Once\"\n".into()),
            ..RunConfig::default()
        };
        assert_eq!(parse(&config.to_toml().unwrap()).unwrap(), config);
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_toml_cannot_hold_is_refused() {
        use std::os::unix::ffi::OsStrExt;
        let run = Path::new(std::ffi::OsStr::from_bytes(b"runs/\xff")).to_path_buf();
        let message = RunConfig {
            run: Some(run),
            ..RunConfig::default()
        }
        .to_toml()
        .unwrap_err()
        .to_string();
        assert!(message.starts_with("cannot write the settings as TOML: "), "{message}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = RunConfig::from_toml_file(Path::new("no/such.toml")).unwrap_err();
        assert!(error.to_string().starts_with("cannot read no/such.toml: "), "{error}");
    }
}
