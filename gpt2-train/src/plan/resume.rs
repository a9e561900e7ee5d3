//! Which settings of a run may change when it is resumed.

use super::RunPlan;
use super::resolve::largest_batch;
use crate::config::{BatchSize, Devices, RunConfig, ScheduleKind};
use crate::error::{Difference, TrainError};
use serde_json::{Map, Value};
use std::fmt;
use std::path::Path;

/// Keys that say how long, where and how often, but not what is computed. All others make the run what it is.
const MAY_CHANGE: [&str; 27] = [
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
    "devices",
    "shard-optimizer",
    "threads",
    // Two of the three give the third, and `global-batch` may not change.
    "batch",
    "grad-accum",
    "prefetch",
    "eval-every",
    "eval-batches",
    "hellaswag",
    "lambada",
    "tasks-every",
    "tasks-limit",
    "sample-every",
    "sample-prompt",
    "sample-tokens",
    "checkpoint-every",
    "keep",
    "log-every",
    // Only the first start reads the weights to start from; they may be gone by now.
    "init",
];

impl RunConfig {
    /// The saved settings of a run, whose plan is at `path`, of this version or an earlier one.
    ///
    /// # Errors
    /// Those of [`RunConfig::from_toml_file`].
    pub fn from_plan(path: &Path) -> Result<Self, TrainError> {
        Ok(Self::from_toml_file(path)?.with_global_batch())
    }

    /// These saved settings with `flags` laid over them, so that each step trains on as many sequences as before, on however
    /// many devices: batch and accumulation follow.
    ///
    /// # Errors
    /// [`TrainError::InvalidValue`] if the devices, batch or accumulation that are asked for do not give the global batch, the
    /// steps end within the warm-up, or other weights are named to start from.
    pub fn resumed_with(mut self, mut flags: Self) -> Result<Self, TrainError> {
        if let Some(init) = &flags.init
            && self.init.as_ref() != Some(init)
        {
            return Err(TrainError::InvalidValue {
                key: "init",
                value: init.display().to_string(),
                expected: "none but those of the run's start: it goes on from its own checkpoint".into(),
                fix: "leave it out, or start a new run".into(),
            });
        }
        let global = flags.global_batch.or(self.global_batch);
        let of = |config: &Self| config.devices.as_ref().map_or(1, Devices::ranks);
        let ranks = if flags.device.is_some() && flags.devices.is_none() {
            1
        } else {
            flags.devices.as_ref().map_or_else(|| of(&self), Devices::ranks)
        };
        if ranks != of(&self) {
            self.threads = None;
        }
        if let (Some(steps), Some(warmup)) = (flags.steps, self.warmup)
            && steps < warmup
        {
            return Err(TrainError::InvalidValue {
                key: "steps",
                value: steps.to_string(),
                expected: format!("at least {warmup}, the steps of the run's warm-up"),
                fix: "leave it out, or start a new run".into(),
            });
        }
        if let Some(global) = global
            && !global.is_multiple_of(ranks.max(1))
        {
            return Err(TrainError::InvalidValue {
                key: "devices",
                value: ranks.to_string(),
                expected: format!("a number that divides {global}, the global batch of the run"),
                fix: "train on another number of devices".into(),
            });
        }
        if flags.batch == Some(BatchSize::Auto) && flags.grad_accum.is_some() {
            return Err(TrainError::Conflict {
                first: "batch",
                second: "grad-accum",
            });
        }
        if let (Some(global), Some(micro_steps)) = (global, flags.grad_accum.take()) {
            let at_once = micro_steps.saturating_mul(ranks);
            let asked = flags.batch.and_then(BatchSize::sequences);
            let batch = asked.unwrap_or(global / at_once.max(1));
            if batch.saturating_mul(at_once) != global {
                return Err(TrainError::InvalidValue {
                    key: "grad-accum",
                    value: micro_steps.to_string(),
                    expected: format!("`batch` × `grad-accum` × devices to be {global}, the global batch of the run"),
                    fix: "leave it out, and it follows from `batch`".into(),
                });
            }
            flags.batch = Some(batch.into());
        } else if let (Some(global), Some(BatchSize::Sequences(batch))) = (global, flags.batch) {
            if batch > 0 && !global.is_multiple_of(batch.saturating_mul(ranks)) {
                return Err(TrainError::InvalidValue {
                    key: "batch",
                    value: batch.to_string(),
                    expected: format!("`batch` × devices ({ranks}) to divide {global}, the global batch of the run"),
                    fix: format!("try {}", largest_batch(global, batch, ranks).unwrap_or(1)),
                });
            }
        } else if let (Some(global), Some(BatchSize::Sequences(batch))) = (global, self.batch) {
            self.batch = largest_batch(global, batch, ranks).map(BatchSize::from).or(self.batch);
        }
        // Steps that were the tokens' alone follow them.
        let tokens_per_step = self.seq.zip(global).map(|(seq, sequences)| (seq * sequences) as u64);
        let of_tokens = self
            .max_tokens
            .zip(tokens_per_step)
            .map(|(tokens, step)| tokens.div_ceil(step.max(1)));
        if flags.max_tokens.is_some() && of_tokens == self.steps {
            self.steps = None;
        }
        Ok(self.overlay(flags))
    }

    /// These settings of a saved plan with the global batch in the place of the accumulation, which plans of an earlier version
    /// hold, of one device each.
    #[must_use]
    pub fn with_global_batch(mut self) -> Self {
        if let (None, Some(BatchSize::Sequences(batch)), Some(micro_steps)) =
            (self.global_batch, self.batch, self.grad_accum.take())
        {
            self.global_batch = Some(batch * micro_steps);
        }
        self
    }

    /// Checks that `wanted`, laid over these saved settings of the run at `path`, goes on with the same run: of what is
    /// set in it, as opposed to what would follow from it.
    ///
    /// # Errors
    /// [`TrainError::ResumeMismatch`] lists every key that differs and may not.
    pub fn check_resume(&self, wanted: &Self, path: &Path) -> Result<(), TrainError> {
        let mut wanted = fields(wanted);
        wanted.retain(|_, value| !value.is_null());
        check(&fields(self), &wanted, path)
    }
}

impl RunPlan {
    /// Checks that resuming the run saved at `path` with this plan goes on with the same run.
    ///
    /// The usual way to this plan is the saved settings with the flags laid over them.
    ///
    /// # Errors
    /// [`TrainError::ResumeMismatch`] lists every key that differs and may not.
    pub fn check_resume(&self, saved: &RunConfig, path: &Path) -> Result<(), TrainError> {
        check(&fields(saved), &fields(&self.to_config()), path)
    }

    /// What should be said before this plan goes on after `step` of the run that was saved.
    pub fn resume_remark(&self, saved: &RunConfig, step: u64) -> Option<ResumeRemark> {
        let last = self.last_step();
        if step >= last {
            let limit = if self.limits.steps == last {
                "steps"
            } else {
                "max-tokens"
            };
            return Some(ResumeRemark::Finished { step, last, limit });
        }
        let of_tokens = saved.max_tokens.map(|tokens| tokens.div_ceil(self.tokens_per_step()));
        let saved_last = of_tokens.unwrap_or(u64::MAX).min(saved.steps.unwrap_or(u64::MAX));
        let past_decay =
            last > saved_last && last > self.schedule.decay_steps && self.schedule.kind != ScheduleKind::Constant;
        past_decay.then(|| ResumeRemark::PastDecay {
            first: step.max(self.schedule.decay_steps) + 1,
            last,
            lr: self.schedule.min_lr,
        })
    }
}

/// What should be said before a run goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum ResumeRemark {
    /// There is nothing left to train.
    Finished {
        /// The step that the run stands at.
        step: u64,
        /// The last step that it may take.
        last: u64,
        /// The key that ends it there.
        limit: &'static str,
    },
    /// The run was made longer than its schedule.
    PastDecay {
        /// The first step after the decay that will be taken.
        first: u64,
        /// The last step.
        last: u64,
        /// The learning rate of these steps.
        lr: f64,
    },
}

impl fmt::Display for ResumeRemark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished { step, last, limit } if step > last => write!(
                f,
                "the run is finished: it has taken {step} steps already, and `{limit}` allows {last}"
            ),
            Self::Finished { step, limit, .. } => {
                write!(
                    f,
                    "the run is finished: it has taken all {step} steps that `{limit}` allows"
                )
            }
            Self::PastDecay { first, last, lr } => write!(
                f,
                "steps {first} to {last} have the lowest learning rate, {lr}: the schedule of the run ends before them"
            ),
        }
    }
}

/// Compares the settings that are in `wanted`.
fn check(saved: &Map<String, Value>, wanted: &Map<String, Value>, path: &Path) -> Result<(), TrainError> {
    let differences: Vec<Difference> = wanted
        .iter()
        .filter(|(key, _)| !MAY_CHANGE.contains(&key.as_str()))
        .filter_map(|(key, wanted)| {
            let saved = saved.get(key).unwrap_or(&Value::Null);
            (saved != wanted).then(|| Difference {
                key: key.clone(),
                saved: shown(saved),
                wanted: shown(wanted),
            })
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
        let plan = RunPlan::resolve(&saved.clone().resumed_with(flags)?, &environment).unwrap();
        plan.check_resume(&saved, Path::new("runs/demo/plan.toml"))
    }

    #[test]
    fn a_run_of_so_many_tokens_goes_on_to_more() {
        let environment = Environment::sample();
        let resolve = |config: RunConfig| RunPlan::resolve(&config, &environment).unwrap();
        let of = |max_tokens, steps| RunConfig {
            max_tokens: Some(max_tokens),
            steps,
            ..RunConfig::default()
        };
        let last = |first: RunConfig, then: RunConfig| {
            let saved = resolve(first).to_config();
            resolve(saved.resumed_with(then).unwrap()).last_step()
        };
        let per_step = resolve(RunConfig::default()).tokens_per_step();
        assert_eq!(last(of(3 * per_step, None), of(10 * per_step, None)), 10);
        // Steps that were asked for stay the limit that they were.
        assert_eq!(last(of(3 * per_step, Some(5)), of(10 * per_step, None)), 5);
        assert_eq!(last(of(3 * per_step, None), of(10 * per_step, Some(4))), 4);
    }

    #[test]
    fn a_run_starts_from_its_weights_alone() {
        let from = |init: &str| RunConfig {
            init: Some(init.into()),
            ..RunConfig::default()
        };
        from("a").resumed_with(from("a")).unwrap();
        from("a").resumed_with(RunConfig::default()).unwrap();
        for saved in [from("a"), RunConfig::default()] {
            let error = saved.resumed_with(from("b")).unwrap_err();
            assert!(matches!(error, TrainError::InvalidValue { key: "init", .. }), "{error}");
        }
    }

    #[test]
    fn devices_batch_and_accumulation_may_change_under_one_global_batch() {
        let environment = Environment::sample();
        let resolve = |config: RunConfig| RunPlan::resolve(&config, &environment).unwrap();
        let saved = resolve(RunConfig {
            batch: Some(3.into()),
            grad_accum: Some(4),
            ..RunConfig::default()
        });
        let shape = |flags: RunConfig| {
            let plan = resolve(saved.to_config().resumed_with(flags)?);
            plan.check_resume(&saved.to_config(), Path::new("plan.toml"))?;
            assert_eq!(plan.global_batch(), 12);
            Ok::<_, TrainError>((plan.machine.ranks, plan.batch.micro_batch, plan.batch.grad_accum))
        };
        let devices = |n| Some(Devices::Count(n));
        let on = |n| RunConfig {
            devices: devices(n),
            ..RunConfig::default()
        };
        assert_eq!(shape(RunConfig::default()).unwrap(), (1, 3, 4));
        assert_eq!(shape(on(2)).unwrap(), (2, 3, 2));
        assert_eq!(shape(on(3)).unwrap(), (3, 2, 2));
        assert_eq!(shape(on(4)).unwrap(), (4, 3, 1));
        assert_eq!(
            shape(RunConfig {
                batch: Some(2.into()),
                ..on(2)
            })
            .unwrap(),
            (2, 2, 3)
        );
        assert_eq!(
            shape(RunConfig {
                grad_accum: Some(1),
                ..on(2)
            })
            .unwrap(),
            (2, 6, 1)
        );
        let message = shape(RunConfig {
            grad_accum: Some(5),
            ..on(1)
        })
        .unwrap_err()
        .to_string();
        assert!(
            message.contains("`grad-accum` is 5, expected `batch` × `grad-accum` × devices to be 12"),
            "{message}"
        );
        let refused = |flags: RunConfig| shape(flags).unwrap_err().to_string();
        assert_eq!(
            refused(RunConfig {
                batch: Some(5.into()),
                ..on(2)
            }),
            "`batch` is 5, expected `batch` × devices (2) to divide 12, the global batch of the run; try 3"
        );
        assert_eq!(
            refused(on(5)),
            "`devices` is 5, expected a number that divides 12, the global batch of the run; train on another number of devices"
        );
        // A plan of an earlier version.
        let old = RunConfig {
            global_batch: None,
            grad_accum: Some(4),
            ..saved.to_config()
        };
        let plan = resolve(old.with_global_batch().resumed_with(on(2)).unwrap());
        assert_eq!((plan.global_batch(), plan.batch.grad_accum), (12, 2));
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
            "runs/demo/plan.toml: cannot resume with other settings: \
             `global-batch` was 4, now 16, `seed` was 1337, now 1; \
             leave them out, or start a new run"
        );
    }

    #[test]
    fn what_was_set_is_named_and_not_what_follows_from_it() {
        let message = resumed(RunConfig {
            steps: Some(5),
            ..RunConfig::default()
        });
        assert_eq!(
            message.unwrap_err().to_string(),
            "`steps` is 5, expected at least 96, the steps of the run's warm-up; leave it out, or start a new run"
        );
    }

    #[test]
    fn only_what_was_set_is_held_against_the_saved_run() {
        let saved = RunPlan::resolve(&RunConfig::default(), &Environment::sample())
            .unwrap()
            .to_config();
        // Below the saved `min-lr`, which was not asked for.
        let flags = RunConfig {
            lr: Some(1e-5),
            steps: Some(800),
            ..RunConfig::default()
        };
        let error = saved.check_resume(&flags, Path::new("a/plan.toml")).unwrap_err();
        let expected = "a/plan.toml: cannot resume with other settings: `lr` was 0.005, now 0.00001;";
        assert!(error.to_string().starts_with(expected), "{error}");
    }

    #[test]
    fn it_is_said_that_a_run_is_finished_or_past_its_schedule() {
        let environment = Environment::sample();
        let saved = RunPlan::resolve(&RunConfig::default(), &environment)
            .unwrap()
            .to_config();
        let remark = |flags: RunConfig, step| {
            let plan = RunPlan::resolve(&saved.clone().overlay(flags), &environment).unwrap();
            plan.resume_remark(&saved, step).map(|remark| remark.to_string())
        };
        let steps = |steps| RunConfig {
            steps: Some(steps),
            ..RunConfig::default()
        };
        assert_eq!(remark(RunConfig::default(), 240), None);
        assert_eq!(remark(steps(300), 240), None);
        assert_eq!(
            remark(RunConfig::default(), 480).as_deref(),
            Some("the run is finished: it has taken all 480 steps that `steps` allows")
        );
        let tokens = RunConfig {
            max_tokens: Some(480 * 512),
            steps: Some(800),
            ..RunConfig::default()
        };
        assert!(remark(tokens, 480).unwrap().ends_with("`max-tokens` allows"));
        let fewer = RunConfig {
            max_tokens: Some(1000),
            ..RunConfig::default()
        };
        assert_eq!(
            remark(fewer, 480).as_deref(),
            Some("the run is finished: it has taken 480 steps already, and `max-tokens` allows 2")
        );
        assert_eq!(
            remark(steps(800), 480).as_deref(),
            Some("steps 481 to 800 have the lowest learning rate, 0.0005: the schedule of the run ends before them")
        );
    }

    #[test]
    fn every_key_that_may_change_is_a_key() {
        let keys = RunConfig::keys();
        assert!(MAY_CHANGE.iter().all(|key| keys.iter().any(|k| k == key)));
    }
}
