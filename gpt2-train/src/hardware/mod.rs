//! What a run runs on: facts about the host, a view on the device's memory, and what GPUs can do at their best.

mod device;
mod host;
mod peak;

pub use device::{DeviceMemory, DeviceProbe};
pub use host::{HostFacts, HostMemory};
pub use peak::{Arithmetic, peak_flops};
