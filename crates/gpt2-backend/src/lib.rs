//! The one place that names backends: which there are on this machine, what is known of their devices, and how generic code
//! runs on the one that is chosen.
//!
//! ```
//! use gpt2_backend::{BackendChoice, Chosen, InferenceJob, dispatch_inference};
//! use gpt2_model::ops::Gpt2Backend;
//!
//! struct Name;
//!
//! impl InferenceJob for Name {
//!     type Output = String;
//!
//!     fn run<B: Gpt2Backend>(self, device: B::Device) -> String {
//!         B::name(&device)
//!     }
//! }
//!
//! if let Ok(chosen) = Chosen::decide(BackendChoice::Auto, 0) {
//!     println!("{}", dispatch_inference(&chosen, Name)?);
//! }
//! # Ok::<(), gpt2_backend::BackendError>(())
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
mod generate;
mod host;
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
pub use dispatch::{InferenceJob, TrainingJob, dispatch, dispatch_inference};
pub use error::{BackendError, Unavailable};
pub use generate::{GenerateError, Generation};
pub use gpt2_model::capabilities::BackendKind;
pub use host::HostFacts;
pub use peak::{Arithmetic, peak_flops};
pub use probe::{DeviceMemory, DeviceProbe};
pub use threads::thread_pool;
