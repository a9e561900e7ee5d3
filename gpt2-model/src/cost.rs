//! What a GPT-2 costs: parameters, floating-point operations, bytes. Arithmetic only.

use crate::config::Gpt2Config;
use crate::precision::Precision;
use crate::recompute::Recompute;

/// Bytes of an `f32`.
const F32_BYTES: u64 = 4;

/// Trainable parameters, a tied classifier counted once and without padded rows.
///
/// ```
/// use gpt2_model::{Gpt2Config, cost};
///
/// assert_eq!(cost::parameters(&Gpt2Config::preset("gpt2")?), 124_439_808);
/// # Ok::<(), gpt2_model::ModelError>(())
/// ```
pub fn parameters(config: &Gpt2Config) -> u64 {
    let (c, inner) = (config.n_embd as u64, config.inner_size() as u64);
    // A block: c_attn 3C² + 3C, c_proj C² + C, c_fc CI + I, c_proj IC + C, two LayerNorms 4C.
    let block = 4 * c * c + 2 * c * inner + 9 * c + inner;
    let embeddings = tables(config) * config.vocab_size as u64 + config.block_size as u64;
    embeddings * c + config.n_layer as u64 * block + 2 * c
}

/// Tables with a row for each token: the embedding, and the classifier where it is another.
fn tables(config: &Gpt2Config) -> u64 {
    1 + u64::from(!config.variant.tie_word_embeddings)
}

/// Bytes of the gradients of a block's four products that find room in the activations of `tokens` tokens, as CUDA's
/// operations place them: of the packed qkv, the mixed values and GELU's input in the type of the products, and of the
/// residual stream in `f32`.
fn gradients_in_activations(config: &Gpt2Config, tokens: u64, precision: Precision) -> u64 {
    let (c, inner) = (config.n_embd as u64, config.inner_size() as u64);
    let operand = product_bytes(precision);
    let products = [
        (3 * c * c, 3 * c * operand),
        (c * c, c * operand),
        (c * inner, inner * operand),
        (inner * c, c * F32_BYTES),
    ];
    let sizes = products.map(|(weights, row)| (weights * F32_BYTES, tokens.saturating_mul(row)));
    sizes
        .iter()
        .filter(|(gradient, room)| gradient <= room)
        .map(|(gradient, _)| gradient)
        .sum()
}

/// Bytes of an element of what is between products.
fn product_bytes(precision: Precision) -> u64 {
    match precision {
        Precision::F32 | Precision::Tf32 => F32_BYTES,
        Precision::Bf16 => 2,
    }
}

/// Parameters as they stand in memory, with the embedding's padded rows.
pub fn padded_parameters(config: &Gpt2Config) -> u64 {
    parameters(config) + tables(config) * (config.padded_vocab_size() - config.vocab_size) as u64 * config.n_embd as u64
}

/// Elements of each parameter as it stands in memory, in no order that matters.
pub fn parameter_sizes(config: &Gpt2Config) -> Vec<u64> {
    let (c, inner) = (config.n_embd as u64, config.inner_size() as u64);
    let product = |inputs: u64, outputs: u64| [inputs * outputs, outputs];
    let block = [
        product(c, 3 * c),
        product(c, c),
        product(c, inner),
        product(inner, c),
        [c; 2],
        [c; 2],
    ];
    let blocks = (0..config.n_layer).flat_map(|_| block.into_iter().flatten());
    let table = config.padded_vocab_size() as u64 * c;
    let tables = (0..tables(config)).map(|_| table);
    tables
        .chain([config.block_size as u64 * c])
        .chain(blocks)
        .chain([c; 2])
        .collect()
}

/// Floating-point operations to train one token in a sequence of `seq`: `6·N + 12·n_layer·n_embd·T`
/// (Chowdhery et al. 2022, appendix B; attention is not halved for causality).
pub fn flops_per_token(config: &Gpt2Config, seq: usize) -> u64 {
    6 * parameters(config) + 12 * (config.n_layer * config.n_embd * seq) as u64
}

/// The memory that a training step needs on the device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Parameters, `f32`.
    pub weights: u64,
    /// Their gradients, `f32`, that are not in the memory of activations, and with several micro-steps the sum of those
    /// before.
    pub gradients: u64,
    /// AdamW's two moments, `f32`.
    pub optimizer: u64,
    /// What the forward pass keeps for the backward pass, and the largest temporary of the classifier.
    pub activations: u64,
}

impl Memory {
    /// The sum.
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.optimizer + self.activations
    }
}

/// The memory of a training step with micro-batches of `batch` sequences of `seq` tokens.
///
/// Weights and moments are exact, and gradients in memory of their own, the rest an estimate; `docs/lab-notes.md` compares it
/// with measured peaks.
pub fn training_memory(config: &Gpt2Config, batch: usize, seq: usize, kept: Kept) -> Memory {
    let weights = padded_parameters(config) * F32_BYTES;
    let gradients = match kept.gradients {
        GradientMemory::Own => weights,
        GradientMemory::Activations => {
            let tokens = (batch as u64).saturating_mul(seq as u64);
            weights - config.n_layer as u64 * gradients_in_activations(config, tokens, kept.precision)
        }
        GradientMemory::Summed => 2 * weights,
    };
    Memory {
        weights,
        gradients,
        optimizer: 2 * weights,
        activations: activation_bytes(config, batch as u64, seq as u64, kept),
    }
}

/// How the forward pass is kept for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// Of what is in memory between products.
    pub precision: Precision,
    /// What is not kept.
    pub recompute: Recompute,
    /// Whether attention's scores stand in memory, as in the reference.
    pub scores: bool,
    /// Whether plain tensors keep all that they compute, the scores and the logits among it.
    pub plain_tensors: bool,
    /// Bytes of logits, and of what is made of them, that stand in memory at the most.
    pub logits_bytes: u64,
    /// Where gradients are.
    pub gradients: GradientMemory,
}

/// Where the gradients of a step are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GradientMemory {
    /// In memory of their own.
    #[default]
    Own,
    /// Those of a block's weights, where they fit, in the memory of its activations, which are dead by then.
    Activations,
    /// In memory of their own, and so is the sum of those of the micro-steps before.
    Summed,
}

/// The largest micro-batch whose predicted memory is within `available` bytes; 0 if not even one sequence fits.
pub fn largest_batch(config: &Gpt2Config, seq: usize, kept: Kept, available: u64) -> usize {
    let needed = |batch: usize| training_memory(config, batch, seq, kept);
    // What grows with the batch: all but gradients, which at some batch find room in activations. Double until it does not
    // fit, then halve the interval.
    let fits = |batch: usize| {
        let needed = needed(batch);
        needed.total() - needed.gradients <= available
    };
    let mut too_large = 1;
    while fits(too_large) {
        too_large *= 2;
    }
    let mut fitting = too_large / 2;
    while too_large - fitting > 1 {
        let middle = fitting.midpoint(too_large);
        if fits(middle) {
            fitting = middle;
        } else {
            too_large = middle;
        }
    }
    (1..=fitting)
        .rev()
        .find(|&batch| needed(batch).total() <= available)
        .unwrap_or(0)
}

fn activation_bytes(config: &Gpt2Config, batch: u64, seq: u64, kept: Kept) -> u64 {
    let tokens = batch.saturating_mul(seq);
    let (c, heads, layers) = (config.n_embd as u64, config.n_head as u64, config.n_layer as u64);
    let inner = config.inner_size() as u64;
    let product_bytes = product_bytes(kept.precision);
    let weight_copy = match kept.precision {
        Precision::F32 | Precision::Tf32 => 0,
        Precision::Bf16 => (4 * c + 2 * inner) * c * product_bytes,
    };
    // Kept for each block: the inputs of its LayerNorms in f32; in the type of the products what they give, the packed qkv and
    // the mixed values (6 of [N, C]), and GELU's input and output ([N, I] each).
    let activations = |streams: u64, channels: u64| tokens * (streams * c * F32_BYTES + channels * product_bytes);
    let (kept_of_block, recomputed) = match kept.recompute {
        Recompute::None => (activations(2, 6 * c + 2 * inner), 0),
        Recompute::Gelu => (activations(2, 6 * c + inner), activations(0, inner)),
        Recompute::GeluLn => (activations(2, 4 * c + inner), activations(0, inner)),
        Recompute::Block => (activations(1, 0), activations(1, 6 * c + 2 * inner)),
    };
    let block = kept_of_block + weight_copy;
    // Of one block at a time: what passes through it backward, and where they stand in memory the scores, the weights and
    // their derivatives, [B, H, T, T].
    let passing = activations(4, 2 * inner) + recomputed;
    let scores = if kept.scores {
        5 * batch * heads * seq * seq * F32_BYTES
    } else {
        0
    };
    // The logits, of many rows in two parts at least as gpt2-kernels has them, and the embedding's gradient once more.
    let vocab = config.padded_vocab_size() as u64;
    let parts = if tokens < 4096 || kept.plain_tensors { 1 } else { 2 };
    let logits = tokens.div_ceil(parts) * vocab * product_bytes;
    let classifier = logits.min(kept.logits_bytes) + vocab * c * F32_BYTES;
    if kept.plain_tensors {
        // Scores, weights and their mask of every block, and logits, probabilities and their sum once each.
        let of_blocks = layers * (activations(6, 6 * c + 2 * inner) + 3 * batch * heads * seq * seq * F32_BYTES);
        return of_blocks + 3 * tokens * vocab * F32_BYTES + block + passing + scores + classifier;
    }
    layers * block + passing + scores + classifier
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_sizes() {
        for (name, millions) in [
            ("gpt2", 124),
            ("gpt2-medium", 355),
            ("gpt2-large", 774),
            ("gpt2-xl", 1558),
        ] {
            let config = Gpt2Config::preset(name).unwrap();
            assert_eq!((parameters(&config) + 500_000) / 1_000_000, millions, "{name}");
        }
        let config = Gpt2Config::preset("gpt2").unwrap();
        assert_eq!(parameters(&config), 124_439_808);
        assert_eq!(parameter_sizes(&config).len(), 148);
        assert_eq!(parameter_sizes(&config).iter().sum::<u64>(), padded_parameters(&config));
    }

    #[test]
    fn the_palm_count_of_operations() {
        let config = Gpt2Config::preset("gpt2").unwrap();
        assert_eq!(flops_per_token(&config, 1024), 6 * 124_439_808 + 12 * 12 * 768 * 1024);
    }

    #[test]
    fn gradients_find_room_in_activations() {
        let config = Gpt2Config::preset("gpt2-xl").unwrap();
        let kept = Kept {
            precision: Precision::Bf16,
            gradients: GradientMemory::Activations,
            ..Kept::default()
        };
        let elsewhere = |batch| {
            let memory = training_memory(&config, batch, 1024, kept);
            memory.weights - memory.gradients
        };
        // None, all but that out of the feed-forward half, and all of a block.
        let of_products = |count: u64| 48 * count * 1600 * 1600 * 4;
        assert_eq!([1, 4, 8].map(elsewhere), [0, 8, 12].map(of_products));
        // Four sequences take less than three.
        let total = |batch| training_memory(&config, batch, 1024, kept).total();
        assert!(total(4) < total(3));
        assert_eq!(largest_batch(&config, 1024, kept, total(4)), 4);
    }

    #[test]
    fn the_largest_batch_is_the_largest() {
        let config = Gpt2Config::preset("d6").unwrap();
        for (seq, batch) in [(256, 8), (64, 7), (1024, 1)] {
            let need = training_memory(&config, batch, seq, Kept::default()).total();
            assert_eq!(largest_batch(&config, seq, Kept::default(), need), batch);
        }
        assert_eq!(largest_batch(&config, 256, Kept::default(), 1), 0);
    }
}
