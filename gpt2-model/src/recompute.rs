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
    /// GELU's outputs, a fifth of all activations, are computed from its inputs once more.
    Gelu,
}

impl Recompute {
    /// Every choice.
    pub const ALL: [Self; 2] = [Self::None, Self::Gelu];

    /// Its word in run files and flags.
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gelu => "gelu",
        }
    }
}

impl fmt::Display for Recompute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
