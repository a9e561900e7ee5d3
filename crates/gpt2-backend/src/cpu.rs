//! The CPU, as both of its backends see it.

use crate::device::{DeviceInfo, DeviceKind};
use crate::host::HostFacts;
use crate::probe::{DeviceMemory, DeviceProbe};

pub(crate) fn devices() -> Vec<DeviceInfo> {
    let host = HostFacts::detect();
    let name = format!("{}, {} cores", host.cpu.as_deref().unwrap_or("CPU"), host.cores);
    vec![DeviceInfo {
        index: 0,
        name,
        memory_bytes: Some(host.memory_bytes),
        kind: DeviceKind::Cpu,
    }]
}

/// The CPU's memory is the process's, which the training loop measures itself.
pub(crate) struct Probe {
    device: DeviceInfo,
}

impl Probe {
    pub(crate) fn new(device: &DeviceInfo) -> Self {
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
