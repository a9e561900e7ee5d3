//! The shape of a GPT-2 and the published sizes.

use crate::error::ModelError;
use crate::variant::Variant;
use gpt2_base::nearest;
use serde::{Deserialize, Serialize};

/// The vocabulary is padded in memory to a multiple of this, which keeps the classifier's product aligned (llm.c does the same).
const VOCAB_MULTIPLE: usize = 128;

/// Tokens of GPT-2's vocabulary; the last of them separates documents.
const GPT2_TOKENS: usize = 50_257;

/// Tokens that a model may have besides GPT-2's and still be one of its vocabulary: a few added ones, or padding to a
/// multiple of up to 1,024.
const MOST_ADDED_TOKENS: usize = 1024;

/// The shape of a GPT-2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpt2Config {
    /// Number of tokens (50,257 for GPT-2's tokenizer).
    pub vocab_size: usize,
    /// Longest sequence, in tokens.
    pub block_size: usize,
    /// Transformer blocks.
    pub n_layer: usize,
    /// Attention heads a block.
    pub n_head: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Probability that an activation is dropped in training, in `[0, 1)`: embeddings, attention weights and residual branches.
    pub dropout: f64,
    /// In what it differs from OpenAI's besides.
    #[serde(default)]
    pub variant: Variant,
}

/// Name, layers, heads, width and block size. `d3`, `d4` and `d6` are small ones for CPUs; the others are OpenAI's.
const PRESETS: [(&str, usize, usize, usize, usize); 7] = [
    ("d3", 3, 3, 96, 256),
    ("d4", 4, 4, 128, 256),
    ("d6", 6, 6, 384, 1024),
    ("gpt2", 12, 12, 768, 1024),
    ("gpt2-medium", 24, 16, 1024, 1024),
    ("gpt2-large", 36, 20, 1280, 1024),
    ("gpt2-xl", 48, 25, 1600, 1024),
];

impl Gpt2Config {
    /// The names that [`Gpt2Config::preset`] knows.
    pub const PRESETS: [&'static str; PRESETS.len()] = {
        let mut names = [""; PRESETS.len()];
        let mut i = 0;
        while i < names.len() {
            names[i] = PRESETS[i].0;
            i += 1;
        }
        names
    };

    /// One of the named sizes, with GPT-2's vocabulary and no dropout.
    ///
    /// # Errors
    /// [`ModelError::UnknownPreset`], which suggests the nearest name.
    pub fn preset(name: &str) -> Result<Self, ModelError> {
        PRESETS
            .iter()
            .find(|preset| preset.0 == name)
            .map(|&(_, n_layer, n_head, n_embd, block_size)| Self {
                vocab_size: GPT2_TOKENS,
                block_size,
                n_layer,
                n_head,
                n_embd,
                dropout: 0.0,
                variant: Variant::default(),
            })
            .ok_or_else(|| ModelError::UnknownPreset {
                name: name.to_owned(),
                expected: Self::PRESETS.to_vec(),
                nearest: other_name(name).or_else(|| nearest(name, Self::PRESETS)),
            })
    }

    /// Rows of the embedding in memory: `vocab_size` rounded up to a multiple of 128.
    /// The rows past `vocab_size` are zero, never win and never get a gradient.
    pub fn padded_vocab_size(&self) -> usize {
        self.vocab_size.next_multiple_of(VOCAB_MULTIPLE)
    }

    /// Whether the first 50,257 tokens are GPT-2's, by their number: a vocabulary of that size, or padded, or with a few
    /// tokens added at its end.
    pub fn has_gpt2_vocabulary(&self) -> bool {
        (GPT2_TOKENS..=GPT2_TOKENS + MOST_ADDED_TOKENS).contains(&self.vocab_size)
    }

    /// The token that begins and ends documents: GPT-2's, or the last one of another vocabulary.
    pub fn end_of_text(&self) -> usize {
        if self.has_gpt2_vocabulary() {
            GPT2_TOKENS - 1
        } else {
            self.vocab_size - 1
        }
    }

    /// Width of one attention head.
    pub fn head_dim(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// Width between the two products of an MLP.
    pub fn inner_size(&self) -> usize {
        self.variant.n_inner.unwrap_or(4 * self.n_embd)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ModelError::InvalidConfig`] names the first field that is out of range.
    pub fn validate(&self) -> Result<(), ModelError> {
        for (field, value) in [
            ("vocab_size", self.vocab_size),
            ("block_size", self.block_size),
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
            ("n_embd", self.n_embd),
            ("n_inner", self.inner_size()),
        ] {
            if value == 0 {
                return Err(ModelError::InvalidConfig {
                    field,
                    found: "0".into(),
                    expected: "at least 1".into(),
                });
            }
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            return Err(ModelError::InvalidConfig {
                field: "n_embd",
                found: self.n_embd.to_string(),
                expected: format!("a multiple of n_head ({})", self.n_head),
            });
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(ModelError::InvalidConfig {
                field: "dropout",
                found: self.dropout.to_string(),
                expected: "a probability in [0, 1)".into(),
            });
        }
        Ok(())
    }
}

/// The preset that papers and model cards call `name`: GPT-2's sizes by their parameters.
fn other_name(name: &str) -> Option<&'static str> {
    match name.to_ascii_lowercase().trim_start_matches("gpt2-") {
        "small" | "117m" | "124m" | "base" => Some("gpt2"),
        "345m" | "355m" => Some("gpt2-medium"),
        "762m" | "774m" => Some("gpt2-large"),
        "1542m" | "1558m" | "1.5b" => Some("gpt2-xl"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid() {
        for name in Gpt2Config::PRESETS {
            Gpt2Config::preset(name).unwrap().validate().unwrap();
        }
    }

    #[test]
    fn the_vocabulary_is_padded_as_llm_c_does() {
        assert_eq!(Gpt2Config::preset("gpt2").unwrap().padded_vocab_size(), 50_304);
    }

    #[test]
    fn padding_and_added_tokens_leave_the_vocabulary_gpt2s() {
        let of = |vocab_size| Gpt2Config {
            vocab_size,
            ..Gpt2Config::preset("gpt2").unwrap()
        };
        for (vocab_size, is_gpt2s, end_of_text) in [
            (512, false, 511),
            (50_256, false, 50_255),
            (50_257, true, 50_256),
            (50_304, true, 50_256),
            (51_200, true, 50_256),
            (64_000, false, 63_999),
        ] {
            let config = of(vocab_size);
            assert_eq!(
                (config.has_gpt2_vocabulary(), config.end_of_text()),
                (is_gpt2s, end_of_text)
            );
        }
    }

    #[test]
    fn an_unknown_preset_names_the_nearest() {
        let message = Gpt2Config::preset("gpt2-medum").unwrap_err().to_string();
        assert!(message.contains("did you mean `gpt2-medium`?"), "{message}");
        for (name, preset) in [("gpt2-small", "gpt2"), ("124M", "gpt2"), ("gpt2-1.5b", "gpt2-xl")] {
            let message = Gpt2Config::preset(name).unwrap_err().to_string();
            assert!(message.ends_with(&format!("did you mean `{preset}`?")), "{message}");
        }
        let message = Gpt2Config::preset("llama").unwrap_err().to_string();
        assert!(
            message.contains("expected one of d3, d4, d6, gpt2,") && !message.contains("did you mean"),
            "{message}"
        );
    }

    #[test]
    fn each_field_is_checked() {
        let good = Gpt2Config::preset("d4").unwrap();
        let cases: [(&str, Gpt2Config); 4] = [
            (
                "n_layer",
                Gpt2Config {
                    n_layer: 0,
                    ..good.clone()
                },
            ),
            (
                "n_embd",
                Gpt2Config {
                    n_embd: 130,
                    ..good.clone()
                },
            ),
            (
                "dropout",
                Gpt2Config {
                    dropout: 1.0,
                    ..good.clone()
                },
            ),
            (
                "dropout",
                Gpt2Config {
                    dropout: f64::NAN,
                    ..good
                },
            ),
        ];
        for (field, config) in cases {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(&format!("`{field}`")), "{message}");
        }
    }
}
