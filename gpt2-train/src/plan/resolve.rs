//! From settings to a plan: what is absent gets its default, what is derived is derived.

use super::{BatchShape, Environment, Intervals, Limits, Machine, RunPlan, Tasks, defaults, validate};
use crate::config::{BackendChoice, BatchSize, Devices, RunConfig};
use crate::error::TrainError;
use crate::optimizer::AdamWConfig;
use crate::schedule::LrSchedule;
use gpt2_base::nearest_multiples;
use gpt2_model::cost::Kept;
use gpt2_model::{Gpt2Config, Recompute};

impl RunPlan {
    /// Fills in every setting and judges the result.
    ///
    /// # Errors
    /// [`TrainError::InvalidValue`] or [`TrainError::Conflict`] name the key; [`TrainError::Model`] an unknown preset.
    pub fn resolve(config: &RunConfig, environment: &Environment) -> Result<Self, TrainError> {
        let config = config.clone();
        let preset = preset_name(&config, environment);
        let model = model_shape(&config, &preset, environment)?;
        let size = defaults::of_size(&preset);

        let seq = config.seq.unwrap_or(size.seq.min(model.block_size));
        let ranks = ranks(&config)?;
        let (micro_batch, grad_accum) = batch_shape(&config, size.batch, ranks)?;
        let sequences = micro_batch.saturating_mul(grad_accum).saturating_mul(ranks);
        let tokens_per_step = sequences.saturating_mul(seq).max(1) as u64;
        let steps = config
            .steps
            .or(steps_of_epochs(&config, environment, tokens_per_step)?)
            // A limit in tokens alone is the length of the run, and the decay should end there.
            .or(config.max_tokens.map(|tokens| tokens.div_ceil(tokens_per_step)))
            .unwrap_or(size.steps);
        let lr = config.lr.unwrap_or(size.lr);
        let prompt = if config.data.is_none() {
            defaults::STORY_PROMPT
        } else {
            ""
        };

        let backend = config
            .backend
            .and_then(BackendChoice::kind)
            .unwrap_or(environment.auto_backend);
        let adamw = AdamWConfig::default();
        let mut plan = Self {
            run: config.run.unwrap_or_else(|| environment.default_run.clone()),
            seed: config.seed.unwrap_or(defaults::SEED),
            preset,
            model,
            init: config.init,
            machine: Machine {
                backend,
                device: config.device.unwrap_or(environment.device),
                ranks,
                precision: config.precision.unwrap_or_default(),
                recompute: config.recompute.unwrap_or_default(),
                operations: config.operations.unwrap_or_default(),
                shard_optimizer: config.shard_optimizer.unwrap_or_default(),
                threads: config.threads.unwrap_or(environment.cores),
            },
            batch: BatchShape {
                micro_batch,
                seq,
                grad_accum,
                prefetch: config.prefetch.unwrap_or(defaults::PREFETCH),
            },
            schedule: LrSchedule {
                kind: config.schedule.unwrap_or_default(),
                lr,
                min_lr: config.min_lr.unwrap_or(lr / defaults::MIN_LR_DIVISOR),
                warmup: config.warmup.unwrap_or(0),
                decay_steps: config.decay_steps.unwrap_or(0),
                decay_fraction: config.decay_fraction.unwrap_or(defaults::DECAY_FRACTION),
            },
            optimizer: AdamWConfig {
                beta1: config.beta1.unwrap_or(adamw.beta1),
                beta2: config.beta2.unwrap_or(adamw.beta2),
                eps: config.eps.unwrap_or(adamw.eps),
                weight_decay: config.weight_decay.unwrap_or(adamw.weight_decay),
            },
            grad_clip: config.grad_clip.unwrap_or(defaults::GRAD_CLIP),
            limits: Limits {
                steps,
                max_tokens: config.max_tokens,
                max_minutes: config.max_minutes,
            },
            intervals: Intervals {
                eval_every: config.eval_every.unwrap_or(size.eval_every),
                eval_batches: config.eval_batches.unwrap_or(size.eval_batches),
                sample_every: config.sample_every.unwrap_or(size.sample_every),
                sample_prompt: config.sample_prompt.unwrap_or_else(|| prompt.to_owned()),
                sample_tokens: config.sample_tokens.unwrap_or(defaults::SAMPLE_TOKENS),
                checkpoint_every: config.checkpoint_every.unwrap_or(size.checkpoint_every),
                keep: config.keep.unwrap_or(defaults::KEEP),
                log_every: config.log_every.unwrap_or(defaults::LOG_EVERY),
            },
            tasks: Tasks {
                hellaswag: config.hellaswag,
                lambada: config.lambada,
                every: config.tasks_every.or(config.eval_every).unwrap_or(size.eval_every),
                limit: config.tasks_limit,
            },
            data: config.data,
        };
        validate::sizes(&plan, config.global_batch)?;
        validate::threads(plan.machine.threads, environment.cores)?;
        if config.batch == Some(BatchSize::Auto) {
            plan.fit_batch(config.recompute, environment)?;
        } else if config.recompute.is_none() {
            plan.machine.recompute = plan.default_recompute(environment.memory_bytes);
        }
        if config.decay_steps.is_none() {
            plan.schedule.decay_steps = plan.last_step();
        }
        if config.warmup.is_none() {
            plan.schedule.warmup = (plan.schedule.decay_steps / size.warmup_divisor).min(defaults::WARMUP_AT_MOST);
        }
        validate::rates(&plan)?;
        validate::surroundings(&plan, environment, config.global_batch)?;
        Ok(plan)
    }

    /// Takes the largest micro-batch that makes up the step and fits into the device's memory, with some left for others.
    fn fit_batch(&mut self, recompute: Option<Recompute>, environment: &Environment) -> Result<(), TrainError> {
        let memory_bytes = environment.memory_bytes.ok_or_else(|| TrainError::InvalidValue {
            key: "batch",
            value: BatchSize::Auto.to_string(),
            expected: "a number, where the device does not tell how much memory it has".into(),
            fix: "try 4 first".into(),
        })?;
        let of_rank = self.batch.micro_batch * self.batch.grad_accum;
        for micro_batch in (1..=of_rank).rev().filter(|batch| of_rank.is_multiple_of(*batch)) {
            self.batch.micro_batch = micro_batch;
            self.batch.grad_accum = of_rank / micro_batch;
            self.machine.recompute = recompute.unwrap_or_else(|| self.default_recompute(Some(memory_bytes)));
            let memory = self.memory();
            let checkpoint = if environment.memory_is_of_host {
                3 * memory.weights
            } else {
                0
            };
            if memory.total() + checkpoint <= memory_bytes / 10 * 9 {
                break;
            }
        }
        // Where not even one sequence fits, the run is refused as with any other batch.
        Ok(())
    }

    /// Nothing is recomputed while the step then takes at most half of the device's memory: it is what others, and larger
    /// batches, have left.
    fn default_recompute(&self, memory_bytes: Option<u64>) -> Recompute {
        let kept = Kept {
            recompute: Recompute::None,
            ..self.kept()
        };
        match memory_bytes {
            Some(bytes) if self.memory_with(kept).total() <= bytes / 2 => Recompute::None,
            _ => self.capabilities().saving_recompute,
        }
    }
}

/// The preset that is named, or the one that the initial weights have the shape of.
fn preset_name(config: &RunConfig, environment: &Environment) -> String {
    if let Some(name) = &config.model {
        return name.clone();
    }
    let Some(init) = &environment.init_model else {
        return defaults::MODEL.to_owned();
    };
    let alike = Gpt2Config::PRESETS.into_iter().find(|name| {
        Gpt2Config::preset(name).is_ok_and(|preset| {
            Gpt2Config {
                dropout: init.dropout,
                ..preset
            } == *init
        })
    });
    alike.unwrap_or("gpt2").to_owned()
}

/// The preset, or the initial weights' shape if no preset is named, with single keys over it.
fn model_shape(config: &RunConfig, preset: &str, environment: &Environment) -> Result<Gpt2Config, TrainError> {
    let base = match &environment.init_model {
        Some(init) if config.model.is_none() => init.clone(),
        Some(init) => Gpt2Config {
            vocab_size: init.vocab_size,
            variant: init.variant,
            ..Gpt2Config::preset(preset)?
        },
        None => Gpt2Config::preset(preset)?,
    };
    let model = Gpt2Config {
        vocab_size: base.vocab_size,
        block_size: config.block_size.unwrap_or(base.block_size),
        n_layer: config.n_layer.unwrap_or(base.n_layer),
        n_head: config.n_head.unwrap_or(base.n_head),
        n_embd: config.n_embd.unwrap_or(base.n_embd),
        // Published weights say how they were trained; here dropout is a setting of this run alone.
        dropout: config.dropout.unwrap_or(0.0),
        variant: base.variant,
    };
    if let Some(init) = &environment.init_model {
        for (key, value, expected) in [
            ("n-layer", model.n_layer, init.n_layer),
            ("n-head", model.n_head, init.n_head),
            ("n-embd", model.n_embd, init.n_embd),
            ("block-size", model.block_size, init.block_size),
        ] {
            if value != expected {
                return Err(TrainError::InvalidValue {
                    key,
                    value: value.to_string(),
                    expected: format!("{expected}, as in the weights of `init`"),
                    fix: "drop `model` and this key to take the shape from the weights".into(),
                });
            }
        }
    }
    Ok(model)
}

/// The steps in which the passes over the data end that `epochs` asks for.
fn steps_of_epochs(
    config: &RunConfig,
    environment: &Environment,
    tokens_per_step: u64,
) -> Result<Option<u64>, TrainError> {
    let Some(epochs) = config.epochs else {
        return Ok(None);
    };
    if config.steps.is_some() {
        return Err(TrainError::Conflict {
            first: "steps",
            second: "epochs",
        });
    }
    if !(epochs.is_finite() && epochs > 0.0) {
        return Err(TrainError::InvalidValue {
            key: "epochs",
            value: epochs.to_string(),
            expected: "a number above 0".into(),
            fix: "use `steps` for a length in optimizer steps".into(),
        });
    }
    let steps = epochs * environment.data.train_tokens as f64 / tokens_per_step as f64;
    Ok(Some(steps.ceil().max(1.0) as u64))
}

/// How many processes train together.
fn ranks(config: &RunConfig) -> Result<usize, TrainError> {
    match (&config.devices, config.device) {
        (Some(_), Some(_)) => Err(TrainError::Conflict {
            first: "device",
            second: "devices",
        }),
        (devices, _) => Ok(devices.as_ref().map_or(1, Devices::ranks)),
    }
}

/// Batch and accumulation of a rank, from `batch` with `grad-accum` or `global-batch`.
fn batch_shape(config: &RunConfig, default_batch: usize, ranks: usize) -> Result<(usize, usize), TrainError> {
    let asked = config.batch.and_then(BatchSize::sequences);
    let Some(global) = config.global_batch else {
        if config.batch == Some(BatchSize::Auto) {
            return Err(TrainError::InvalidValue {
                key: "batch",
                value: BatchSize::Auto.to_string(),
                expected: "together with `global-batch`, the sequences of a step".into(),
                fix: "set `global-batch`, or give a number".into(),
            });
        }
        return Ok((asked.unwrap_or(default_batch), config.grad_accum.unwrap_or(1)));
    };
    if config.grad_accum.is_some() {
        return Err(TrainError::Conflict {
            first: "grad-accum",
            second: "global-batch",
        });
    }
    let unasked = match config.batch {
        // A larger one is looked for once the model is known.
        Some(BatchSize::Auto) => 1,
        _ => default_batch.min(global / ranks),
    };
    let batch = asked.unwrap_or(unasked).max(1);
    let at_once = batch.saturating_mul(ranks);
    if global > 0 && global.is_multiple_of(at_once) {
        return Ok((batch, global / at_once));
    }
    let expected = if ranks == 1 {
        format!("a multiple of `batch` ({batch})")
    } else {
        format!("a multiple of `batch` × ranks ({batch} × {ranks} = {at_once})")
    };
    let fix = format!("try {}", nearest_multiples(global, at_once));
    Err(TrainError::InvalidValue {
        key: "global-batch",
        value: global.to_string(),
        expected,
        fix: match largest_batch(global, batch, ranks) {
            Some(largest) if ranks > 1 => format!("{fix}, or a `batch` of {largest}"),
            _ => format!("{fix}, or another `batch`"),
        },
    })
}

/// The largest batch of at most `batch` sequences that makes a step of `global` sequences out of whole micro-steps.
pub(super) fn largest_batch(global: usize, batch: usize, ranks: usize) -> Option<usize> {
    let of_rank = global.is_multiple_of(ranks).then_some(global / ranks)?;
    (1..=batch.min(of_rank))
        .rev()
        .find(|batch| of_rank.is_multiple_of(*batch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt2_model::Variant;
    use gpt2_model::capabilities::BackendKind;

    fn resolve(config: &RunConfig) -> Result<RunPlan, TrainError> {
        RunPlan::resolve(config, &Environment::sample())
    }

    #[test]
    fn the_batch_that_fits_makes_up_the_step() {
        let resolved = |memory_bytes: Option<u64>, global_batch: Option<usize>, memory_is_of_host: bool| {
            let config = RunConfig {
                model: Some("gpt2".to_owned()),
                batch: Some(BatchSize::Auto),
                global_batch,
                ..RunConfig::default()
            };
            let environment = Environment {
                memory_bytes,
                memory_is_of_host,
                ..Environment::sample()
            };
            RunPlan::resolve(&config, &environment)
        };
        let batches = [4, 8, 16, 1 << 10].map(|gib| {
            let plan = resolved(Some(gib << 30), Some(24), false).unwrap();
            assert_eq!(plan.global_batch(), 24);
            assert!(plan.memory().total() <= gib << 30 || plan.batch.micro_batch == 1);
            plan.batch.micro_batch
        });
        // But for the last the step has several micro-steps, whose sum of gradients takes memory too.
        assert_eq!(batches, [1, 6, 12, 24]);
        // A checkpoint is copied there too.
        let on_host = resolved(Some(4 << 30), Some(24), true).unwrap();
        assert_eq!(on_host.batch.micro_batch, 1);
        let error = |memory_bytes, global_batch| {
            let error = resolved(memory_bytes, global_batch, false).unwrap_err();
            error.to_string()
        };
        assert!(error(None, Some(24)).contains("the device does not tell"));
        assert!(error(Some(1 << 34), None).contains("together with `global-batch`"));
    }

    #[test]
    fn nothing_set_is_a_complete_demo() {
        let plan = resolve(&RunConfig::default()).unwrap();
        assert_eq!(
            (plan.preset.as_str(), plan.model.n_layer, plan.model.n_embd),
            ("d3", 3, 96)
        );
        assert_eq!(
            (
                plan.batch.micro_batch,
                plan.batch.seq,
                plan.batch.grad_accum,
                plan.limits.steps
            ),
            (4, 128, 1, 480)
        );
        assert_eq!(
            (plan.schedule.lr, plan.schedule.warmup, plan.schedule.decay_steps),
            (5e-3, 96, 480)
        );
        assert_eq!(
            (
                plan.intervals.eval_every,
                plan.intervals.sample_every,
                plan.intervals.checkpoint_every
            ),
            (96, 96, 240)
        );
        assert_eq!((plan.machine.backend, plan.machine.threads), (BackendKind::Ndarray, 2));
        assert_eq!(
            (
                plan.optimizer.weight_decay,
                plan.optimizer.beta1,
                plan.optimizer.beta2,
                plan.optimizer.eps,
                plan.grad_clip
            ),
            (0.1, 0.9, 0.95, 1e-8, 1.0)
        );
        assert_eq!(plan.intervals.sample_prompt, "Once");
    }

    #[test]
    fn epochs_are_steps_over_all_tokens() {
        let with = |epochs, steps| {
            resolve(&RunConfig {
                epochs: Some(epochs),
                steps,
                ..RunConfig::default()
            })
        };
        // A million tokens, 512 a step.
        assert_eq!(with(1.0, None).unwrap().limits.steps, 1954);
        assert_eq!(with(2.5, None).unwrap().limits.steps, 4883);
        assert_eq!(with(1e-9, None).unwrap().limits.steps, 1);
        let plan = with(1.0, None).unwrap();
        assert_eq!((plan.schedule.decay_steps, plan.to_config().epochs), (1954, None));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(
                with(bad, None),
                Err(TrainError::InvalidValue { key: "epochs", .. })
            ));
        }
        assert!(matches!(with(1.0, Some(5)), Err(TrainError::Conflict { .. })));
    }

    #[test]
    fn single_keys_lie_over_the_preset() {
        let config = RunConfig {
            n_layer: Some(2),
            block_size: Some(64),
            dropout: Some(0.1),
            ..RunConfig::default()
        };
        let plan = resolve(&config).unwrap();
        let expected = Gpt2Config {
            n_layer: 2,
            block_size: 64,
            dropout: 0.1,
            ..Gpt2Config::preset("d3").unwrap()
        };
        assert_eq!(plan.model, expected);
        assert_eq!(plan.batch.seq, 64);
    }

    #[test]
    fn a_global_batch_gives_the_accumulation() {
        let global = |batch: Option<usize>, global| {
            resolve(&RunConfig {
                batch: batch.map(BatchSize::from),
                global_batch: Some(global),
                ..RunConfig::default()
            })
        };
        assert_eq!(global(Some(8), 64).unwrap().batch.grad_accum, 8);
        assert_eq!(global(None, 4).unwrap().batch.micro_batch, 4);
        assert_eq!(
            global(Some(8), 60).unwrap_err().to_string(),
            "`global-batch` is 60, expected a multiple of `batch` (8); try 56 or 64, or another `batch`"
        );
        let over_ranks = |batch: Option<usize>, global| {
            resolve(&RunConfig {
                batch: batch.map(BatchSize::from),
                global_batch: Some(global),
                devices: Some(Devices::Count(3)),
                ..RunConfig::default()
            })
        };
        let plan = over_ranks(Some(2), 24).unwrap();
        assert_eq!(
            (plan.batch.grad_accum, plan.global_batch(), plan.tokens_per_step()),
            (4, 24, 24 * 128)
        );
        assert_eq!(over_ranks(None, 6).unwrap().batch.micro_batch, 2);
        assert_eq!(
            over_ranks(Some(4), 30).unwrap_err().to_string(),
            "`global-batch` is 30, expected a multiple of `batch` × ranks (4 × 3 = 12); try 24 or 36, or a `batch` of 2"
        );
        assert!(
            global(None, 0)
                .unwrap_err()
                .to_string()
                .starts_with("`global-batch` is 0, ")
        );
        let both = RunConfig {
            grad_accum: Some(2),
            global_batch: Some(16),
            ..RunConfig::default()
        };
        assert!(matches!(resolve(&both).unwrap_err(), TrainError::Conflict { .. }));
    }

    #[test]
    fn a_limit_in_tokens_alone_is_the_length_and_ends_the_decay() {
        let plan = resolve(&RunConfig {
            max_tokens: Some(10_240),
            ..RunConfig::default()
        })
        .unwrap();
        assert_eq!((plan.limits.steps, plan.schedule.decay_steps), (20, 20));
    }

    #[test]
    fn memory_decides_what_is_recomputed() {
        let recompute = |backend, memory_bytes| {
            let environment = Environment {
                auto_backend: backend,
                memory_bytes,
                ..Environment::sample()
            };
            let config = RunConfig {
                model: Some("gpt2".to_owned()),
                ..RunConfig::default()
            };
            RunPlan::resolve(&config, &environment).unwrap().machine.recompute
        };
        for (backend, memory_bytes, expected) in [
            (BackendKind::Cuda, Some(80 << 30), Recompute::None),
            (BackendKind::Cuda, Some(4 << 30), Recompute::Gelu),
            (BackendKind::Cuda, None, Recompute::Gelu),
            (BackendKind::Ndarray, Some(4 << 30), Recompute::None),
        ] {
            assert_eq!(
                recompute(backend, memory_bytes),
                expected,
                "{backend} with {memory_bytes:?} bytes"
            );
        }
    }

    #[test]
    fn initial_weights_give_the_shape() {
        let tiny = Gpt2Config {
            vocab_size: 50_257,
            block_size: 32,
            n_layer: 2,
            n_head: 2,
            n_embd: 8,
            dropout: 0.1,
            variant: Variant::default(),
        };
        let dir = tempfile::tempdir().unwrap();
        let environment = Environment {
            init_model: Some(tiny.clone()),
            ..Environment::sample()
        };
        let config = RunConfig {
            init: Some(dir.path().into()),
            ..RunConfig::default()
        };
        let plan = RunPlan::resolve(&config, &environment).unwrap();
        assert_eq!(plan.model, Gpt2Config { dropout: 0.0, ..tiny });
        assert_eq!(RunPlan::resolve(&plan.to_config(), &environment).unwrap(), plan);

        let other = RunConfig {
            n_layer: Some(3),
            ..config.clone()
        };
        let message = RunPlan::resolve(&other, &environment).unwrap_err().to_string();
        assert!(
            message.starts_with("`n-layer` is 3, expected 2, as in the weights of `init`"),
            "{message}"
        );

        let foreign = Environment {
            init_model: Some(Gpt2Config {
                vocab_size: 512,
                ..environment.init_model.clone().unwrap()
            }),
            ..Environment::sample()
        };
        let message = RunPlan::resolve(&config, &foreign).unwrap_err().to_string();
        assert!(
            message.ends_with("expected weights for the 50257 tokens that the data is made of; these know 512; take those of a model with GPT-2's vocabulary"),
            "{message}"
        );

        let gpt2 = Environment {
            init_model: Gpt2Config::preset("gpt2").ok(),
            ..Environment::sample()
        };
        assert_eq!(RunPlan::resolve(&config, &gpt2).unwrap().preset, "gpt2");
    }

    #[test]
    fn an_unknown_preset_is_named() {
        let message = resolve(&RunConfig {
            model: Some("gpt3".into()),
            ..RunConfig::default()
        })
        .unwrap_err()
        .to_string();
        assert!(message.starts_with("unknown model preset `gpt3`"), "{message}");
    }
}
