//! In what a GPT-2 may differ from OpenAI's besides its sizes, by the names of transformers' `config.json`.

use serde::{Deserialize, Serialize};

/// In what a model differs from OpenAI's. The default is OpenAI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Variant {
    /// Width between the two products of the MLP; none is 4 · `n_embd`.
    pub n_inner: Option<usize>,
    /// What the MLP computes between its two products.
    pub activation_function: Activation,
    /// Whether the classifier is the token embedding; else it is a parameter of its own, `lm_head.weight`.
    pub tie_word_embeddings: bool,
    /// Whether attention scores are divided by the root of the head's width.
    pub scale_attn_weights: bool,
    /// Whether attention scores are divided by the number of their layer, from 1, too.
    pub scale_attn_by_inverse_layer_idx: bool,
}

impl Default for Variant {
    fn default() -> Self {
        Self {
            n_inner: None,
            activation_function: Activation::GeluTanh,
            tie_word_embeddings: true,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
        }
    }
}

impl Variant {
    /// By what the scores of the layer `index`, from 0, differ from those divided by the root of `head_dim`.
    pub(crate) fn score_factor(&self, index: usize, head_dim: usize) -> f64 {
        let of_head = if self.scale_attn_weights {
            1.0
        } else {
            (head_dim as f64).sqrt()
        };
        let of_layer = if self.scale_attn_by_inverse_layer_idx {
            (index + 1) as f64
        } else {
            1.0
        };
        of_head / of_layer
    }

    /// Whether there is a factor on attention's scores besides the division by the root of the head's width.
    pub(crate) fn scales_scores(&self) -> bool {
        !self.scale_attn_weights || self.scale_attn_by_inverse_layer_idx
    }

    /// Whether a block is computed operation by operation, not by the kernels of a whole block.
    pub(crate) fn is_without_block_kernels(&self) -> bool {
        self.activation_function != Activation::GeluTanh || self.scales_scores()
    }
}

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// GELU in its tanh form (Hendrycks and Gimpel 2016), OpenAI's.
    #[default]
    GeluTanh,
    /// GELU by the error function.
    Gelu,
    /// The positive part.
    Relu,
}

impl Activation {
    /// Its name in transformers' `config.json`.
    pub const fn hf_name(self) -> &'static str {
        match self {
            Self::GeluTanh => "gelu_new",
            Self::Gelu => "gelu",
            Self::Relu => "relu",
        }
    }

    /// What transformers calls `name` there, if this crate computes it. Its five names of the tanh form differ in how they are
    /// computed and not in what.
    pub fn of_hf_name(name: &str) -> Option<Self> {
        match name {
            "gelu_new" | "gelu_fast" | "gelu_accurate" | "gelu_pytorch_tanh" | "gelu_python_tanh" => {
                Some(Self::GeluTanh)
            }
            "gelu" | "gelu_python" => Some(Self::Gelu),
            "relu" => Some(Self::Relu),
            _ => None,
        }
    }
}
