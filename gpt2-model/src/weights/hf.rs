//! A GPT-2 as Hugging Face transformers saves it: `config.json` and `model.safetensors` in one directory.
//!
//! Its `Conv1D` weights are `[in, out]` as Burn's are, so nothing is transposed. Names may carry the prefix
//! `transformer.` or not; the tied `lm_head.weight` and the buffers `attn.bias` and `attn.masked_bias` of old files are
//! passed over.

use super::io::{io, read_tensors, write_tensors};
use super::named::{load_parameters, parameters};
use crate::config::Gpt2Config;
use crate::error::ModelError;
use crate::model::Gpt2;
use burn::tensor::backend::Backend;
use serde_json::{Value, json};
use std::path::Path;

const CONFIG_FILE: &str = "config.json";
const WEIGHTS_FILE: &str = "model.safetensors";

/// The configuration in a directory that transformers or [`save_hf`] wrote. Dropout is 0: it belongs to training.
///
/// # Errors
/// [`ModelError::Io`] or [`ModelError::HfConfig`], which names the field.
pub fn load_config(dir: &Path) -> Result<Gpt2Config, ModelError> {
    let path = dir.join(CONFIG_FILE);
    let text = std::fs::read_to_string(&path).map_err(|source| io(&path, source))?;
    let wrong = |reason: String| ModelError::HfConfig {
        path: path.clone(),
        reason,
    };
    let json: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if json["model_type"] != "gpt2" {
        return Err(wrong(format!(
            "`model_type` is {}, expected \"gpt2\"",
            json["model_type"]
        )));
    }
    // Absent fields have transformers' defaults, which are those of GPT-2 124M.
    let activation = json["activation_function"].as_str().unwrap_or("gelu_new");
    if !["gelu_new", "gelu_pytorch_tanh"].contains(&activation) {
        return Err(wrong(format!(
            "`activation_function` is \"{activation}\", expected \"gelu_new\""
        )));
    }
    let eps = json["layer_norm_epsilon"].as_f64().unwrap_or(1e-5);
    if (eps - 1e-5).abs() > 1e-9 {
        return Err(wrong(format!("`layer_norm_epsilon` is {eps}, expected 1e-5")));
    }
    if let Some(inner) = json["n_inner"].as_u64()
        && Some(inner) != json["n_embd"].as_u64().map(|n| 4 * n)
    {
        return Err(wrong(format!("`n_inner` is {inner}, expected 4 · n_embd")));
    }
    let size = |field: &str, default: usize| match &json[field] {
        Value::Null => Ok(default),
        value => value
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| wrong(format!("`{field}` is {value}, expected a whole number"))),
    };
    let config = Gpt2Config {
        vocab_size: size("vocab_size", 50_257)?,
        block_size: size("n_positions", 1024)?,
        n_layer: size("n_layer", 12)?,
        n_head: size("n_head", 12)?,
        n_embd: size("n_embd", 768)?,
        dropout: 0.0,
    };
    config.validate()?;
    Ok(config)
}

/// The model in a directory that transformers or [`save_hf`] wrote.
///
/// # Errors
/// As [`load_config`] and [`load_parameters`].
pub fn load_hf<B: Backend>(dir: &Path, device: &B::Device) -> Result<Gpt2<B>, ModelError> {
    load_hf_as(&load_config(dir)?, dir, device)
}

/// The weights in such a directory, in a model of the given configuration: with another dropout, say.
///
/// # Errors
/// As [`load_parameters`], where the weights are of another shape than `config` says.
pub fn load_hf_as<B: Backend>(config: &Gpt2Config, dir: &Path, device: &B::Device) -> Result<Gpt2<B>, ModelError> {
    let path = dir.join(WEIGHTS_FILE);
    let mut tensors = read_tensors(&path)?;
    tensors.retain_mut(|tensor| {
        if let Some(name) = tensor.name.strip_prefix("transformer.") {
            tensor.name = name.to_owned();
        }
        tensor.name != "lm_head.weight"
            && !tensor.name.ends_with(".attn.bias")
            && !tensor.name.ends_with(".attn.masked_bias")
    });
    load_parameters(config.init(0, device)?, tensors, &path)
}

/// Writes the model into `dir`, which must exist, so that transformers opens it.
///
/// # Errors
/// [`ModelError::Io`].
pub fn save_hf<B: Backend>(model: &Gpt2<B>, dir: &Path) -> Result<(), ModelError> {
    let config = &model.config;
    let json = json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "bos_token_id": config.vocab_size - 1,
        "eos_token_id": config.vocab_size - 1,
        "tie_word_embeddings": true,
        "torch_dtype": "float32",
    });
    let mut tensors = parameters(model);
    for tensor in &mut tensors {
        tensor.name.insert_str(0, "transformer.");
    }
    write_tensors(&dir.join(WEIGHTS_FILE), &tensors)?;
    let path = dir.join(CONFIG_FILE);
    std::fs::write(&path, format!("{json:#}\n"))
        .and_then(|()| std::fs::File::open(&path)?.sync_all())
        .map_err(|source| io(&path, source))
}
