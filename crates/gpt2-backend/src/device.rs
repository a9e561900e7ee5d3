//! The devices of each backend.

use crate::cpu;
use crate::error::Unavailable;
use gpt2_model::capabilities::BackendKind;

/// A device that a backend could use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number among the backend's devices, from 0.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Its memory in bytes, where the backend tells.
    pub memory_bytes: Option<u64>,
    /// What it is.
    pub kind: DeviceKind,
}

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The host's processor.
    Cpu,
    /// A GPU.
    Gpu,
    /// A software adapter: a driver that computes a GPU's work on the CPU.
    SoftwareGpu,
}

/// The devices of a backend, at least one.
///
/// # Errors
/// Why there is none.
pub fn devices(backend: BackendKind) -> Result<Vec<DeviceInfo>, Unavailable> {
    match backend {
        BackendKind::Ndarray if cfg!(feature = "ndarray") => Ok(cpu::devices()),
        BackendKind::Flex if cfg!(feature = "flex") => Ok(cpu::devices()),
        #[cfg(feature = "wgpu")]
        BackendKind::Wgpu => crate::wgpu::devices(),
        #[cfg(feature = "cuda")]
        BackendKind::Cuda => crate::cuda::devices(),
        _ => Err(Unavailable::NotBuilt),
    }
}
