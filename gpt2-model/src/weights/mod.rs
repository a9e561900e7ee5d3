//! Weights in files: Hugging Face's layout, which is also this project's own, llm.c's checkpoints, and GGUF.
//!
//! Whatever the format, a tensor has the name and the shape of the parameter that it is for: `h.0.attn.c_attn.weight`,
//! `[in, out]`. Tensors are read and written one at a time.

use crate::error::ModelError;
use safetensors::io;
use std::fs::File;
use std::path::Path;

mod any;
mod bytes;
mod dtype;
mod gguf;
mod hf;
mod hf_config;
mod llmc;
mod names;
mod safetensors;
mod transpose;

pub use any::{Format, Weights, load_config};
pub use dtype::Dtype;
pub use gguf::{GgufVocabulary, save_gguf};
pub use hf::{save_hf, save_hf_parameters};
pub use llmc::save_llmc;
pub use names::{NamedVisitor, parameter_names, parameters, visit_parameters};
pub use safetensors::{LazyTensor, NamedTensor, read_tensors, write_tensors};

/// A file to read, which is none that waits for somebody to write to it.
fn open(path: &Path) -> Result<File, ModelError> {
    let is_file = std::fs::metadata(path).map_err(|source| io(path, source))?.is_file();
    if !is_file {
        return Err(ModelError::NotTheFile {
            path: path.to_owned(),
            found: "no regular file: weights are read more than once and in any order; write them to one".to_owned(),
        });
    }
    File::open(path).map_err(|source| io(path, source))
}
