//! Which backend a run asks for.

use gpt2_model::capabilities::BackendKind;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where tensors are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum BackendChoice {
    /// CUDA if a device answers, then a real Vulkan GPU, then the CPU.
    #[default]
    Auto,
    /// The CPU, with a BLAS library.
    Ndarray,
    /// The CPU, with Burn's newer tensors and the same operations, and `bf16` on processors with AMX.
    Flex,
    /// A GPU through Vulkan, Metal or DirectX.
    Wgpu,
    /// An NVIDIA GPU.
    Cuda,
}

impl BackendChoice {
    /// Every choice.
    pub const ALL: [Self; 5] = [Self::Auto, Self::Ndarray, Self::Flex, Self::Wgpu, Self::Cuda];

    /// The backend that is asked for; none for [`Auto`](Self::Auto).
    pub fn kind(self) -> Option<BackendKind> {
        match self {
            Self::Auto => None,
            Self::Ndarray => Some(BackendKind::Ndarray),
            Self::Flex => Some(BackendKind::Flex),
            Self::Wgpu => Some(BackendKind::Wgpu),
            Self::Cuda => Some(BackendKind::Cuda),
        }
    }
}

impl From<BackendKind> for BackendChoice {
    fn from(kind: BackendKind) -> Self {
        match kind {
            BackendKind::Cuda => Self::Cuda,
            BackendKind::Wgpu => Self::Wgpu,
            BackendKind::Ndarray => Self::Ndarray,
            BackendKind::Flex => Self::Flex,
        }
    }
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().map_or("auto", BackendKind::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_spell_the_words_as_files_do() {
        assert_eq!(BackendChoice::default().to_string(), "auto");
        for kind in BackendKind::ALL {
            let choice = BackendChoice::from(kind);
            assert_eq!(choice.kind(), Some(kind));
            assert_eq!(serde_json::to_value(choice).unwrap(), choice.to_string());
            assert_eq!(kind.to_string(), choice.to_string());
        }
    }
}
