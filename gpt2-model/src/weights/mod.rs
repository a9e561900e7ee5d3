//! Weights in files: Hugging Face's layout, which is also this project's own.

mod hf;
mod io;
mod named;

pub use hf::{load_config, load_hf, load_hf_as, save_hf};
pub use io::{NamedTensor, read_tensors, write_tensors};
pub use named::{NamedVisitor, load_parameters, parameter_names, parameters, visit_parameters};
