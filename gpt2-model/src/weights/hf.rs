//! A GPT-2 as Hugging Face transformers saves it: `config.json` and `model.safetensors` in one directory, or several files
//! of tensors that `model.safetensors.index.json` lists.
//!
//! Its `Conv1D` weights are `[in, out]` as Burn's are, so nothing is transposed. Names may carry the prefix
//! `transformer.` or not. `lm_head.weight` may be there if it equals the token embedding. The buffers `attn.bias` and
//! `attn.masked_bias` of old files are passed over.

use super::hf_config::{HfConfig, files};
use super::names::{TOKEN_EMBEDDING, TensorSource, lazy_parameters, load_parameters};
use super::safetensors::{TensorFile, io, quoted, write_lazy_tensors};
use crate::config::Gpt2Config;
use crate::error::ModelError;
use crate::model::Gpt2;
use burn::tensor::backend::Backend;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const WEIGHTS_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// Before every name but the classifier's.
const PREFIX: &str = "transformer.";
/// The classifier.
const HEAD: &str = "lm_head.weight";

/// The model in a directory that transformers or [`save_hf`] wrote.
///
/// # Errors
/// As [`load_config`](super::load_config) and [`load_hf_as`].
pub fn load_hf<B: Backend>(dir: &Path, device: &B::Device) -> Result<Gpt2<B>, ModelError> {
    let config = HfConfig::read(dir)?;
    load(&config.model, config.tie_word_embeddings, dir, device)
}

/// The weights in such a directory, in a model of the given configuration: with another dropout, say.
///
/// # Errors
/// As [`load_config`](super::load_config); [`ModelError::NoModel`] or [`ModelError::NotTheFile`] where the weights are not
/// there or of another kind, [`ModelError::SafeTensors`] where they are damaged, [`ModelError::UntiedHead`] where the
/// classifier is not the token embedding; [`ModelError::MissingTensor`], [`ModelError::UnexpectedTensor`] or
/// [`ModelError::TensorMismatch`] where they are of another shape than `config` says.
pub fn load_hf_as<B: Backend>(config: &Gpt2Config, dir: &Path, device: &B::Device) -> Result<Gpt2<B>, ModelError> {
    load(config, HfConfig::read(dir)?.tie_word_embeddings, dir, device)
}

fn load<B: Backend>(config: &Gpt2Config, tied: bool, dir: &Path, device: &B::Device) -> Result<Gpt2<B>, ModelError> {
    let tensors = HfTensors::open(dir)?;
    tensors.check_head(tied)?;
    load_parameters(config.zeros(device)?, &tensors)
}

/// Writes the model into `dir`, which must exist, so that transformers opens it: `model.safetensors`, `config.json` and
/// `generation_config.json`. Each file is whole and on the disk when this returns.
///
/// # Errors
/// [`ModelError::Io`].
pub fn save_hf<B: Backend>(model: &Gpt2<B>, dir: &Path) -> Result<(), ModelError> {
    let mut tensors = lazy_parameters(model);
    for tensor in &mut tensors {
        tensor.name.insert_str(0, PREFIX);
    }
    write_lazy_tensors(&dir.join(WEIGHTS_FILE), tensors)?;
    for (name, json) in files(&model.config) {
        let path = dir.join(name);
        gpt2_base::fs::write(&path, format!("{json:#}\n").as_bytes()).map_err(|source| io(&path, source))?;
    }
    Ok(())
}

/// A parameter's place: the number of the file, and its name there.
type Place = (usize, String);

/// The tensors of a model's directory.
struct HfTensors {
    /// The file of tensors, or the index of several.
    path: PathBuf,
    files: Vec<TensorFile>,
    /// By the names of the parameters.
    places: BTreeMap<String, Place>,
    head: Option<Place>,
}

impl HfTensors {
    fn open(dir: &Path) -> Result<Self, ModelError> {
        let (path, files) = open_files(dir)?;
        let (mut places, mut head) = (BTreeMap::new(), None);
        for (i, file) in files.iter().enumerate() {
            for full in file.names() {
                let name = full.strip_prefix(PREFIX).unwrap_or(&full).to_owned();
                if name == HEAD {
                    head = Some((i, full));
                } else if !is_buffer(&name)
                    && let Some((_, first)) = places.insert(name, (i, full))
                {
                    return Err(ModelError::UnexpectedTensor {
                        path: file.path().to_owned(),
                        name: first,
                    });
                }
            }
        }
        Ok(Self {
            path,
            files,
            places,
            head,
        })
    }

    /// Refuses a classifier that is not the token embedding. transformers' versions differ in which of the two they take
    /// where `tied` says one thing and the file another.
    fn check_head(&self, tied: bool) -> Result<(), ModelError> {
        let embedding = self.places.get(TOKEN_EMBEDDING);
        let reason = match (&self.head, embedding) {
            (Some(head), Some(embedding)) if self.bytes(head) != self.bytes(embedding) => {
                "it differs from the token embedding"
            }
            (None, _) if !tied => "it is missing, and config.json says `tie_word_embeddings` is false",
            _ => return Ok(()),
        };
        Err(ModelError::UntiedHead {
            path: self.path.clone(),
            reason,
        })
    }

    fn bytes(&self, (file, name): &Place) -> Option<impl PartialEq + '_> {
        let shape = self.files[*file].shape(name);
        self.files[*file].bytes(name).map(|bytes| (shape, bytes))
    }
}

impl TensorSource for HfTensors {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        let (file, name) = self.places.get(name)?;
        self.files[*file].shape(name)
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let (file, name) = &self.places[name];
        self.files[*file].read(name)
    }
}

/// The causal mask and what it masks with, which old versions of transformers saved with the weights.
fn is_buffer(name: &str) -> bool {
    name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
}

/// The files of tensors in `dir`, and the one that stands for them in messages.
fn open_files(dir: &Path) -> Result<(PathBuf, Vec<TensorFile>), ModelError> {
    let path = dir.join(WEIGHTS_FILE);
    if path.exists() {
        let file = TensorFile::open(&path)?;
        return Ok((path, vec![file]));
    }
    let path = dir.join(INDEX_FILE);
    if !path.exists() {
        return Err(ModelError::NoModel {
            path: dir.to_owned(),
            reason: no_weights(dir)?,
        });
    }
    let files = read_index(&path)?
        .iter()
        .map(|name| TensorFile::open(&dir.join(name)))
        .collect::<Result<_, _>>()?;
    Ok((path, files))
}

/// The names of the files that an index lists.
fn read_index(path: &Path) -> Result<BTreeSet<String>, ModelError> {
    #[derive(Deserialize)]
    struct Index {
        /// The file of each tensor.
        weight_map: BTreeMap<String, String>,
    }
    let wrong = |reason| ModelError::HfConfig {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|source| io(path, source))?;
    let index: Index = serde_json::from_str(&text)
        .map_err(|error| wrong(format!("not an index of safetensors files (`weight_map`): {error}")))?;
    let files: BTreeSet<String> = index.weight_map.into_values().collect();
    match files
        .iter()
        .find(|name| Path::new(name).file_name() != Some(name.as_ref()))
    {
        Some(name) => Err(wrong(format!(
            "`weight_map` names {name:?}, expected a file in the same directory"
        ))),
        None => Ok(files),
    }
}

/// Why a directory has no weights, and what to do.
fn no_weights(dir: &Path) -> Result<String, ModelError> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect()
        })
        .map_err(|source| io(dir, source))?;
    names.sort();
    let is_pickle = |name: &&String| {
        let ending = Path::new(name.as_str()).extension().and_then(|ending| ending.to_str());
        name.starts_with("pytorch_model") || ending.is_some_and(|ending| ["pt", "pth", "ckpt"].contains(&ending))
    };
    Ok(match names.iter().find(is_pickle) {
        Some(pickle) => format!(
            "no {WEIGHTS_FILE} in it, but {pickle}, a pickle of PyTorch's, which can run any code when it is opened: if you \
             trust it, convert it by `python3 -c 'import sys; from transformers import GPT2LMHeadModel as M; \
             M.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[1])' {}`",
            quoted(dir)
        ),
        None => format!("no weights in it: expected {WEIGHTS_FILE}, or {INDEX_FILE} with the files that it lists"),
    })
}
