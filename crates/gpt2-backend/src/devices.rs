//! The devices that a backend finds on this machine.

use crate::device::DeviceInfo;
use crate::error::Unavailable;
use gpt2_model::capabilities::BackendKind;

/// The devices of a backend, at least one.
///
/// # Errors
/// Why there is none.
pub fn devices(backend: BackendKind) -> Result<Vec<DeviceInfo>, Unavailable> {
    match backend {
        BackendKind::Ndarray if cfg!(feature = "ndarray") => Ok(crate::cpu::devices()),
        BackendKind::Flex if cfg!(feature = "flex") => Ok(crate::cpu::devices()),
        #[cfg(feature = "wgpu")]
        BackendKind::Wgpu => crate::wgpu::devices(),
        #[cfg(feature = "cuda")]
        BackendKind::Cuda => crate::cuda::devices(),
        _ => Err(Unavailable::NotBuilt),
    }
}
