//! Checkpoints of llm.c: a header of 256 `i32`, then all parameters, each stacked over the layers, with the weights of a
//! product as `[out, in]` and the embedding padded to a multiple of 128 rows (`train_gpt2.py`'s `write_model`).

use super::bytes::{Bytes, Cut};
use super::dtype::Dtype;
use super::names::{Shape, TensorSource, block_shapes, lazy_parameters};
use super::safetensors::{LazyTensor, io, map, write_file};
use super::transpose::transpose;
use crate::config::Gpt2Config;
use crate::error::ModelError;
use crate::model::Gpt2;
use crate::ops::Gpt2Backend;
use crate::variant::Variant;
use memmap2::Mmap;
use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

pub(super) const MAGIC: i32 = 20_240_326;

/// Numbers of the header, most of them 0.
const HEADER: usize = 256;

/// Rows of the embedding in the file are a multiple of this.
const VOCAB_MULTIPLE: usize = 128;

/// The versions that there are.
const VERSIONS: [(i32, Dtype); 2] = [(3, Dtype::F32), (5, Dtype::Bf16)];

/// Where a tensor lies in the file, in numbers after the header.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: usize,
    shape: Shape,
}

/// An open checkpoint. Its header has been checked; its tensors are read one by one.
pub(super) struct LlmcFile {
    path: PathBuf,
    map: Mmap,
    config: Gpt2Config,
    dtype: Dtype,
    /// By the names of the parameters.
    places: HashMap<String, Place>,
}

impl LlmcFile {
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let map = map(path)?;
        let wrong = |reason: String| ModelError::WeightsFile {
            path: path.to_owned(),
            reason,
        };
        let header = Header::read(&mut Bytes::new(&map)).map_err(|Cut { at }| {
            wrong(format!(
                "it ends after {at} bytes, expected a header of {HEADER} numbers"
            ))
        })?;
        let (config, dtype, padded) = header.judge().map_err(wrong)?;
        config.validate()?;
        let expected = numbers(&config, padded)
            .ok_or_else(|| wrong(format!("its header says {header:?}, expected the sizes of a GPT-2")))?
            .checked_mul(dtype.size())
            .and_then(|bytes| bytes.checked_add(HEADER * 4));
        if expected != Some(map.len()) {
            return Err(wrong(format!(
                "it has {} bytes, expected {}, as its header says ({} layers, {} wide, {dtype}): it was cut or is still being \
                 written",
                map.len(),
                expected.map_or("far more".to_owned(), |bytes| bytes.to_string()),
                config.n_layer,
                config.n_embd
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            dtype,
            places: layout(&config, padded).into_iter().collect(),
            config,
            map,
        })
    }

    pub(super) fn config(&self) -> &Gpt2Config {
        &self.config
    }
}

impl TensorSource for LlmcFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<&str> {
        self.places.keys().map(String::as_str).collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.places.get(name).map(|place| place.shape.dims())
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let place = self.places[name];
        let size = self.dtype.size();
        let count: usize = place.shape.dims().iter().product();
        let start = HEADER * 4 + place.start * size;
        let values = self.dtype.read(&self.map[start..start + count * size]);
        Ok(match place.shape {
            Shape::Matrix([input, output]) if is_product(name) => transpose(&values, [output, input]),
            _ => values,
        })
    }
}

/// Whether a tensor is the weights of a product, `[out, in]` in the file.
fn is_product(name: &str) -> bool {
    name.starts_with("h.")
}

#[derive(Debug)]
struct Header {
    version: i32,
    block_size: i32,
    vocab_size: i32,
    n_layer: i32,
    n_head: i32,
    n_embd: i32,
    padded_vocab_size: i32,
}

impl Header {
    fn read(bytes: &mut Bytes) -> Result<Self, Cut> {
        bytes.take(4)?; // the magic number
        let header = Self {
            version: bytes.i32()?,
            block_size: bytes.i32()?,
            vocab_size: bytes.i32()?,
            n_layer: bytes.i32()?,
            n_head: bytes.i32()?,
            n_embd: bytes.i32()?,
            padded_vocab_size: bytes.i32()?,
        };
        bytes.take(HEADER * 4 - bytes.position())?;
        Ok(header)
    }

    /// The model, the type of its numbers, and the rows of its embedding in the file.
    fn judge(&self) -> Result<(Gpt2Config, Dtype, usize), String> {
        let Some((_, dtype)) = VERSIONS.into_iter().find(|(version, _)| *version == self.version) else {
            return Err(format!(
                "it is version {} of llm.c's checkpoints, expected 3 (f32) or 5 (bf16)",
                self.version
            ));
        };
        let size = |field: &str, value: i32| {
            usize::try_from(value).map_err(|_| format!("its header says {value} for {field}, expected at least 1"))
        };
        let config = Gpt2Config {
            vocab_size: size("the vocabulary", self.vocab_size)?,
            block_size: size("the longest sequence", self.block_size)?,
            n_layer: size("the layers", self.n_layer)?,
            n_head: size("the heads", self.n_head)?,
            n_embd: size("the width", self.n_embd)?,
            dropout: 0.0,
            variant: Variant::default(),
        };
        let padded = size("the padded vocabulary", self.padded_vocab_size)?;
        if padded < config.vocab_size {
            return Err(format!(
                "its header says {padded} rows for {} tokens, expected at least as many",
                config.vocab_size
            ));
        }
        Ok((config, dtype, padded))
    }
}

/// All numbers after the header; none where they are beyond count.
fn numbers(config: &Gpt2Config, padded: usize) -> Option<usize> {
    let c = config.n_embd;
    let mut block = 0_usize;
    for (_, shape) in block_shapes(config) {
        let mut sides = shape.dims().iter();
        let size = sides.try_fold(1_usize, |size, &side| size.checked_mul(side))?;
        block = block.checked_add(size)?;
    }
    let embeddings = padded.checked_add(config.block_size)?.checked_mul(c)?;
    let blocks = block.checked_mul(config.n_layer)?;
    embeddings.checked_add(blocks)?.checked_add(c.checked_mul(2)?)
}

/// The tensors in their order. All [`numbers`] can be counted.
fn layout(config: &Gpt2Config, padded: usize) -> Vec<(String, Place)> {
    let c = config.n_embd;
    let mut places = Vec::new();
    let mut next = 0;
    let mut place = |name: String, shape: Shape, numbers: usize| {
        places.push((name, Place { start: next, shape }));
        next += numbers;
    };
    place(
        "wte.weight".to_owned(),
        Shape::Matrix([config.vocab_size, c]),
        padded * c,
    );
    let others = [("wpe.weight".to_owned(), Shape::Matrix([config.block_size, c]))].into_iter();
    let blocks = block_shapes(config)
        .into_iter()
        .flat_map(|(name, shape)| (0..config.n_layer).map(move |layer| (format!("h.{layer}.{name}"), shape)));
    let last = ["weight", "bias"].map(|name| (format!("ln_f.{name}"), Shape::Vector(c)));
    for (name, shape) in others.chain(blocks).chain(last) {
        place(name, shape, shape.dims().iter().product());
    }
    places
}

/// Writes `model` as a checkpoint of llm.c, as [`Weights::write_llmc`](super::Weights::write_llmc).
///
/// # Errors
/// Those of [`Weights::write_llmc`](super::Weights::write_llmc).
pub fn save_llmc<B: Gpt2Backend>(model: &Gpt2<B>, path: &Path, dtype: Dtype) -> Result<(), ModelError> {
    write(&model.config, lazy_parameters(model), path, dtype)
}

pub(super) fn write(
    config: &Gpt2Config,
    tensors: Vec<LazyTensor>,
    path: &Path,
    dtype: Dtype,
) -> Result<(), ModelError> {
    check(config)?;
    let Some((version, _)) = VERSIONS.into_iter().find(|(_, of)| *of == dtype) else {
        return Err(not_in_format("dtype", dtype.to_string(), "f32 or bf16"));
    };
    let padded = config.vocab_size.next_multiple_of(VOCAB_MULTIPLE);
    let sizes = [
        config.block_size,
        config.vocab_size,
        config.n_layer,
        config.n_head,
        config.n_embd,
        padded,
    ];
    let mut header = vec![MAGIC, version];
    for size in sizes {
        let size = i32::try_from(size).map_err(|_| not_in_format("size", size.to_string(), "at most 2,147,483,647"))?;
        header.push(size);
    }
    header.resize(HEADER, 0);
    let header: Vec<u8> = header.into_iter().flat_map(i32::to_le_bytes).collect();
    if numbers(config, padded).is_none() {
        return Err(not_in_format(
            "n_layer",
            config.n_layer.to_string(),
            "as many as a file can have",
        ));
    }
    let places = layout(config, padded);
    let mut tensors: HashMap<String, LazyTensor> = tensors
        .into_iter()
        .map(|tensor| (tensor.name.clone(), tensor))
        .collect();
    write_file(path, |file| {
        file.write_all(&header).map_err(|source| io(path, source))?;
        for (name, Place { shape, .. }) in places {
            let tensor = tensors.remove(&name).expect("each parameter has a tensor");
            let mut values = tensor.into_values(dtype, path)?;
            match shape {
                Shape::Matrix(sides) if is_product(&name) => values = transpose(&values, sides),
                _ => {}
            }
            dtype.write(&values, file).map_err(|source| io(path, source))?;
            if name == "wte.weight" {
                let padding = vec![0.0; (padded - config.vocab_size) * config.n_embd];
                dtype.write(&padding, file).map_err(|source| io(path, source))?;
            }
        }
        Ok(())
    })
}

/// Refuses what llm.c does not compute: it has OpenAI's model alone.
fn check(config: &Gpt2Config) -> Result<(), ModelError> {
    let Variant {
        n_inner,
        activation_function,
        tie_word_embeddings,
        scale_attn_weights,
        scale_attn_by_inverse_layer_idx,
    } = config.variant;
    let openai = Variant::default();
    if let Some(inner) = n_inner {
        return Err(not_in_format("n_inner", inner.to_string(), "4 · n_embd"));
    }
    if activation_function != openai.activation_function {
        let expected = openai.activation_function.hf_name();
        return Err(not_in_format(
            "activation_function",
            activation_function.hf_name().to_owned(),
            expected,
        ));
    }
    for (key, value, expected) in [
        ("tie_word_embeddings", tie_word_embeddings, true),
        ("scale_attn_weights", scale_attn_weights, true),
        (
            "scale_attn_by_inverse_layer_idx",
            scale_attn_by_inverse_layer_idx,
            false,
        ),
    ] {
        if value != expected {
            return Err(not_in_format(key, value.to_string(), &expected.to_string()));
        }
    }
    Ok(())
}

fn not_in_format(key: &'static str, value: String, expected: &str) -> ModelError {
    ModelError::NotInFormat {
        format: "llm.c",
        key,
        value,
        expected: expected.to_owned(),
    }
}
