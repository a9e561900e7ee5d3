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

impl DeviceInfo {
    /// The memory that each of `processes` on this host has, where the backend tells: GPUs have their own, all else is the
    /// host's.
    pub fn memory_of_process(&self, processes: usize) -> Option<u64> {
        let memory = self.memory_bytes?;
        Some(match self.kind {
            DeviceKind::Gpu => memory,
            DeviceKind::Cpu | DeviceKind::SoftwareGpu => memory / processes.max(1) as u64,
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_share_the_memory_of_the_host() {
        let device = |kind| DeviceInfo {
            index: 0,
            name: String::new(),
            memory_bytes: Some(12),
            kind,
        };
        assert_eq!(device(DeviceKind::Cpu).memory_of_process(3), Some(4));
        assert_eq!(device(DeviceKind::SoftwareGpu).memory_of_process(2), Some(6));
        assert_eq!(device(DeviceKind::Gpu).memory_of_process(2), Some(12));
    }
}
