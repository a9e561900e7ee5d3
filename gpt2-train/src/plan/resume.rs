//! Which settings of a run may change when it is resumed.

use super::RunPlan;
use crate::config::RunConfig;
use crate::error::TrainError;
use serde_json::{Map, Value};
use std::path::Path;

/// Keys that say how long, where and how often, but not what is computed. All others make the run what it is.
const MAY_CHANGE: [&str; 20] = [
    "run",
    // What the tokens are is held against the checkpoint; where they lie may change.
    "data",
    "steps",
    // Resolved into `steps`.
    "epochs",
    "max-tokens",
    "max-minutes",
    "backend",
    "device",
    "threads",
    "prefetch",
    "eval-every",
    "eval-batches",
    "sample-every",
    "sample-prompt",
    "sample-tokens",
    "checkpoint-every",
    "keep",
    "log-every",
    // Only the first start reads the weights to start from; they may be gone by now.
    "init",
    // Resolved into `grad-accum`, which may not change.
    "global-batch",
];

impl RunPlan {
    /// Checks that resuming the run saved at `path` with this plan goes on with the same run.
    ///
    /// The usual way to this plan is the saved settings with the flags laid over them.
    ///
    /// # Errors
    /// [`TrainError::ResumeMismatch`] lists every key that differs and may not.
    pub fn check_resume(&self, saved: &RunConfig, path: &Path) -> Result<(), TrainError> {
        let (saved, wanted) = (fields(saved), fields(&self.to_config()));
        let differences: Vec<String> = wanted
            .iter()
            .filter(|(key, _)| !MAY_CHANGE.contains(&key.as_str()))
            .filter_map(|(key, wanted)| {
                let saved = saved.get(key).unwrap_or(&Value::Null);
                (saved != wanted).then(|| format!("`{key}` was {}, now {}", shown(saved), shown(wanted)))
            })
            .collect();
        if differences.is_empty() {
            return Ok(());
        }
        Err(TrainError::ResumeMismatch {
            path: path.to_path_buf(),
            differences,
        })
    }
}

/// The settings by key. A path that is not UTF-8 cannot have been saved; it then differs from what was.
fn fields(config: &RunConfig) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "not set".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Environment;

    fn resumed(flags: RunConfig) -> Result<(), TrainError> {
        let environment = Environment::sample();
        let saved = RunPlan::resolve(&RunConfig::default(), &environment)
            .unwrap()
            .to_config();
        let plan = RunPlan::resolve(&saved.clone().overlay(flags), &environment).unwrap();
        plan.check_resume(&saved, Path::new("runs/demo/plan.toml"))
    }

    #[test]
    fn limits_intervals_and_the_machine_may_change() {
        resumed(RunConfig::default()).unwrap();
        resumed(RunConfig {
            steps: Some(800),
            max_minutes: Some(1.0),
            threads: Some(1),
            backend: Some(crate::config::BackendChoice::Flex),
            eval_every: Some(0),
            log_every: Some(1),
            ..RunConfig::default()
        })
        .unwrap();
    }

    #[test]
    fn what_makes_the_run_may_not() {
        let flags = RunConfig {
            seed: Some(1),
            global_batch: Some(16),
            data: Some("other".into()),
            ..RunConfig::default()
        };
        assert_eq!(
            resumed(flags).unwrap_err().to_string(),
            "runs/demo/plan.toml: cannot resume with other settings: `data` was not set, now other, \
             `grad-accum` was 1, now 4, `seed` was 1337, now 1; \
             drop these flags, or start a new run with another `--run`"
        );
    }

    #[test]
    fn every_key_that_may_change_is_a_key() {
        let keys = RunConfig::keys();
        assert!(MAY_CHANGE.iter().all(|key| keys.iter().any(|k| k == key)));
    }
}
