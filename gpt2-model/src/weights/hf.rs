//! A GPT-2 as Hugging Face transformers saves it: `config.json` and `model.safetensors` in one directory, or several files
//! of tensors that `model.safetensors.index.json` lists.
//!
//! Its `Conv1D` weights are `[in, out]` as Burn's are, so nothing is transposed. Names may carry the prefix
//! `transformer.` or not. `lm_head.weight` of a tied classifier may be there if it equals the token embedding. The buffers `attn.bias` and
//! `attn.masked_bias` of old files are passed over.

use super::dtype::Dtype;
use super::hf_config::files;
use super::names::{HEAD, TOKEN_EMBEDDING, TensorSource, lazy_parameters};
use super::safetensors::{LazyTensor, NamedTensor, TensorFile, io, quoted, write_lazy_tensors};
use crate::config::Gpt2Config;
use crate::error::ModelError;
use crate::model::Gpt2;
use crate::ops::Gpt2Backend;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const WEIGHTS_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";

/// Before every name but the classifier's.
const PREFIX: &str = "transformer.";

/// Writes the model into `dir`, which must exist, so that transformers opens it: `model.safetensors`, `config.json` and
/// `generation_config.json`. Each file is whole and on the disk when this returns.
///
/// # Errors
/// [`ModelError::Io`].
pub fn save_hf<B: Gpt2Backend>(model: &Gpt2<B>, dir: &Path) -> Result<(), ModelError> {
    write(&model.config, lazy_parameters(model), dir, Dtype::F32)
}

/// [`save_hf`] of a model with these parameters, as [`parameters`](super::parameters) copied them.
///
/// # Errors
/// [`ModelError::Io`].
pub fn save_hf_parameters(config: &Gpt2Config, parameters: &[NamedTensor], dir: &Path) -> Result<(), ModelError> {
    write(
        config,
        parameters.iter().map(NamedTensor::lazy).collect(),
        dir,
        Dtype::F32,
    )
}

/// [`save_hf`] of tensors by the names of parameters, in `dtype`.
pub(super) fn write(
    config: &Gpt2Config,
    mut tensors: Vec<LazyTensor>,
    dir: &Path,
    dtype: Dtype,
) -> Result<(), ModelError> {
    for tensor in tensors.iter_mut().filter(|tensor| tensor.name != HEAD) {
        tensor.name.insert_str(0, PREFIX);
    }
    write_lazy_tensors(&dir.join(WEIGHTS_FILE), tensors, dtype)?;
    for (name, json) in files(config, dtype) {
        let path = dir.join(name);
        gpt2_base::fs::write(&path, format!("{json:#}\n").as_bytes()).map_err(|source| io(&path, source))?;
    }
    Ok(())
}

/// A parameter's place: the number of the file, and its name there.
type Place = (usize, String);

/// The tensors of a model's directory, or of one file.
pub(super) struct HfTensors {
    /// The file of tensors, or the index of several.
    path: PathBuf,
    files: Vec<TensorFile>,
    /// By the names of the parameters.
    places: BTreeMap<String, Place>,
}

impl HfTensors {
    /// Those in the directory, or in the one file, at `path`, for a model with a classifier of its own or, `tied`, without.
    pub(super) fn open(path: &Path, tied: bool) -> Result<Self, ModelError> {
        let (path, files) = open_files(path)?;
        let (mut places, mut head) = (BTreeMap::new(), None);
        for (i, file) in files.iter().enumerate() {
            for full in file.names() {
                let name = full.strip_prefix(PREFIX).unwrap_or(&full).to_owned();
                if name == HEAD && tied {
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
        let tensors = Self { path, files, places };
        tensors.check_head(head.as_ref())?;
        Ok(tensors)
    }

    /// Refuses a classifier in the file that is not the token embedding though it should be. transformers' versions differ in
    /// which of the two they take then.
    fn check_head(&self, head: Option<&Place>) -> Result<(), ModelError> {
        match (head, self.places.get(TOKEN_EMBEDDING)) {
            (Some(head), Some(embedding)) if self.bytes(head) != self.bytes(embedding) => Err(ModelError::UntiedHead {
                path: self.path.clone(),
            }),
            _ => Ok(()),
        }
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

    fn names(&self) -> Vec<&str> {
        self.places.keys().map(String::as_str).collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        let (file, name) = self.places.get(name)?;
        self.files[*file].shape(name)
    }

    fn check_type(&self, name: &str) -> Result<(), ModelError> {
        match self.places.get(name) {
            Some((file, name)) => self.files[*file].check_type(name),
            None => Ok(()),
        }
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

/// The files of tensors in `dir`, or that one file, and the one that stands for them in messages.
fn open_files(dir: &Path) -> Result<(PathBuf, Vec<TensorFile>), ModelError> {
    if dir.is_file() {
        return Ok((dir.to_owned(), vec![TensorFile::open(dir)?]));
    }
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
