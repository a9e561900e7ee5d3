//! How a forward pass is computed, besides the weights.

use crate::precision::Precision;
use crate::recompute::Recompute;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which operations a model is computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operations {
    /// Our kernels, where they take the shape.
    #[default]
    Kernels,
    /// Plain tensors, whose derivatives are Burn's own: what there would be without our kernels.
    Reference,
}

impl Operations {
    /// Every choice.
    pub const ALL: [Self; 2] = [Self::Kernels, Self::Reference];

    /// Its word in run files and flags.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kernels => "kernels",
            Self::Reference => "reference",
        }
    }
}

impl fmt::Display for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How a forward pass is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Computation {
    /// The type of the matrix products.
    pub precision: Precision,
    /// What the backward pass recomputes.
    pub recompute: Recompute,
    /// By which operations.
    pub operations: Operations,
}
