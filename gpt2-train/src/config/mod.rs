//! A run's settings as they are written: in a TOML file, as flags, or not at all.
//!
//! One flat namespace in kebab case is shared by files, flags and reports. What is absent here gets its value in
//! [`crate::plan`], which also judges the values; this module knows only their names and types.

mod batch_size;
mod choices;
mod devices;
mod file;
mod number_or_text;
mod schema;

pub use batch_size::BatchSize;
pub use choices::ScheduleKind;
pub use devices::Devices;
pub use gpt2_backend::BackendChoice;

use gpt2_model::{Operations, Precision, Recompute};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Everything that can be set about a run. Each field is a key of the run file and a long flag of `gpt2 train`.
///
/// Relative paths are taken from the directory in which the program runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RunConfig {
    /// Directory of the run: plan, metrics, samples and checkpoints.
    #[cfg_attr(feature = "clap", arg(long, value_name = "DIR", help_heading = "Run"))]
    pub run: Option<PathBuf>,
    /// Directory of token shards, or text: a file, a directory or a pattern, whose tokens `gpt2 train` makes in data/, a tenth
    /// of them for validation [default: a story corpus that the program makes itself].
    #[cfg_attr(feature = "clap", arg(long, value_name = "PATH", help_heading = "Run"))]
    pub data: Option<PathBuf>,
    /// Seed of the initial weights, the order of the data and dropout.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Run"))]
    pub seed: Option<u64>,
    /// Size of the model: d3, d4, d6, gpt2, gpt2-medium, gpt2-large or gpt2-xl [default: d3].
    #[cfg_attr(feature = "clap", arg(long, value_name = "PRESET", help_heading = "Model"))]
    pub model: Option<String>,
    /// Transformer blocks [default: the preset's].
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Model"))]
    pub n_layer: Option<usize>,
    /// Attention heads a block [default: the preset's].
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Model"))]
    pub n_head: Option<usize>,
    /// Width of the residual stream, a multiple of the heads [default: the preset's].
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Model"))]
    pub n_embd: Option<usize>,
    /// Longest sequence the model can see, in tokens [default: the preset's].
    #[cfg_attr(feature = "clap", arg(long, value_name = "TOKENS", help_heading = "Model"))]
    pub block_size: Option<usize>,
    /// Probability that an activation is dropped in training, in [0, 1) [default: 0].
    #[cfg_attr(feature = "clap", arg(long, value_name = "P", help_heading = "Model"))]
    pub dropout: Option<f64>,
    /// Start from the weights of a GPT-2: a directory of Hugging Face's files, a checkpoint, a file of llm.c's or GGUF.
    #[cfg_attr(feature = "clap", arg(long, value_name = "PATH", help_heading = "Model"))]
    pub init: Option<PathBuf>,
    /// Where to compute [default: auto].
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME", help_heading = "Machine"))]
    #[schemars(schema_with = "schema::backend")]
    pub backend: Option<BackendChoice>,
    /// Number of the device, from 0 [default: 0].
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Machine"))]
    pub device: Option<usize>,
    /// Train on several devices of this host together, one process each: how many, or which, as 0,2. On a CPU, how many
    /// processes.
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Machine"))]
    #[schemars(schema_with = "schema::devices")]
    pub devices: Option<Devices>,
    /// Type of the operands of matrix products [default: f32].
    #[cfg_attr(feature = "clap", arg(long, value_name = "TYPE", help_heading = "Machine", value_parser = precision_parser()))]
    #[schemars(schema_with = "schema::precision")]
    pub precision: Option<Precision>,
    /// Activations that the backward pass recomputes instead of keeping them [default: none, or gelu on CUDA where a
    /// step would take more than half of the device's memory].
    #[cfg_attr(feature = "clap", arg(long, value_name = "WHAT", help_heading = "Machine", value_parser = recompute_parser()))]
    #[schemars(schema_with = "schema::recompute")]
    pub recompute: Option<Recompute>,
    /// Whether our kernels compute, or plain tensors, for comparison [default: kernels].
    #[cfg_attr(feature = "clap", arg(long, value_name = "WHICH", help_heading = "Machine", value_parser = operations_parser()))]
    #[schemars(schema_with = "schema::operations")]
    pub operations: Option<Operations>,
    /// Of several devices, each keeps AdamW's moments of its share of the parameters alone, updates these and gives them to the
    /// others (ZeRO-1): less memory, the same bits.
    #[cfg_attr(feature = "clap", arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Machine"))]
    pub shard_optimizer: Option<bool>,
    /// CPU threads of each process [default: its share of the cores].
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Machine"))]
    pub threads: Option<usize>,
    /// Stop after so many optimizer steps.
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS", help_heading = "Limits"))]
    pub steps: Option<u64>,
    /// Stop after so many passes over the training tokens, rounded up to a whole step; instead of steps.
    #[cfg_attr(feature = "clap", arg(long, value_name = "PASSES", help_heading = "Limits"))]
    pub epochs: Option<f64>,
    /// Stop after so many training tokens, rounded up to a whole step.
    #[cfg_attr(feature = "clap", arg(long, value_name = "TOKENS", help_heading = "Limits"))]
    pub max_tokens: Option<u64>,
    /// Stop after so many minutes of wall time, those before a resume included.
    #[cfg_attr(feature = "clap", arg(long, value_name = "MINUTES", help_heading = "Limits"))]
    pub max_minutes: Option<f64>,
    /// Sequences in a micro-step: what must fit into a device's memory at once. With auto, the most that fit and divide
    /// global-batch.
    #[cfg_attr(feature = "clap", arg(long, value_name = "SEQUENCES", help_heading = "Batch"))]
    #[schemars(schema_with = "schema::batch_size")]
    pub batch: Option<BatchSize>,
    /// Tokens in a sequence, at most the block size.
    #[cfg_attr(feature = "clap", arg(long, value_name = "TOKENS", help_heading = "Batch"))]
    pub seq: Option<usize>,
    /// Micro-steps whose gradients are averaged into one optimizer step [default: 1].
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Batch"))]
    pub grad_accum: Option<usize>,
    /// Sequences in an optimizer step, over all devices; a multiple of the batch, instead of grad-accum.
    #[cfg_attr(feature = "clap", arg(long, value_name = "SEQUENCES", help_heading = "Batch"))]
    pub global_batch: Option<usize>,
    /// Batches that are prepared ahead of the training [default: 4].
    #[cfg_attr(feature = "clap", arg(long, value_name = "BATCHES", help_heading = "Batch"))]
    pub prefetch: Option<usize>,
    /// Highest learning rate.
    #[cfg_attr(feature = "clap", arg(long, value_name = "RATE", help_heading = "Learning rate"))]
    pub lr: Option<f64>,
    /// Learning rate at the end of the decay [default: a tenth of lr].
    #[cfg_attr(feature = "clap", arg(long, value_name = "RATE", help_heading = "Learning rate"))]
    pub min_lr: Option<f64>,
    /// Optimizer steps of linear warm-up [default: a twentieth of the steps, a fifth for d3 and d4; at most 700].
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS", help_heading = "Learning rate"))]
    pub warmup: Option<u64>,
    /// Shape after the warm-up [default: cosine].
    #[cfg_attr(feature = "clap", arg(long, value_name = "NAME", help_heading = "Learning rate"))]
    pub schedule: Option<ScheduleKind>,
    /// Optimizer step at which the decay reaches min-lr [default: the last step].
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS", help_heading = "Learning rate"))]
    pub decay_steps: Option<u64>,
    /// Last part of decay-steps in which the wsd schedule decays, in (0, 1] [default: 0.2].
    #[cfg_attr(feature = "clap", arg(long, value_name = "FRACTION", help_heading = "Learning rate"))]
    pub decay_fraction: Option<f64>,
    /// AdamW's decoupled weight decay, on matrices only [default: 0.1].
    #[cfg_attr(feature = "clap", arg(long, value_name = "X", help_heading = "Optimizer"))]
    pub weight_decay: Option<f64>,
    /// Decay of the gradient's running mean, in [0, 1) [default: 0.9].
    #[cfg_attr(feature = "clap", arg(long, value_name = "X", help_heading = "Optimizer"))]
    pub beta1: Option<f64>,
    /// Decay of the squared gradient's running mean, in [0, 1) [default: 0.95].
    #[cfg_attr(feature = "clap", arg(long, value_name = "X", help_heading = "Optimizer"))]
    pub beta2: Option<f64>,
    /// Added to AdamW's denominator [default: 1e-8].
    #[cfg_attr(feature = "clap", arg(long, value_name = "X", help_heading = "Optimizer"))]
    pub eps: Option<f64>,
    /// Largest global norm of the gradient; 0 does not clip [default: 1.0].
    #[cfg_attr(feature = "clap", arg(long, value_name = "NORM", help_heading = "Optimizer"))]
    pub grad_clip: Option<f64>,
    /// Steps between evaluations on the validation tokens; 0 for never.
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS", help_heading = "Intervals"))]
    pub eval_every: Option<u64>,
    /// Validation batches in an evaluation, at most all there are.
    #[cfg_attr(feature = "clap", arg(long, value_name = "BATCHES", help_heading = "Intervals"))]
    pub eval_batches: Option<usize>,
    /// Score the model on HellaSwag: its JSONL, or llm.c's .bin.
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE", help_heading = "Intervals"))]
    pub hellaswag: Option<PathBuf>,
    /// Score the model on LAMBADA: its JSONL.
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE", help_heading = "Intervals"))]
    pub lambada: Option<PathBuf>,
    /// Steps between scores on these; 0 for at the end only [default: as eval-every].
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS", help_heading = "Intervals"))]
    pub tasks_every: Option<u64>,
    /// The first so many examples of each of them [default: all].
    #[cfg_attr(feature = "clap", arg(long, value_name = "EXAMPLES", help_heading = "Intervals"))]
    pub tasks_limit: Option<usize>,
    /// Steps between samples of text; 0 for never.
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS", help_heading = "Intervals"))]
    pub sample_every: Option<u64>,
    /// What a sample starts with; empty for the start of a document.
    #[cfg_attr(feature = "clap", arg(long, value_name = "TEXT", help_heading = "Intervals"))]
    pub sample_prompt: Option<String>,
    /// Length of a sample, in tokens [default: 64].
    #[cfg_attr(feature = "clap", arg(long, value_name = "TOKENS", help_heading = "Intervals"))]
    pub sample_tokens: Option<usize>,
    /// Steps between checkpoints; 0 for one at the end only.
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS", help_heading = "Intervals"))]
    pub checkpoint_every: Option<u64>,
    /// Newest checkpoints that are kept; the best is always kept [default: 3].
    #[cfg_attr(feature = "clap", arg(long, value_name = "N", help_heading = "Intervals"))]
    pub keep: Option<usize>,
    /// Steps between printed lines [default: 10].
    #[cfg_attr(feature = "clap", arg(long, value_name = "STEPS", help_heading = "Intervals"))]
    pub log_every: Option<u64>,
}

impl RunConfig {
    /// Lays `flags` over these settings: what both set is taken from the flags.
    ///
    /// A flag for `grad-accum` or `global-batch` also takes back the other one of this file, since both say the same thing; so
    /// do `steps` and `epochs`, and `device` and `devices`.
    #[must_use]
    pub fn overlay(mut self, flags: Self) -> Self {
        // A struct literal, so that a new field that is forgotten here does not compile.
        macro_rules! flags_or_self {
            ($($field:ident)*) => { Self { $($field: flags.$field.or(self.$field)),* } };
        }
        if flags.grad_accum.is_some() {
            self.global_batch = None;
        }
        if flags.global_batch.is_some() {
            self.grad_accum = None;
        }
        if flags.device.is_some() {
            self.devices = None;
        }
        if flags.devices.is_some() {
            self.device = None;
        }
        if flags.steps.is_some() {
            self.epochs = None;
        }
        if flags.epochs.is_some() {
            self.steps = None;
        }
        flags_or_self! {
            run data seed
            model n_layer n_head n_embd block_size dropout init
            backend device devices precision recompute operations shard_optimizer threads
            steps epochs max_tokens max_minutes
            batch seq grad_accum global_batch prefetch
            lr min_lr warmup schedule decay_steps decay_fraction
            weight_decay beta1 beta2 eps grad_clip
            eval_every eval_batches hellaswag lambada tasks_every tasks_limit
            sample_every sample_prompt sample_tokens checkpoint_every keep log_every
        }
    }
}

/// Reads a word as [`Precision`], which belongs to a crate that knows no command line.
#[cfg(feature = "clap")]
pub fn precision_parser() -> impl clap::builder::TypedValueParser<Value = Precision> {
    word_parser(&Precision::ALL, Precision::word)
}

/// Reads a word as [`Recompute`], likewise.
#[cfg(feature = "clap")]
pub fn recompute_parser() -> impl clap::builder::TypedValueParser<Value = Recompute> {
    word_parser(&Recompute::ALL, Recompute::word)
}

/// Reads a word as [`Operations`], likewise.
#[cfg(feature = "clap")]
pub fn operations_parser() -> impl clap::builder::TypedValueParser<Value = Operations> {
    word_parser(&Operations::ALL, Operations::word)
}

#[cfg(feature = "clap")]
fn word_parser<T: Copy + Send + Sync + 'static>(
    choices: &'static [T],
    word: fn(T) -> &'static str,
) -> impl clap::builder::TypedValueParser<Value = T> {
    use clap::builder::{PossibleValuesParser, TypedValueParser as _};
    PossibleValuesParser::new(choices.iter().map(|&choice| word(choice))).map(move |given| {
        let chosen = choices.iter().find(|&&choice| word(choice) == given);
        *chosen.expect("a word of the list")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "clap")]
    #[test]
    fn words_are_spelt_as_in_run_files() {
        use clap::{Args as _, Command, FromArgMatches as _};
        let read = |flag: String| {
            let command = RunConfig::augment_args(Command::new("train"));
            let matches = command.try_get_matches_from(["train".to_owned(), flag]).unwrap();
            RunConfig::from_arg_matches(&matches).unwrap()
        };
        for precision in Precision::ALL {
            assert_eq!(read(format!("--precision={precision}")).precision, Some(precision));
            assert_eq!(
                toml::Value::try_from(precision).unwrap().as_str(),
                Some(precision.word())
            );
        }
        for recompute in Recompute::ALL {
            assert_eq!(read(format!("--recompute={recompute}")).recompute, Some(recompute));
            assert_eq!(
                toml::Value::try_from(recompute).unwrap().as_str(),
                Some(recompute.word())
            );
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = RunConfig {
            lr: Some(1e-3),
            seq: Some(64),
            ..RunConfig::default()
        };
        let flags = RunConfig {
            lr: Some(2e-3),
            batch: Some(4.into()),
            ..RunConfig::default()
        };
        let expected = RunConfig {
            lr: Some(2e-3),
            seq: Some(64),
            batch: Some(4.into()),
            ..RunConfig::default()
        };
        assert_eq!(file.overlay(flags), expected);
    }

    #[test]
    fn a_flag_replaces_the_other_way_to_say_it() {
        let file = RunConfig {
            grad_accum: Some(4),
            ..RunConfig::default()
        };
        let flags = RunConfig {
            global_batch: Some(32),
            ..RunConfig::default()
        };
        assert_eq!(file.clone().overlay(flags.clone()), flags);
        assert_eq!(flags.overlay(file.clone()), file);
        let [steps, epochs] = [(Some(10), None), (None, Some(2.0))].map(|(steps, epochs)| RunConfig {
            steps,
            epochs,
            ..RunConfig::default()
        });
        assert_eq!(steps.clone().overlay(epochs.clone()), epochs);
        assert_eq!(epochs.overlay(steps.clone()), steps);
    }

    #[cfg(feature = "clap")]
    #[test]
    fn help_tells_the_defaults_that_a_plan_takes() {
        use crate::plan::{Environment, RunPlan};
        use clap::{Args as _, Command};
        let resolve = |model: Option<&str>| {
            let config = RunConfig {
                model: model.map(str::to_owned),
                ..RunConfig::default()
            };
            RunPlan::resolve(&config, &Environment::sample()).unwrap()
        };
        let plan = resolve(None);
        let mut taken = serde_json::to_value(plan.to_config()).unwrap();
        // Saved as a part of the global batch.
        taken["grad-accum"] = plan.batch.grad_accum.into();
        let command = RunConfig::augment_args(Command::new("train"));
        let mut compared = Vec::new();
        for argument in command.get_arguments() {
            let (key, help) = (argument.get_long().unwrap(), argument.get_help().unwrap().to_string());
            let Some((_, default)) = help.split_once("[default: ") else {
                continue;
            };
            let default = default.trim_end_matches("].").trim_end_matches(']');
            let same = match &taken[key] {
                serde_json::Value::String(word) => default == word,
                number => default.parse::<f64>().ok() == number.as_f64(),
            };
            // The others say in words what the default depends on.
            if default.split(' ').count() == 1 && key != "backend" {
                assert!(same, "{key}: help says {default}, a plan takes {}", taken[key]);
                compared.push(key.to_owned());
            }
        }
        assert!(compared.len() >= 15, "{compared:?}");
        for (model, part) in [("d3", 5), ("d4", 5), ("d6", 20), ("gpt2", 20), ("gpt2-xl", 20)] {
            let plan = resolve(Some(model));
            assert_eq!(plan.schedule.warmup, plan.schedule.decay_steps / part, "{model}");
        }
    }

    #[cfg(feature = "clap")]
    #[test]
    fn flags_are_the_keys_and_are_read_alike() {
        use clap::{Args as _, Command, FromArgMatches as _};
        let command = RunConfig::augment_args(Command::new("train"));
        command.clone().debug_assert();
        let mut flags: Vec<_> = command
            .get_arguments()
            .filter_map(|arg| arg.get_long().map(str::to_owned))
            .collect();
        flags.sort();
        assert_eq!(flags, RunConfig::keys());
        assert!(command.get_arguments().all(|arg| arg.get_help().is_some()));

        let line = "train --n-layer 3 --lr 1e-3 --precision bf16 --schedule wsd --run a";
        let matches = command.try_get_matches_from(line.split(' ')).unwrap();
        let flags = RunConfig::from_arg_matches(&matches).unwrap();
        let text = "n-layer = 3\nlr = 1e-3\nprecision = \"bf16\"\nschedule = \"wsd\"\nrun = \"a\"\n";
        assert_eq!(
            flags,
            RunConfig::from_toml(text, std::path::Path::new("run.toml")).unwrap()
        );
    }
}
