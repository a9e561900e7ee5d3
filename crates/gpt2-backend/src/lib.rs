//! The one place that names backends: which there are on this machine, what is known of their devices, and how generic code
//! runs on the one that is chosen.
//!
//! ```no_run
//! use gpt2_backend::{BackendChoice, Chosen};
//! use gpt2_model::{Precision, sampling::Sampling};
//!
//! # fn main() -> Result<(), gpt2_backend::InferenceError> {
//! let chosen = Chosen::decide(BackendChoice::Auto, 0)?;
//! let tokens: Vec<_> = chosen.with_model("models/gpt2".as_ref(), Precision::F32, |model| {
//!     model.generate(&[464, 17700], Sampling::default(), 1).take(16).collect()
//! })?;
//! # Ok(())
//! # }
//! ```

mod choice;
mod chosen;
mod cpu;
mod cubecl_strings;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod devices;
mod dispatch;
mod error;
mod host;
mod inference;
mod peak;
mod probe;
mod threads;
mod visit;
#[cfg(feature = "wgpu")]
mod wgpu;

pub use choice::BackendChoice;
pub use chosen::Chosen;
pub use cubecl_strings::{is_device_thread, is_out_of_memory};
pub use device::{DeviceInfo, DeviceKind};
pub use devices::devices;
pub use dispatch::{TrainingJob, dispatch};
pub use error::{BackendError, Unavailable};
pub use gpt2_model::capabilities::BackendKind;
pub use host::HostFacts;
pub use inference::InferenceError;
pub use peak::{Arithmetic, peak_flops};
pub use probe::{DeviceMemory, DeviceProbe};
pub use threads::thread_pool;
