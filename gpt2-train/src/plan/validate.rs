//! The judgement on a plan: one line a mistake, with the key, its value, what was expected and the fix.

use super::{Environment, RunPlan};
use crate::error::TrainError;
use gpt2_base::nearest_multiples;
use gpt2_data::VOCAB_SIZE;
use gpt2_model::capabilities::UnsupportedPrecision;
use gpt2_model::{Operations, Recompute};
use std::fmt::Display;
use std::path::Path;

/// No dimension of a model is near this; past it the products of dimensions would not fit their types.
const LARGEST_DIMENSION: usize = 1 << 20;

type Judgement = Result<(), TrainError>;

/// Threads that any computer may be asked for.
const MOST_THREADS: usize = 1024;

/// More threads than this on each processor help nothing.
const MOST_THREADS_OF_PROCESSOR: usize = 16;

/// CPU threads, where there are `cores` processors. Judged before any of them is started.
pub(crate) fn threads(threads: usize, cores: usize) -> Judgement {
    let most = MOST_THREADS.max(cores.saturating_mul(MOST_THREADS_OF_PROCESSOR));
    judge(
        (1..=most).contains(&threads),
        "threads",
        threads,
        format!("1 to {most}"),
        format!("leave it out for one on each processor ({cores})"),
    )
}

/// Whole numbers: the model's shape, the batch, the limits. Where the settings have a `global_batch`, the accumulation
/// follows from it, and a mistake is named by it.
pub(crate) fn sizes(plan: &RunPlan, global_batch: Option<usize>) -> Judgement {
    let model = &plan.model;
    for (key, value) in [
        ("n-layer", model.n_layer),
        ("n-head", model.n_head),
        ("n-embd", model.n_embd),
        ("block-size", model.block_size),
        ("batch", plan.batch.micro_batch),
    ] {
        let fits = (1..=LARGEST_DIMENSION).contains(&value);
        judge(
            fits,
            key,
            value,
            format!("1 to {LARGEST_DIMENSION}"),
            "leave it out for the default",
        )?;
    }
    let most_sequences = LARGEST_DIMENSION
        .saturating_mul(plan.batch.micro_batch)
        .saturating_mul(plan.machine.ranks);
    let (key, value, most, fix) = match global_batch {
        Some(global) => (
            "global-batch",
            global,
            most_sequences,
            "lower it: it counts sequences, not tokens",
        ),
        None => (
            "grad-accum",
            plan.batch.grad_accum,
            LARGEST_DIMENSION,
            "leave it out for the default",
        ),
    };
    judge((1..=most).contains(&value), key, value, format!("1 to {most}"), fix)?;
    let init = plan.init.as_deref().unwrap_or(Path::new(""));
    judge(
        model.vocab_size >= VOCAB_SIZE,
        "init",
        init.display(),
        format!("weights for the {VOCAB_SIZE} tokens that the data is made of"),
        format!(
            "these know {}; take those of a model with GPT-2's vocabulary",
            model.vocab_size
        ),
    )?;

    let whole = model.n_embd.is_multiple_of(model.n_head);
    let fix = format!("try {}", nearest_multiples(model.n_embd, model.n_head));
    judge(
        whole,
        "n-embd",
        model.n_embd,
        format!("a multiple of `n-head` ({})", model.n_head),
        fix,
    )?;

    let seq_fits = (1..=model.block_size).contains(&plan.batch.seq);
    let expected = format!("1 to `block-size` ({})", model.block_size);
    judge(
        seq_fits,
        "seq",
        plan.batch.seq,
        expected,
        "shorten it or raise `block-size`",
    )?;

    for (key, value) in [
        ("prefetch", plan.batch.prefetch),
        ("eval-batches", plan.intervals.eval_batches),
        ("tasks-limit", plan.tasks.limit.unwrap_or(usize::MAX)),
        ("sample-tokens", plan.intervals.sample_tokens),
        ("keep", plan.intervals.keep),
    ] {
        judge(value >= 1, key, value, "at least 1", "leave it out for the default")?;
    }
    judge(
        plan.intervals.log_every >= 1,
        "log-every",
        plan.intervals.log_every,
        "at least 1",
        "leave it out for the default",
    )?;
    judge(
        plan.limits.steps >= 1,
        "steps",
        plan.limits.steps,
        "at least 1",
        "leave it out for the default",
    )?;
    if let Some(tokens) = plan.limits.max_tokens {
        judge(
            tokens >= 1,
            "max-tokens",
            tokens,
            "at least 1",
            "leave it out for no limit",
        )?;
    }
    if let Some(minutes) = plan.limits.max_minutes {
        let positive = minutes.is_finite() && minutes > 0.0;
        judge(
            positive,
            "max-minutes",
            minutes,
            "a number above 0",
            "leave it out for no limit",
        )?;
    }
    Ok(())
}

/// Real numbers: learning rate, optimizer, dropout.
pub(crate) fn rates(plan: &RunPlan) -> Judgement {
    let finite = |value: f64| value.is_finite() && value >= 0.0;
    judge(
        finite(plan.schedule.lr) && plan.schedule.lr > 0.0,
        "lr",
        plan.schedule.lr,
        "a number above 0",
        "3e-4 is a common choice",
    )?;
    let expected = format!("0 to `lr` ({})", plan.schedule.lr);
    judge(
        (0.0..=plan.schedule.lr).contains(&plan.schedule.min_lr),
        "min-lr",
        plan.schedule.min_lr,
        expected,
        "leave it out for a tenth of `lr`",
    )?;
    judge(
        plan.schedule.decay_steps >= 1,
        "decay-steps",
        plan.schedule.decay_steps,
        "at least 1",
        "leave it out for the last step",
    )?;
    for (key, limit) in [("steps", plan.limits.steps), ("decay-steps", plan.schedule.decay_steps)] {
        let expected = format!("at most `{key}` ({limit})");
        judge(
            plan.schedule.warmup <= limit,
            "warmup",
            plan.schedule.warmup,
            expected,
            "shorten it or train longer",
        )?;
    }
    let share = plan.schedule.decay_fraction > 0.0 && plan.schedule.decay_fraction <= 1.0;
    judge(
        share,
        "decay-fraction",
        plan.schedule.decay_fraction,
        "above 0 and at most 1",
        "0.2 is a common choice",
    )?;

    for (key, value) in [
        ("dropout", plan.model.dropout),
        ("beta1", plan.optimizer.beta1),
        ("beta2", plan.optimizer.beta2),
    ] {
        judge(
            (0.0..1.0).contains(&value),
            key,
            value,
            "at least 0 and below 1",
            "leave it out for the default",
        )?;
    }
    judge(
        finite(plan.optimizer.eps) && plan.optimizer.eps > 0.0,
        "eps",
        plan.optimizer.eps,
        "a number above 0",
        "1e-8 is a common choice",
    )?;
    judge(
        finite(plan.optimizer.weight_decay),
        "weight-decay",
        plan.optimizer.weight_decay,
        "0 or more",
        "0 switches it off",
    )?;
    judge(
        finite(plan.grad_clip),
        "grad-clip",
        plan.grad_clip,
        "0 or more",
        "0 switches it off",
    )
}

/// What the plan needs around it: a backend that can, weights that are there, data enough. `global_batch` as for
/// [`sizes`].
pub(crate) fn surroundings(plan: &RunPlan, environment: &Environment, global_batch: Option<usize>) -> Judgement {
    if let Err(UnsupportedPrecision { expected, fix }) = plan.capabilities().precision {
        judge(false, "precision", plan.machine.precision, expected, fix)?;
    }
    judge(
        plan.machine.recompute == Recompute::None || plan.model.dropout == 0.0,
        "recompute",
        plan.machine.recompute,
        format!("none with a dropout of {}", plan.model.dropout),
        "with dropout all activations are kept; leave out one of the two",
    )?;
    judge(
        plan.machine.recompute == Recompute::None || plan.machine.operations == Operations::Kernels,
        "recompute",
        plan.machine.recompute,
        "none with `operations` reference",
        "plain tensors keep all activations; leave out one of the two",
    )?;
    if let Some(init) = &plan.init {
        let expected = "an existing directory with config.json and model.safetensors";
        judge(init.exists(), "init", init.display(), expected, "check the path")?;
    }

    // The last token of a batch is only a target.
    let data = &environment.data;
    let one_batch = plan.batch.micro_batch.saturating_mul(plan.batch.seq) as u64;
    judge(
        data.train_tokens > one_batch,
        "batch",
        plan.batch.micro_batch,
        format!(
            "{one_batch} tokens a batch to be fewer than the {} of the training data",
            data.train_tokens
        ),
        "lower `batch` or `seq`, or prepare more data",
    )?;
    let sequences = data.train_tokens.saturating_sub(1) / plan.batch.seq as u64;
    let (key, value, expected, fix) = match global_batch {
        Some(global) => (
            "global-batch",
            global,
            format!("at most the {sequences} sequences of the training data"),
            "lower it: it counts sequences, not tokens; or prepare more data",
        ),
        None => (
            "grad-accum",
            plan.batch.grad_accum,
            format!(
                "a step of at most the {sequences} sequences of the training data, not {}",
                plan.global_batch()
            ),
            "lower it or `global-batch`, which counts sequences, or prepare more data",
        ),
    };
    judge(plan.global_batch() as u64 <= sequences, key, value, expected, fix)?;
    judge(
        plan.intervals.eval_every == 0 || data.val_tokens > plan.batch.seq as u64,
        "seq",
        plan.batch.seq,
        format!("less than the {} tokens of the validation data", data.val_tokens),
        "lower it, or set `eval-every` to 0 for no evaluation",
    )
}

fn judge(
    good: bool,
    key: &'static str,
    value: impl Display,
    expected: impl Into<String>,
    fix: impl Into<String>,
) -> Judgement {
    if good {
        return Ok(());
    }
    Err(TrainError::InvalidValue {
        key,
        value: value.to_string(),
        expected: expected.into(),
        fix: fix.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{BackendChoice, RunConfig};
    use gpt2_model::Precision;

    type Change = fn(&mut RunConfig);

    fn message(change: impl FnOnce(&mut RunConfig)) -> String {
        let mut config = RunConfig::default();
        change(&mut config);
        RunPlan::resolve(&config, &Environment::sample())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn each_value_out_of_range_is_named_by_its_key() {
        let cases: [(&str, &str, Change); 35] = [
            ("n-layer", "0", |c| c.n_layer = Some(0)),
            ("n-head", "0", |c| c.n_head = Some(0)),
            ("n-embd", "130", |c| c.n_embd = Some(130)),
            ("block-size", "9999999", |c| c.block_size = Some(9_999_999)),
            ("batch", "0", |c| c.batch = Some(0.into())),
            ("grad-accum", "0", |c| c.grad_accum = Some(0)),
            ("seq", "257", |c| c.seq = Some(257)),
            ("seq", "0", |c| c.seq = Some(0)),
            ("threads", "0", |c| c.threads = Some(0)),
            ("threads", "100000", |c| c.threads = Some(100_000)),
            ("prefetch", "0", |c| c.prefetch = Some(0)),
            ("eval-batches", "0", |c| c.eval_batches = Some(0)),
            ("sample-tokens", "0", |c| c.sample_tokens = Some(0)),
            ("keep", "0", |c| c.keep = Some(0)),
            ("log-every", "0", |c| c.log_every = Some(0)),
            ("steps", "0", |c| c.steps = Some(0)),
            ("max-minutes", "NaN", |c| c.max_minutes = Some(f64::NAN)),
            ("lr", "0", |c| c.lr = Some(0.0)),
            ("lr", "inf", |c| c.lr = Some(f64::INFINITY)),
            ("min-lr", "1", |c| c.min_lr = Some(1.0)),
            ("decay-steps", "0", |c| c.decay_steps = Some(0)),
            ("warmup", "521", |c| c.warmup = Some(521)),
            ("decay-fraction", "0", |c| c.decay_fraction = Some(0.0)),
            ("dropout", "1", |c| c.dropout = Some(1.0)),
            ("beta1", "-0.1", |c| c.beta1 = Some(-0.1)),
            ("beta2", "1", |c| c.beta2 = Some(1.0)),
            ("eps", "0", |c| c.eps = Some(0.0)),
            ("weight-decay", "-1", |c| c.weight_decay = Some(-1.0)),
            ("grad-clip", "NaN", |c| c.grad_clip = Some(f64::NAN)),
            ("precision", "bf16", |c| c.precision = Some(Precision::Bf16)),
            ("precision", "tf32", |c| c.precision = Some(Precision::Tf32)),
            ("precision", "tf32", |c| {
                c.precision = Some(Precision::Tf32);
                c.backend = Some(BackendChoice::Cuda);
            }),
            ("precision", "bf16", |c| {
                c.precision = Some(Precision::Bf16);
                c.backend = Some(BackendChoice::Flex);
                c.dropout = Some(0.1);
            }),
            ("recompute", "block", |c| {
                c.recompute = Some(Recompute::Block);
                c.dropout = Some(0.1);
            }),
            ("init", "no/such", |c| c.init = Some("no/such".into())),
        ];
        for (key, value, change) in cases {
            let message = message(change);
            assert!(
                message.starts_with(&format!("`{key}` is {value}, expected ")),
                "{message}"
            );
            assert_eq!(message.lines().count(), 1, "{message}");
        }
        assert!(message(|c| c.max_tokens = Some(0)).contains("`steps` is 0"));
    }

    #[test]
    fn whole_messages() {
        assert_eq!(
            message(|c| c.seq = Some(512)),
            "`seq` is 512, expected 1 to `block-size` (256); shorten it or raise `block-size`"
        );
        assert_eq!(
            message(|c| c.n_head = Some(5)),
            "`n-embd` is 96, expected a multiple of `n-head` (5); try 95 or 100"
        );
        assert_eq!(
            message(|c| c.n_head = Some(256)),
            "`n-embd` is 96, expected a multiple of `n-head` (256); try 256"
        );
    }

    #[test]
    fn a_step_longer_than_the_data_is_named_by_the_key_that_was_set() {
        assert_eq!(
            message(|c| c.global_batch = Some(524_288)),
            "`global-batch` is 524288, expected at most the 7812 sequences of the training data; lower it: it counts \
             sequences, not tokens; or prepare more data"
        );
        assert_eq!(
            message(|c| c.grad_accum = Some(131_072)),
            "`grad-accum` is 131072, expected a step of at most the 7812 sequences of the training data, not 524288; \
             lower it or `global-batch`, which counts sequences, or prepare more data"
        );
        assert_eq!(
            message(|c| c.global_batch = Some(1 << 30)),
            "`global-batch` is 1073741824, expected 1 to 4194304; lower it: it counts sequences, not tokens"
        );
    }

    #[test]
    fn threads_are_as_many_as_make_sense() {
        for (count, cores) in [(1, 1), (1024, 1), (4096, 256)] {
            threads(count, cores).unwrap();
        }
        for (count, cores) in [(0, 1), (1025, 64), (4097, 256), (usize::MAX, 2)] {
            threads(count, cores).unwrap_err();
        }
        assert_eq!(
            threads(100_000, 2).unwrap_err().to_string(),
            "`threads` is 100000, expected 1 to 1024; leave it out for one on each processor (2)"
        );
    }

    #[test]
    fn data_shorter_than_a_batch_is_refused() {
        let mut environment = Environment::sample();
        environment.data.train_tokens = 512;
        let message = RunPlan::resolve(&RunConfig::default(), &environment)
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("`batch` is 4, expected 512 tokens a batch to be fewer than the 512 of"),
            "{message}"
        );
        environment.data.train_tokens = 513;
        environment.data.val_tokens = 128;
        let message = RunPlan::resolve(&RunConfig::default(), &environment)
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("`seq` is 128, expected less than the 128 tokens of the validation data"),
            "{message}"
        );
        RunPlan::resolve(
            &RunConfig {
                eval_every: Some(0),
                ..RunConfig::default()
            },
            &environment,
        )
        .unwrap();
    }
}
