//! Where the weights of an evaluation come from.

use burn::tensor::backend::Backend;
use gpt2_model::{Gpt2, Gpt2Config, ModelError};
use std::path::Path;

/// The shape of the model at `path`, without its weights.
///
/// # Errors
/// Those of [`gpt2_model::weights::load_config`].
pub fn load_config(path: &Path) -> Result<Gpt2Config, ModelError> {
    gpt2_model::weights::load_config(path)
}

/// The model at `path`, on `device`.
///
/// # Errors
/// Those of [`gpt2_model::weights::load_hf`].
pub fn load<B: Backend>(path: &Path, device: &B::Device) -> Result<Gpt2<B>, ModelError> {
    gpt2_model::weights::load_hf(path, device)
}
