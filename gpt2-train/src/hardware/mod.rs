//! What a run runs on: facts about the host and this process, and a view on the device's memory.

mod git;
mod host;

pub use git::commit;
pub use gpt2_backend::{DeviceMemory, DeviceProbe, HostFacts};
pub use host::HostMemory;
