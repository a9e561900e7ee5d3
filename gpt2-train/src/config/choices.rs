//! The settings that are one of a few words, spelt alike in run files, flags and reports.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The shape of the learning rate after its warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// A half-wave from `lr` down to `min-lr`.
    #[default]
    Cosine,
    /// A straight line from `lr` down to `min-lr`.
    Linear,
    /// `lr` for ever.
    Constant,
    /// Warm-up, stable, decay: `lr` for most of the run, then down to `min-lr`.
    Wsd,
}

impl fmt::Display for ScheduleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cosine => "cosine",
            Self::Linear => "linear",
            Self::Constant => "constant",
            Self::Wsd => "wsd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_spell_the_words_as_files_do() {
        for kind in [
            ScheduleKind::Cosine,
            ScheduleKind::Linear,
            ScheduleKind::Constant,
            ScheduleKind::Wsd,
        ] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
        }
    }
}
