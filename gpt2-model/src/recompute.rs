//! What the backward pass computes anew instead of keeping it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Activations that are not kept for the backward pass: memory for time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// All are kept.
    #[default]
    None,
    /// GELU's outputs are computed from its inputs once more.
    Gelu,
    /// And what the LayerNorms before attention and feed-forward gave, from the residual stream.
    #[serde(rename = "gelu,ln")]
    GeluLn,
    /// Of each block only its input is kept: its forward pass, without the last product, is done twice.
    Block,
}

impl Recompute {
    /// Every choice.
    pub const ALL: [Self; 4] = [Self::None, Self::Gelu, Self::GeluLn, Self::Block];

    /// Its word in run files and flags.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gelu => "gelu",
            Self::GeluLn => "gelu,ln",
            Self::Block => "block",
        }
    }
}

impl fmt::Display for Recompute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
