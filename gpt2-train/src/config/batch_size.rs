//! The setting `batch`: a number of sequences, or as many as fit.

use super::number_or_text;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Sequences in a micro-step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchSize {
    /// The most that fit into the device's memory and divide the global batch.
    Auto,
    /// So many.
    Sequences(usize),
}

const AUTO: &str = "auto";

/// What the setting can be, for messages.
const EXPECTED: &str = "a number of sequences, or auto";

impl BatchSize {
    /// The number, if it is one.
    pub fn sequences(self) -> Option<usize> {
        match self {
            Self::Auto => None,
            Self::Sequences(sequences) => Some(sequences),
        }
    }
}

impl From<usize> for BatchSize {
    fn from(sequences: usize) -> Self {
        Self::Sequences(sequences)
    }
}

impl fmt::Display for BatchSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str(AUTO),
            Self::Sequences(sequences) => sequences.fmt(f),
        }
    }
}

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == AUTO {
            return Ok(Self::Auto);
        }
        let sequences = text.parse().map_err(|_| format!("expected {EXPECTED}"))?;
        Ok(Self::Sequences(sequences))
    }
}

impl Serialize for BatchSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str(AUTO),
            Self::Sequences(sequences) => serializer.serialize_u64(*sequences as u64),
        }
    }
}

impl<'de> Deserialize<'de> for BatchSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        number_or_text::deserialize(deserializer, EXPECTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_files_hold_a_number_or_auto() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct File {
            batch: BatchSize,
        }
        for text in ["batch = 4\n", "batch = \"auto\"\n"] {
            let file: File = toml::from_str(text).unwrap();
            assert_eq!(toml::to_string(&file).unwrap(), text);
            assert_eq!(file.batch.to_string().parse(), Ok(file.batch));
        }
        for text in ["batch = true\n", "batch = -1\n", "batch = \"many\"\n"] {
            let error = toml::from_str::<File>(text).unwrap_err();
            assert!(
                error.message().contains("expected a number of sequences, or auto"),
                "{error}"
            );
        }
    }
}
