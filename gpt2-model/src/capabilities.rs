//! What each backend can do. Facts and arithmetic alone: no tensors, and always compiled.

use std::fmt;

/// A backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    /// NVIDIA GPUs.
    Cuda,
    /// GPUs through Vulkan, Metal or DirectX.
    Wgpu,
    /// The CPU, on burn-ndarray's arrays.
    Ndarray,
    /// The CPU, on burn-flex's tensors.
    Flex,
}

impl BackendKind {
    /// Every backend, the one to prefer first.
    pub const ALL: [Self; 4] = [Self::Cuda, Self::Wgpu, Self::Ndarray, Self::Flex];

    /// Its name in run files and flags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Wgpu => "wgpu",
            Self::Ndarray => "ndarray",
            Self::Flex => "flex",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
