//! What the caller found out before a plan can be made: about the data, the machine and the weights to start from.

use gpt2_model::Gpt2Config;
use gpt2_model::capabilities::BackendKind;
use std::path::PathBuf;

/// What there is to train on, as the data's manifest says.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSummary {
    /// The corpus's name, for people and reports.
    pub name: String,
    /// Tokens to train on.
    pub train_tokens: u64,
    /// Tokens to validate on.
    pub val_tokens: u64,
    /// The lowest loss that any model can reach, in nats a token, where the corpus was made so that it is known.
    pub floor: Option<f64>,
}

/// What a plan depends on besides the settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Environment {
    /// The data that the settings name.
    pub data: DataSummary,
    /// The run directory if none is set.
    pub default_run: PathBuf,
    /// What the backend `auto` is here.
    pub auto_backend: BackendKind,
    /// Processors that this process may use, its share of them where several train together.
    pub cores: usize,
    /// Number of the device that was chosen.
    pub device: usize,
    /// The device's memory, where it is known.
    pub memory_bytes: Option<u64>,
    /// Whether it is the host's, in which a checkpoint is copied.
    pub memory_is_of_host: bool,
    /// The shape of the weights that the run begins with, at `init` or in the checkpoint that it goes on from.
    pub init_model: Option<Gpt2Config>,
}

#[cfg(test)]
impl Environment {
    /// Two cores and a corpus of a few epochs' worth.
    pub(crate) fn sample() -> Self {
        Self {
            data: DataSummary {
                name: "stories".into(),
                train_tokens: 1_000_000,
                val_tokens: 50_000,
                floor: Some(1.25),
            },
            default_run: "runs/demo".into(),
            auto_backend: BackendKind::Ndarray,
            cores: 2,
            device: 0,
            memory_bytes: None,
            memory_is_of_host: true,
            init_model: None,
        }
    }
}
