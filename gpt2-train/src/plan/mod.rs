//! A run with nothing left open: every setting has its value, and every value has been judged.
//!
//! [`RunPlan::resolve`] is pure arithmetic on the settings and on what the caller found out about the machine and the data;
//! no device is touched. The plan is saved before the first step, and is itself a run file.

mod defaults;
mod describe;
mod environment;
mod resolve;
mod resume;
mod validate;
mod warnings;

pub use environment::{DataSummary, Environment};
pub use resume::ResumeRemark;
pub(crate) use validate::threads as check_threads;
pub use warnings::{Warning, divergence};

use crate::config::{Devices, RunConfig};
use crate::error::TrainError;
use crate::optimizer::{AdamWConfig, largest_share};
use crate::schedule::LrSchedule;
use gpt2_eval::TaskFile;
use gpt2_model::capabilities::{BackendKind, Capabilities};
use gpt2_model::cost::{self, GradientMemory};
use gpt2_model::{Gpt2Config, Operations, Precision, Recompute};
use std::path::{Path, PathBuf};

/// What a run does.
///
/// ```
/// use gpt2_model::capabilities::BackendKind;
/// use gpt2_train::config::RunConfig;
/// use gpt2_train::plan::{DataSummary, Environment, RunPlan};
///
/// let environment = Environment {
///     data: DataSummary { name: "stories".into(), train_tokens: 1_000_000, val_tokens: 50_000, floor: None },
///     default_run: "runs/demo".into(),
///     auto_backend: BackendKind::Ndarray,
///     cores: 2,
///     device: 0,
///     memory_bytes: None,
///     memory_is_of_host: true,
///     init_model: None,
/// };
/// let config = RunConfig { global_batch: Some(32), ..RunConfig::default() };
/// let plan = RunPlan::resolve(&config, &environment)?;
/// assert_eq!((plan.batch.micro_batch, plan.batch.grad_accum), (4, 8));
/// # Ok::<(), gpt2_train::TrainError>(())
/// ```
///
/// Each field, here and in the groups below, is the key of the same name in [`RunConfig`], which gives its unit.
#[derive(Debug, Clone, PartialEq)]
pub struct RunPlan {
    /// The run directory.
    pub run: PathBuf,
    /// The shards; none for the program's own stories.
    pub data: Option<PathBuf>,
    /// Seed of weights, data order and dropout.
    pub seed: u64,
    /// The preset that the model comes from (key `model`).
    pub preset: String,
    /// The model's shape (keys `n-layer`, `n-head`, `n-embd`, `block-size` and `dropout`).
    pub model: Gpt2Config,
    /// Weights to start from.
    pub init: Option<PathBuf>,
    /// Where and how it is computed.
    pub machine: Machine,
    /// What a step trains on.
    pub batch: BatchShape,
    /// The learning rate of each step.
    pub schedule: LrSchedule,
    /// AdamW's settings.
    pub optimizer: AdamWConfig,
    /// Largest global gradient norm; 0 does not clip.
    pub grad_clip: f64,
    /// When the run ends.
    pub limits: Limits,
    /// What comes every so many steps.
    pub intervals: Intervals,
    /// What the model is scored on.
    pub tasks: Tasks,
}

/// Where and how a run is computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The backend.
    pub backend: BackendKind,
    /// Number of the device of this process.
    pub device: usize,
    /// Processes that train together, one a device (key `devices`).
    pub ranks: usize,
    /// Operands of matrix products.
    pub precision: Precision,
    /// What the backward pass recomputes.
    pub recompute: Recompute,
    /// By which operations.
    pub operations: Operations,
    /// Whether each of several ranks keeps the moments of its share of the parameters alone.
    pub shard_optimizer: bool,
    /// CPU threads of this process.
    pub threads: usize,
}

impl Machine {
    /// Whether the optimizer is sharded: one rank has no other to share with.
    pub fn optimizer_is_sharded(&self) -> bool {
        self.shard_optimizer && self.ranks > 1
    }
}

/// What a step trains on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchShape {
    /// Sequences in a micro-step of a rank (key `batch`), B.
    pub micro_batch: usize,
    /// Tokens in a sequence, T.
    pub seq: usize,
    /// Micro-steps of a rank in an optimizer step.
    pub grad_accum: usize,
    /// Batches prepared ahead.
    pub prefetch: usize,
}

/// When a run ends: at the first limit that it reaches.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Optimizer steps.
    pub steps: u64,
    /// Training tokens.
    pub max_tokens: Option<u64>,
    /// Minutes of wall time.
    pub max_minutes: Option<f64>,
}

/// What comes every so many steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intervals {
    /// Steps between evaluations; 0 for never.
    pub eval_every: u64,
    /// Batches in an evaluation.
    pub eval_batches: usize,
    /// Steps between samples; 0 for never.
    pub sample_every: u64,
    /// Start of a sample.
    pub sample_prompt: String,
    /// Tokens in a sample.
    pub sample_tokens: usize,
    /// Steps between checkpoints; 0 for one at the end.
    pub checkpoint_every: u64,
    /// Checkpoints kept besides the best.
    pub keep: usize,
    /// Steps between printed lines.
    pub log_every: u64,
}

/// What the model is scored on meanwhile, besides the loss.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tasks {
    /// HellaSwag's examples.
    pub hellaswag: Option<PathBuf>,
    /// LAMBADA's.
    pub lambada: Option<PathBuf>,
    /// Steps between scores; 0 for at the end only.
    pub every: u64,
    /// At most so many examples of each.
    pub limit: Option<usize>,
}

impl Tasks {
    /// Their files.
    pub fn files(&self) -> impl Iterator<Item = TaskFile> {
        let hellaswag = self.hellaswag.clone().map(TaskFile::Hellaswag);
        hellaswag.into_iter().chain(self.lambada.clone().map(TaskFile::Lambada))
    }
}

impl RunPlan {
    /// Sequences in an optimizer step, over all ranks.
    pub fn global_batch(&self) -> usize {
        self.batch
            .micro_batch
            .saturating_mul(self.batch.grad_accum)
            .saturating_mul(self.machine.ranks)
    }

    /// Tokens in an optimizer step.
    pub fn tokens_per_step(&self) -> u64 {
        self.global_batch().saturating_mul(self.batch.seq) as u64
    }

    /// The step after which the limits in steps and tokens end the run; the limit in time may end it before.
    pub fn last_step(&self) -> u64 {
        let of_tokens = self
            .limits
            .max_tokens
            .map(|tokens| tokens.div_ceil(self.tokens_per_step()));
        of_tokens.map_or(self.limits.steps, |limit| limit.min(self.limits.steps))
    }

    /// What the backend does for this model.
    pub fn capabilities(&self) -> Capabilities {
        let capabilities = Capabilities::of(self.machine.backend, &self.model, self.machine.precision);
        match self.machine.operations {
            Operations::Kernels => capabilities,
            Operations::Reference => capabilities.in_plain_tensors(self.machine.precision),
        }
    }

    /// The device memory that a step needs, as predicted; of several ranks, that of the one that needs most.
    pub fn memory(&self) -> cost::Memory {
        self.memory_with(self.kept())
    }

    fn memory_with(&self, kept: cost::Kept) -> cost::Memory {
        let memory = cost::training_memory(&self.model, self.batch.micro_batch, self.batch.seq, kept);
        cost::Memory {
            optimizer: memory.optimizer - self.moments_elsewhere(),
            ..memory
        }
    }

    /// Bytes of the moments that the rank with most of them does not keep.
    fn moments_elsewhere(&self) -> u64 {
        if !self.machine.optimizer_is_sharded() {
            return 0;
        }
        let sizes = cost::parameter_sizes(&self.model);
        let elsewhere = sizes.iter().sum::<u64>() - largest_share(&sizes, self.machine.ranks);
        2 * size_of::<f32>() as u64 * elsewhere
    }

    /// How the forward pass is kept for the backward pass.
    fn kept(&self) -> cost::Kept {
        let capabilities = self.capabilities();
        cost::Kept {
            precision: self.machine.backend.stored(self.machine.precision),
            recompute: self.machine.recompute,
            scores: !capabilities.attention.is_kernel(),
            plain_tensors: self.machine.operations == Operations::Reference,
            logits_bytes: capabilities.logits_bytes,
            gradients: self.gradient_memory(self.batch.grad_accum > 1),
        }
    }

    /// Whether the gradients of a step lie where its activations did: those of one micro-step are used up before the
    /// next forward pass, and blocks that recompute everything keep hardly any activations. Several ranks sum theirs
    /// beside the backward pass, in memory of their own.
    pub(crate) fn reuses_activations(&self) -> bool {
        self.kept().gradients == GradientMemory::Activations
    }

    fn gradient_memory(&self, has_micro_steps: bool) -> GradientMemory {
        if has_micro_steps {
            GradientMemory::Summed
        } else if self.capabilities().gradients_reuse_activations
            && self.machine.recompute != Recompute::Block
            && self.machine.ranks == 1
        {
            GradientMemory::Activations
        } else {
            GradientMemory::Own
        }
    }

    /// Compares the predicted memory with what there is.
    ///
    /// # Errors
    /// [`TrainError::OutOfMemory`], with the largest batch that fits.
    pub fn check_memory(&self, available_bytes: u64) -> Result<(), TrainError> {
        let needed = self.memory().total();
        if needed <= available_bytes {
            return Ok(());
        }
        let without_sharding = available_bytes.saturating_add(self.moments_elsewhere());
        let largest_if = |has_micro_steps| {
            let kept = cost::Kept {
                gradients: self.gradient_memory(has_micro_steps),
                ..self.kept()
            };
            cost::largest_batch(&self.model, self.batch.seq, kept, without_sharding)
        };
        // A smaller micro-batch is one of several, or the step has other sequences.
        let (largest, may_accumulate) = match largest_if(true) {
            0 => (largest_if(false), false),
            largest => (largest, true),
        };
        Err(TrainError::OutOfMemory {
            batch: self.batch.micro_batch as u64,
            seq: self.batch.seq as u64,
            needed_bytes: Some(needed),
            available_bytes: Some(available_bytes),
            largest_batch: (largest > 0).then_some(largest as u64),
            may_accumulate,
        })
    }

    /// The plan as settings, all of them set. Resolving them gives this plan again.
    pub fn to_config(&self) -> RunConfig {
        RunConfig {
            run: Some(self.run.clone()),
            data: self.data.clone(),
            seed: Some(self.seed),
            model: Some(self.preset.clone()),
            n_layer: Some(self.model.n_layer),
            n_head: Some(self.model.n_head),
            n_embd: Some(self.model.n_embd),
            block_size: Some(self.model.block_size),
            dropout: Some(self.model.dropout),
            init: self.init.clone(),
            backend: Some(self.machine.backend.into()),
            device: (self.machine.ranks == 1).then_some(self.machine.device),
            devices: (self.machine.ranks > 1).then_some(Devices::Count(self.machine.ranks)),
            precision: Some(self.machine.precision),
            recompute: Some(self.machine.recompute),
            operations: Some(self.machine.operations),
            shard_optimizer: Some(self.machine.shard_optimizer),
            threads: Some(self.machine.threads),
            steps: Some(self.limits.steps),
            epochs: None,
            max_tokens: self.limits.max_tokens,
            max_minutes: self.limits.max_minutes,
            batch: Some(self.batch.micro_batch.into()),
            seq: Some(self.batch.seq),
            grad_accum: None,
            global_batch: Some(self.global_batch()),
            prefetch: Some(self.batch.prefetch),
            lr: Some(self.schedule.lr),
            min_lr: Some(self.schedule.min_lr),
            warmup: Some(self.schedule.warmup),
            schedule: Some(self.schedule.kind),
            decay_steps: Some(self.schedule.decay_steps),
            decay_fraction: Some(self.schedule.decay_fraction),
            weight_decay: Some(self.optimizer.weight_decay),
            beta1: Some(self.optimizer.beta1),
            beta2: Some(self.optimizer.beta2),
            eps: Some(self.optimizer.eps),
            grad_clip: Some(self.grad_clip),
            eval_every: Some(self.intervals.eval_every),
            eval_batches: Some(self.intervals.eval_batches),
            hellaswag: self.tasks.hellaswag.clone(),
            lambada: self.tasks.lambada.clone(),
            tasks_every: self.tasks.files().next().map(|_| self.tasks.every),
            tasks_limit: self.tasks.limit,
            sample_every: Some(self.intervals.sample_every),
            sample_prompt: Some(self.intervals.sample_prompt.clone()),
            sample_tokens: Some(self.intervals.sample_tokens),
            checkpoint_every: Some(self.intervals.checkpoint_every),
            keep: Some(self.intervals.keep),
            log_every: Some(self.intervals.log_every),
        }
    }

    /// The text of `plan.toml` and of `--dry-run`: what the run comes to, as comments, then every key.
    ///
    /// # Errors
    /// [`TrainError::NotToml`] if a path is not UTF-8.
    pub fn to_toml(&self, data: &DataSummary) -> Result<String, TrainError> {
        let mut text = String::new();
        for line in self.describe(data).lines() {
            text.extend(["# ", line, "\n"]);
        }
        Ok(text + "\n" + &self.to_config().to_toml()?)
    }

    /// Writes [`to_toml`](Self::to_toml) to `path`, atomically.
    ///
    /// # Errors
    /// [`TrainError::NotToml`] and I/O errors.
    pub fn save(&self, path: &Path, data: &DataSummary) -> Result<(), TrainError> {
        let text = self.to_toml(data)?;
        gpt2_base::fs::write(path, text.as_bytes()).map_err(|source| TrainError::io("write", path, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo(config: &RunConfig) -> RunPlan {
        RunPlan::resolve(config, &Environment::sample()).unwrap()
    }

    #[test]
    fn the_first_limit_ends_the_run() {
        let tokens = |n| {
            demo(&RunConfig {
                max_tokens: Some(n),
                steps: Some(100),
                ..RunConfig::default()
            })
            .last_step()
        };
        assert_eq!(tokens(1), 1);
        assert_eq!(tokens(512), 1);
        assert_eq!(tokens(513), 2);
        assert_eq!(tokens(u64::MAX), 100);
    }

    #[test]
    fn a_saved_plan_resolves_to_itself() {
        let environment = Environment::sample();
        let plan = demo(&RunConfig {
            max_minutes: Some(2.5),
            grad_accum: Some(3),
            ..RunConfig::default()
        });
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.toml");
        plan.save(&path, &environment.data).unwrap();
        let again = RunConfig::from_toml_file(&path).unwrap();
        assert_eq!(again, plan.to_config());
        assert_eq!(RunPlan::resolve(&again, &environment).unwrap(), plan);
    }

    #[test]
    fn ranks_share_the_moments() {
        let memory = |devices, shard_optimizer| {
            let plan = demo(&RunConfig {
                model: Some("gpt2".to_owned()),
                devices: Some(Devices::Count(devices)),
                shard_optimizer: Some(shard_optimizer),
                batch: Some(1.into()),
                ..RunConfig::default()
            });
            plan.check_memory(plan.memory().total()).unwrap();
            plan.check_memory(plan.memory().total() - 1).unwrap_err();
            plan.memory()
        };
        let whole = memory(2, false);
        assert_eq!(memory(1, true), whole);
        let shared = memory(2, true);
        assert!(shared.optimizer.abs_diff(whole.optimizer / 2) < 1 << 20, "{shared:?}");
        assert_eq!((shared.weights, shared.gradients), (whole.weights, whole.gradients));
    }

    #[test]
    fn gradients_lie_in_activations_that_are_kept_for_one_micro_step() {
        let memory = |change: &dyn Fn(&mut RunPlan)| {
            let mut plan = demo(&RunConfig::default());
            plan.machine.backend = BackendKind::Cuda;
            change(&mut plan);
            plan.kept().gradients
        };
        assert_eq!(memory(&|_| ()), GradientMemory::Activations);
        assert_eq!(memory(&|plan| plan.batch.grad_accum = 2), GradientMemory::Summed);
        let own: [&dyn Fn(&mut RunPlan); 5] = [
            &|plan| plan.machine.backend = BackendKind::Wgpu,
            &|plan| plan.machine.ranks = 2,
            &|plan| plan.machine.recompute = Recompute::Block,
            &|plan| plan.machine.operations = Operations::Reference,
            &|plan| plan.model.dropout = 0.1,
        ];
        for change in own {
            assert_eq!(memory(change), GradientMemory::Own);
        }
    }

    #[test]
    fn a_batch_may_fit_where_a_smaller_one_does_not() {
        let mut plan = demo(&RunConfig {
            model: Some("gpt2-xl".to_owned()),
            batch: Some(3.into()),
            ..RunConfig::default()
        });
        plan.machine.backend = BackendKind::Cuda;
        plan.machine.precision = Precision::Bf16;
        plan.batch.seq = 1024;
        // Four sequences have room for the gradients in their activations.
        let error = plan.check_memory(plan.memory().total() - 1).unwrap_err();
        assert!(
            matches!(
                error,
                TrainError::OutOfMemory {
                    batch: 3,
                    largest_batch: Some(4),
                    may_accumulate: false,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_batch_that_cannot_fit_names_the_largest_that_does() {
        let plan = demo(&RunConfig {
            seq: Some(256),
            ..RunConfig::default()
        });
        plan.check_memory(plan.memory().total()).unwrap();
        // Three sequences would fit, but not with the sum of gradients that the fourth then needs.
        let error = plan.check_memory(plan.memory().total() - 1).unwrap_err();
        assert!(
            matches!(
                error,
                TrainError::OutOfMemory {
                    batch: 4,
                    largest_batch: Some(1),
                    ..
                }
            ),
            "{error}"
        );
        let error = plan.check_memory(1).unwrap_err();
        assert!(
            matches!(
                error,
                TrainError::OutOfMemory {
                    largest_batch: None,
                    ..
                }
            ),
            "{error}"
        );
    }
}
