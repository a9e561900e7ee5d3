//! Weights of a GPT-2 in whichever of the formats.

use super::dtype::Dtype;
use super::gguf::{self, GgufFile, GgufVocabulary};
use super::hf::{self, HfTensors};
use super::hf_config;
use super::llmc::{self, LlmcFile};
use super::names::{Shape, TensorSource, check_parameters, load_parameters, shapes};
use super::safetensors::LazyTensor;
use crate::config::Gpt2Config;
use crate::error::ModelError;
use crate::model::Gpt2;
use burn::tensor::backend::Backend;
use std::borrow::Cow;
use std::fmt;
use std::io::Read as _;
use std::path::Path;

/// A format of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A directory of Hugging Face transformers' files.
    Hf,
    /// A checkpoint of llm.c, one file.
    Llmc,
    /// llama.cpp's, one file.
    Gguf,
}

impl Format {
    /// Its name in flags and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hf => "hf",
            Self::Llmc => "llmc",
            Self::Gguf => "gguf",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The weights of a GPT-2 on the disk, opened: their header is read and checked, and their tensors are read one by one.
pub struct Weights {
    config: Gpt2Config,
    format: Format,
    source: Box<dyn TensorSource + Send + Sync>,
}

impl Weights {
    /// Those at `path`: a directory of transformers' files or of a checkpoint of this project, a safetensors file next to
    /// its `config.json`, a checkpoint of llm.c, or a GGUF file.
    ///
    /// # Errors
    /// [`ModelError::NoModel`] or [`ModelError::NotTheFile`] where there are no weights; [`ModelError::HfConfig`],
    /// [`ModelError::SafeTensors`] or [`ModelError::WeightsFile`] where they are damaged or of a model that this crate does not
    /// compute; [`ModelError::MissingTensor`], [`ModelError::UnexpectedTensor`], [`ModelError::TensorMismatch`] or
    /// [`ModelError::UntiedHead`] where their tensors are not those of their configuration; [`ModelError::Io`].
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let format = format_of(path)?;
        let (config, source): (_, Box<dyn TensorSource + Send + Sync>) = match format {
            Format::Hf => {
                let config = hf_config::read(hf_dir(path))?;
                let tensors = HfTensors::open(path, config.variant.tie_word_embeddings)?;
                (config, Box::new(tensors))
            }
            Format::Llmc => {
                let file = LlmcFile::open(path)?;
                (file.config().clone(), Box::new(file))
            }
            Format::Gguf => {
                let file = GgufFile::open(path)?;
                (file.config().clone(), Box::new(file))
            }
        };
        check_parameters(&config, source.as_ref())?;
        Ok(Self { config, format, source })
    }

    /// Of which model. Dropout is 0: it belongs to training.
    pub fn config(&self) -> &Gpt2Config {
        &self.config
    }

    /// In which format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The model on `device`, of the given configuration: with another dropout, say. Nothing is drawn, and one tensor at a time
    /// is in memory besides the model.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`], [`ModelError::UnexpectedTensor`] or [`ModelError::TensorMismatch`] where the weights are
    /// of another shape than `config` says.
    pub fn load<B: Backend>(&self, config: &Gpt2Config, device: &B::Device) -> Result<Gpt2<B>, ModelError> {
        load_parameters(config, self.source.as_ref(), device)
    }

    /// Writes them in Hugging Face's format into the directory `dir`, which must exist, with their numbers in `dtype`. Each file
    /// is whole and on the disk when this returns.
    ///
    /// # Errors
    /// [`ModelError::Io`], or [`ModelError::BeyondType`].
    pub fn write_hf(&self, dir: &Path, dtype: Dtype) -> Result<(), ModelError> {
        hf::write(&self.config, self.tensors(), dir, dtype)
    }

    /// Writes them as a checkpoint of llm.c: version 3 in `f32`, version 5 in `bf16`. The file is whole and on the disk when
    /// this returns.
    ///
    /// # Errors
    /// [`ModelError::NotInFormat`] for what llm.c does not compute, [`ModelError::Io`] or [`ModelError::BeyondType`].
    pub fn write_llmc(&self, path: &Path, dtype: Dtype) -> Result<(), ModelError> {
        llmc::write(&self.config, self.tensors(), path, dtype)
    }

    /// Writes them as a GGUF file, with a vocabulary if there is one. Vectors and the position embedding stay `f32`, as
    /// llama.cpp wants them. The file is whole and on the disk when this returns.
    ///
    /// # Errors
    /// [`ModelError::NotInFormat`] for what llama.cpp does not compute, [`ModelError::Io`] or [`ModelError::BeyondType`].
    pub fn write_gguf(
        &self,
        path: &Path,
        dtype: Dtype,
        name: &str,
        vocabulary: Option<&GgufVocabulary>,
    ) -> Result<(), ModelError> {
        gguf::write(&self.config, self.tensors(), path, dtype, name, vocabulary)
    }

    fn tensors(&self) -> Vec<LazyTensor<'_>> {
        let lazy = |(name, shape): (String, Shape)| LazyTensor {
            shape: shape.dims().to_vec(),
            values: {
                let name = name.clone();
                Box::new(move || self.source.read(&name).map(Cow::Owned))
            },
            name,
        };
        shapes(&self.config).map(lazy).collect()
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weights")
            .field("path", &self.source.path())
            .field("format", &self.format)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<B: Backend> Gpt2<B> {
    /// The model at `path`, in whichever format [`Weights::open`] reads.
    ///
    /// # Errors
    /// Those of [`Weights::open`].
    pub fn load(path: impl AsRef<Path>, device: &B::Device) -> Result<Self, ModelError> {
        let weights = Weights::open(path.as_ref())?;
        weights.load(&weights.config, device)
    }
}

/// Of which model the weights at `path` are, without opening their tensors.
///
/// # Errors
/// Those of [`Weights::open`], as far as they are noticed.
pub fn load_config(path: &Path) -> Result<Gpt2Config, ModelError> {
    Ok(match format_of(path)? {
        Format::Hf => hf_config::read(hf_dir(path))?,
        Format::Llmc => LlmcFile::open(path)?.config().clone(),
        Format::Gguf => GgufFile::open(path)?.config().clone(),
    })
}

/// Where the `config.json` of Hugging Face's weights lies: in their directory, or next to their one file.
fn hf_dir(path: &Path) -> &Path {
    if path.is_dir() {
        path
    } else {
        path.parent().unwrap_or(Path::new(""))
    }
}

/// The format of what lies at `path`, by its first bytes or its name.
fn format_of(path: &Path) -> Result<Format, ModelError> {
    if path.is_dir() {
        if !path.join(hf_config::CONFIG_FILE).exists() {
            return Err(ModelError::NoModel {
                path: path.to_owned(),
                reason: "no config.json in it, expected a directory of Hugging Face's files or a checkpoint".to_owned(),
            });
        }
        return Ok(Format::Hf);
    }
    if !path.exists() {
        return Err(ModelError::NoModel {
            path: path.to_owned(),
            reason: hf_config::nothing_at(path),
        });
    }
    let mut first = [0; 4];
    let mut file = super::open(path)?;
    // A shorter file is of no format.
    let _ = file.read_exact(&mut first).is_ok();
    if first == *gguf::MAGIC {
        return Ok(Format::Gguf);
    }
    if first == llmc::MAGIC.to_le_bytes() {
        return Ok(Format::Llmc);
    }
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        return Ok(Format::Hf);
    }
    // Says what it is, where that is known.
    super::safetensors::map(path)?;
    Err(ModelError::NotTheFile {
        path: path.to_owned(),
        found: "no weights of a GPT-2: expected a directory with config.json and model.safetensors, a .safetensors file next to \
                its config.json, a checkpoint of llm.c, or a GGUF file"
            .to_owned(),
    })
}
