//! The devices of each backend.

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
