//! How much memory a step leaves in use.

use crate::hardware::HostMemory;
use crate::step_log::StepRecord;
use gpt2_backend::{DeviceMemory, DeviceProbe};
use std::sync::Arc;

/// Looks at the process's and the device's memory after a step.
pub(super) struct MemoryMeter {
    probe: Arc<dyn DeviceProbe + Send + Sync>,
    /// Asking the device may drain its queue, so after the first steps it is asked only every so many.
    every: u64,
    peak_reserved: u64,
}

impl MemoryMeter {
    pub(super) fn new(probe: Arc<dyn DeviceProbe + Send + Sync>, every: u64) -> Self {
        Self {
            probe,
            every: every.max(1),
            peak_reserved: 0,
        }
    }

    /// Fills in the memory of `record`. `settling` steps set the peak, so the device is asked after each of them.
    pub(super) fn measure(&mut self, record: &mut StepRecord, settling: bool) {
        let HostMemory { resident, peak } = HostMemory::now();
        record.host_mem_bytes = resident;
        record.host_peak_bytes = peak;
        if !settling && !record.step.is_multiple_of(self.every) {
            return;
        }
        if let Some(DeviceMemory {
            in_use,
            reserved,
            driver_used,
        }) = self.probe.memory()
        {
            self.peak_reserved = self.peak_reserved.max(reserved);
            record.device_mem_bytes = Some(in_use);
            record.device_reserved_bytes = Some(reserved);
            record.device_peak_bytes = Some(self.peak_reserved);
            record.device_driver_bytes = driver_used;
        }
    }
}
