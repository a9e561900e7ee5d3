//! What a backend tells about its device while a run goes on.

/// Memory of a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// Held by live tensors.
    pub in_use: u64,
    /// Held by the backend's pool, in use or not.
    pub reserved: u64,
    /// Held on the whole device by anyone, as its driver counts; none where the driver is not asked.
    pub driver_used: Option<u64>,
}

/// Facts about the device that a run computes on.
pub trait DeviceProbe {
    /// The device's name, such as `NVIDIA H100 80GB HBM3`.
    fn name(&self) -> String;

    /// Memory now, or none on a device without memory of its own. May wait for the device's queue to drain.
    fn memory(&self) -> Option<DeviceMemory>;

    /// All of the device's memory in bytes, if it is known.
    fn total_memory(&self) -> Option<u64>;

    /// Kernels of a training step that this process has compiled so far, or had the driver look up.
    fn compiled_kernels(&self) -> usize {
        0
    }
}
