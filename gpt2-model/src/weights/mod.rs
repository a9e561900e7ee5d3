//! Weights in files: Hugging Face's layout, which is also this project's own.

mod hf;
mod hf_config;
mod names;
mod safetensors;

pub use hf::{load_hf, load_hf_as, save_hf};
pub use hf_config::load_config;
pub use names::{NamedVisitor, parameter_names, parameters, visit_parameters};
pub use safetensors::{LazyTensor, NamedTensor, read_tensors, write_lazy_tensors, write_tensors};
