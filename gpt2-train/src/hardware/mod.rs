//! What this process takes of the host.

mod host;

pub use host::HostMemory;
