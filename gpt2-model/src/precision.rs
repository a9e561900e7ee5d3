//! The arithmetic of a forward and backward pass.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The type in which matrix products are computed.
///
/// Parameters, gradients and optimizer moments are always `f32`; so are the LayerNorm statistics, the softmax and the loss.
/// `Bf16` follows PyTorch's autocast: operands of products are rounded to `bf16`, the residual stream stays `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision throughout.
    #[default]
    F32,
    /// Products of bfloat16 operands.
    Bf16,
}

impl Precision {
    /// Every choice.
    pub const ALL: [Self; 2] = [Self::F32, Self::Bf16];

    /// Its word in run files and flags.
    pub const fn word(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
