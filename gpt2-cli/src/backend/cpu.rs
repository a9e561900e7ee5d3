//! The CPU, as both of its backends see it.

use super::DeviceInfo;
use gpt2_train::hardware::{DeviceMemory, DeviceProbe, HostFacts};

pub(super) fn devices() -> Vec<DeviceInfo> {
    let host = HostFacts::detect();
    let name = format!("{}, {} cores", host.cpu.as_deref().unwrap_or("CPU"), host.cores);
    vec![DeviceInfo {
        index: 0,
        name,
        memory_bytes: Some(host.memory_bytes),
        note: None,
    }]
}

/// The CPU's memory is the process's, which the training loop measures itself.
pub(super) struct Probe {
    device: DeviceInfo,
}

impl Probe {
    pub(super) fn new(device: &DeviceInfo) -> Self {
        Self { device: device.clone() }
    }
}

impl DeviceProbe for Probe {
    fn name(&self) -> String {
        self.device.name.clone()
    }

    fn memory(&self) -> Option<DeviceMemory> {
        None
    }

    fn total_memory(&self) -> Option<u64> {
        self.device.memory_bytes
    }
}
