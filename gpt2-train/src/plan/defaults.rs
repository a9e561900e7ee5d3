//! What a setting is when nobody sets it.

/// The preset of a run that names none: small enough that two CPU cores teach it within a minute.
pub(crate) const MODEL: &str = "d3";
/// Seed of a run that names none.
pub(crate) const SEED: u64 = 1337;
/// Batches prepared ahead: enough to ride out a slow read, few enough not to matter in memory.
pub(crate) const PREFETCH: usize = 4;
/// `min-lr` is `lr` divided by this (Hoffmann et al. 2022, appendix B).
pub(crate) const MIN_LR_DIVISOR: f64 = 10.0;
/// The longest default warm-up: llm.c's for the 124M recipe.
pub(crate) const WARMUP_AT_MOST: u64 = 700;
/// Share of the run in which WSD decays (Hägele et al. 2024, section 3: 10–20% reach a cosine's loss).
pub(crate) const DECAY_FRACTION: f64 = 0.2;
/// GPT-3's (Brown et al. 2020, appendix B).
pub(crate) const GRAD_CLIP: f64 = 1.0;
/// Tokens in a sample: a few sentences.
pub(crate) const SAMPLE_TOKENS: usize = 64;
/// Newest checkpoints that are kept.
pub(crate) const KEEP: usize = 3;
/// Steps between printed lines.
pub(crate) const LOG_EVERY: u64 = 10;
/// Start of a sample when training on the program's own stories; on other data a sample starts a document.
pub(crate) const STORY_PROMPT: &str = "Once";

/// Defaults that depend on the size of the model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SizeDefaults {
    pub(crate) batch: usize,
    pub(crate) seq: usize,
    pub(crate) steps: u64,
    pub(crate) lr: f64,
    /// The default warm-up is the steps divided by this.
    pub(crate) warmup_divisor: u64,
    pub(crate) eval_every: u64,
    pub(crate) eval_batches: usize,
    pub(crate) sample_every: u64,
    pub(crate) checkpoint_every: u64,
}

/// The defaults of a preset.
///
/// Learning rates of the published sizes are GPT-3's for models of that size (Brown et al. 2020, table 2.1); `d6` has
/// nanoGPT's for its character-level model of the same width.
pub(crate) fn of_size(preset: &str) -> SizeDefaults {
    let published = |batch, lr| SizeDefaults {
        batch,
        seq: 1024,
        steps: 5_000,
        lr,
        warmup_divisor: 20,
        eval_every: 250,
        eval_batches: 20,
        sample_every: 1_000,
        checkpoint_every: 1_000,
    };
    match preset {
        "d3" => SizeDefaults {
            batch: 4,
            seq: 128,
            steps: 480,
            lr: 5e-3,
            warmup_divisor: 5,
            eval_every: 96,
            eval_batches: 8,
            sample_every: 96,
            checkpoint_every: 240,
        },
        "d4" => SizeDefaults {
            batch: 4,
            seq: 128,
            steps: 520,
            lr: 4e-3,
            warmup_divisor: 5,
            eval_every: 104,
            eval_batches: 8,
            sample_every: 104,
            checkpoint_every: 260,
        },
        "d6" => SizeDefaults {
            batch: 8,
            seq: 256,
            steps: 1_000,
            lr: 1e-3,
            warmup_divisor: 20,
            eval_every: 100,
            eval_batches: 16,
            sample_every: 200,
            checkpoint_every: 200,
        },
        "gpt2-medium" => published(4, 3e-4),
        "gpt2-large" => published(4, 2.5e-4),
        "gpt2-xl" => published(2, 2e-4),
        "gpt2" => published(8, 6e-4),
        other => unreachable!("the model's shape was taken from the preset {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt2_model::Gpt2Config;

    #[test]
    fn every_preset_sees_no_more_than_its_block() {
        for name in Gpt2Config::PRESETS {
            assert!(
                of_size(name).seq <= Gpt2Config::preset(name).unwrap().block_size,
                "{name}"
            );
        }
    }
}
