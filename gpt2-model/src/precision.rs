//! The arithmetic of a forward and backward pass.

use burn::tensor::{DType, FloatDType};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The type in which matrix products are computed.
///
/// Parameters, gradients and optimizer moments are always `f32`; so are the LayerNorm statistics, the softmax and the loss.
/// `Bf16` follows PyTorch's autocast: operands of products are rounded to `bf16`, the residual stream stays `f32`. `Tf32`
/// follows its `allow_tf32`: operands are `f32` in memory, and lose all but ten bits of their fractions when they are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision throughout.
    #[default]
    F32,
    /// Products on the tensor cores of NVIDIA's GPUs, from Ampere on, of operands in `f32`.
    Tf32,
    /// Products of bfloat16 operands.
    Bf16,
}

impl Precision {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::F32, Self::Tf32, Self::Bf16];

    /// Its word in run files and flags.
    pub const fn word(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }

    /// The type of the operands of products, by which the operations know the precision. `Flex32` is Burn's name for `f32`
    /// in memory of which a product may use less; Burn's own casts take the two for one.
    pub const fn operands(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::Tf32 => FloatDType::Flex32,
            Self::Bf16 => FloatDType::BF16,
        }
    }

    /// The precision whose [operands](Self::operands) have this type, if there is one.
    pub const fn of_operands(dtype: DType) -> Option<Self> {
        match dtype {
            DType::F32 => Some(Self::F32),
            DType::Flex32 => Some(Self::Tf32),
            DType::BF16 => Some(Self::Bf16),
            _ => None,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
