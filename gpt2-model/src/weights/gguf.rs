//! GGUF, llama.cpp's format: keys with values, then tensors, each at a multiple of the alignment
//! (`ggml/docs/gguf.md`). Of its architectures only `gpt2` is read and written.

use super::bytes::{Bytes, Cut};
use super::dtype::Dtype;
use super::names::{HEAD, Shape, TOKEN_EMBEDDING, TensorSource, lazy_parameters, shapes};
use super::safetensors::{LazyTensor, io, map, write_file};
use super::transpose::transpose;
use crate::config::Gpt2Config;
use crate::error::ModelError;
use crate::model::Gpt2;
use crate::ops::Gpt2Backend;
use crate::variant::{Activation, Variant};
use memmap2::Mmap;
use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::{Path, PathBuf};

pub(super) const MAGIC: &[u8; 4] = b"GGUF";

/// The version that is written; it differs from 2 in byte order alone.
const VERSION: u32 = 3;

/// Where `general.alignment` says nothing.
const ALIGNMENT: usize = 32;

/// GPT-2's in the names of the keys.
const ARCHITECTURE: &str = "gpt2";

/// GGUF's names of a model's parameters: those outside of blocks, and those of a block after `blk.0.`.
const NAMES: [(&str, &str); 17] = [
    ("wte.weight", "token_embd.weight"),
    ("wpe.weight", "position_embd.weight"),
    ("ln_f.weight", "output_norm.weight"),
    ("ln_f.bias", "output_norm.bias"),
    ("lm_head.weight", "output.weight"),
    ("ln_1.weight", "attn_norm.weight"),
    ("ln_1.bias", "attn_norm.bias"),
    ("attn.c_attn.weight", "attn_qkv.weight"),
    ("attn.c_attn.bias", "attn_qkv.bias"),
    ("attn.c_proj.weight", "attn_output.weight"),
    ("attn.c_proj.bias", "attn_output.bias"),
    ("ln_2.weight", "ffn_norm.weight"),
    ("ln_2.bias", "ffn_norm.bias"),
    ("mlp.c_fc.weight", "ffn_up.weight"),
    ("mlp.c_fc.bias", "ffn_up.bias"),
    ("mlp.c_proj.weight", "ffn_down.weight"),
    ("mlp.c_proj.bias", "ffn_down.bias"),
];

/// The types of tensors that are read, by their numbers.
const TENSOR_TYPES: [(u32, Dtype); 3] = [(0, Dtype::F32), (1, Dtype::F16), (30, Dtype::Bf16)];

/// What GGUF calls a parameter.
fn gguf_name(name: &str) -> Option<String> {
    let of = |name: &str| NAMES.iter().find(|(ours, _)| *ours == name).map(|(_, theirs)| *theirs);
    match name.strip_prefix("h.").and_then(|rest| rest.split_once('.')) {
        Some((layer, rest)) => Some(format!("blk.{layer}.{}", of(rest)?)),
        None => of(name).map(str::to_owned),
    }
}

/// The parameter that GGUF calls `name`.
fn parameter_name(name: &str) -> Option<String> {
    let of = |name: &str| NAMES.iter().find(|(_, theirs)| *theirs == name).map(|(ours, _)| *ours);
    match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
        Some((layer, rest)) => Some(format!("h.{layer}.{}", of(rest)?)),
        None => of(name).map(str::to_owned),
    }
}

/// Whether a tensor is the weights of a product, which GGUF has as `[out, in]`.
fn is_product(name: &str) -> bool {
    name.starts_with("h.")
}

/// The vocabulary for a GGUF file: byte-level BPE as GPT-2's.
#[derive(Debug, Clone)]
pub struct GgufVocabulary {
    /// Each token as GPT-2's `vocab.json` writes it.
    pub tokens: Vec<String>,
    /// The merges, `a b`, the first to be done first.
    pub merges: Vec<String>,
    /// The token that begins and ends documents.
    pub end_of_text: u32,
}

/// A value of a key, as far as any is of use here.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Integer(u64),
    Float(f64),
    Text(String),
    /// A list, a truth value, a number below 0.
    Other,
}

/// A tensor in the file.
struct Place {
    /// In the file.
    start: usize,
    dtype: Dtype,
    /// As a parameter.
    dims: Vec<usize>,
}

/// An open GGUF file. Its keys and the places of its tensors have been checked; the tensors are read one by one.
pub(super) struct GgufFile {
    path: PathBuf,
    map: Mmap,
    config: Gpt2Config,
    /// By the names of the parameters.
    places: BTreeMap<String, Place>,
}

/// What is wrong with a file, in words.
struct Wrong(String);

impl From<Cut> for Wrong {
    fn from(Cut { at }: Cut) -> Self {
        Self(format!(
            "it ends before what byte {at} begins: it was cut or is still being written"
        ))
    }
}

impl From<String> for Wrong {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl GgufFile {
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let map = map(path)?;
        let parsed = parse(&map).map_err(|Wrong(reason)| ModelError::WeightsFile {
            path: path.to_owned(),
            reason,
        });
        let (config, places) = parsed?;
        config.validate()?;
        Ok(Self {
            path: path.to_owned(),
            map,
            config,
            places,
        })
    }

    pub(super) fn config(&self) -> &Gpt2Config {
        &self.config
    }
}

impl TensorSource for GgufFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<&str> {
        self.places.keys().map(String::as_str).collect()
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.places.get(name).map(|place| place.dims.as_slice())
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let Place { start, dtype, dims } = &self.places[name];
        let count: usize = dims.iter().product();
        let values = dtype.read(&self.map[*start..start + count * dtype.size()]);
        Ok(match dims[..] {
            [input, output] if is_product(name) => transpose(&values, [output, input]),
            _ => values,
        })
    }
}

/// The model and the places of its tensors.
fn parse(file: &[u8]) -> Result<(Gpt2Config, BTreeMap<String, Place>), Wrong> {
    let mut bytes = Bytes::new(file);
    bytes.take(MAGIC.len())?;
    let version = bytes.u32()?;
    if !(2..=VERSION).contains(&version) {
        return Err(format!("it is version {version} of GGUF, expected 2 or {VERSION}, little-endian").into());
    }
    let (tensors, keys) = (bytes.u64()?, bytes.u64()?);
    let keys = read_keys(&mut bytes, keys)?;
    check_architecture(&keys)?;
    let alignment = match keys.get("general.alignment") {
        None => ALIGNMENT,
        Some(Value::Integer(alignment)) if alignment.is_power_of_two() && *alignment <= 1 << 20 => *alignment as usize,
        Some(other) => return Err(format!("`general.alignment` is {other:?}, expected a power of two").into()),
    };
    let mut infos = Vec::new();
    for _ in 0..tensors {
        infos.push(read_info(&mut bytes)?);
    }
    let start = bytes.position().next_multiple_of(alignment);
    let mut places = BTreeMap::new();
    for info in infos {
        let (name, place) = info.place(start, file.len())?;
        let Some(parameter) = parameter_name(&name) else {
            return Err(format!("tensor `{name}` is no parameter of a GPT-2").into());
        };
        if places.insert(parameter, place).is_some() {
            return Err(format!("tensor `{name}` is there twice").into());
        }
    }
    drop_tied_head(file, &mut places);
    Ok((config(&keys, &places)?, places))
}

/// Takes out a classifier that is the token embedding once more, as earlier converters wrote it.
fn drop_tied_head(file: &[u8], places: &mut BTreeMap<String, Place>) {
    let bytes = |place: &Place| {
        let size = place.dims.iter().product::<usize>() * place.dtype.size();
        &file[place.start..place.start + size]
    };
    if let (Some(head), Some(embedding)) = (places.get(HEAD), places.get(TOKEN_EMBEDDING))
        && head.dtype == embedding.dtype
        && bytes(head) == bytes(embedding)
    {
        places.remove(HEAD);
    }
}

/// All keys with their values.
fn read_keys(bytes: &mut Bytes, count: u64) -> Result<HashMap<String, Value>, Wrong> {
    let mut keys = HashMap::new();
    for _ in 0..count {
        let key = read_text(bytes)?;
        let kind = bytes.u32()?;
        let value = read_value(bytes, kind)?;
        keys.insert(key, value);
    }
    Ok(keys)
}

fn read_text(bytes: &mut Bytes) -> Result<String, Wrong> {
    let text = skip_text(bytes)?;
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn skip_text<'a>(bytes: &mut Bytes<'a>) -> Result<&'a [u8], Cut> {
    let at = bytes.position();
    let length = usize::try_from(bytes.u64()?).map_err(|_| Cut { at })?;
    bytes.take(length)
}

/// A value of the type `kind`; of a list nothing is kept.
fn read_value(bytes: &mut Bytes, kind: u32) -> Result<Value, Wrong> {
    Ok(match kind {
        0 => Value::Integer(bytes.take(1)?[0].into()),
        1 | 7 => {
            bytes.take(1)?;
            Value::Other
        }
        2 => {
            let two = bytes.take(2)?;
            Value::Integer(u64::from(two[0]) | u64::from(two[1]) << 8)
        }
        3 => {
            bytes.take(2)?;
            Value::Other
        }
        4 => Value::Integer(bytes.u32()?.into()),
        5 => u64::try_from(bytes.i32()?).map_or(Value::Other, Value::Integer),
        6 => Value::Float(bytes.f32()?.into()),
        8 => Value::Text(read_text(bytes)?),
        9 => {
            let (kind, count) = (bytes.u32()?, bytes.u64()?);
            skip_list(bytes, kind, count)?;
            Value::Other
        }
        10 => Value::Integer(bytes.u64()?),
        11 | 12 => {
            bytes.take(8)?;
            Value::Other
        }
        _ => {
            return Err(format!(
                "a key before byte {} is of type {kind}, expected 0 to 12",
                bytes.position()
            )
            .into());
        }
    })
}

fn skip_list(bytes: &mut Bytes, kind: u32, count: u64) -> Result<(), Wrong> {
    let size = match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        8 => {
            for _ in 0..count {
                skip_text(bytes)?;
            }
            return Ok(());
        }
        _ => {
            let at = bytes.position();
            return Err(format!("a list at byte {at} is of type {kind}, expected one of numbers or texts").into());
        }
    };
    let at = bytes.position();
    let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(size));
    bytes.take(length.ok_or(Cut { at })?)?;
    Ok(())
}

/// What the file says of a tensor.
struct Info {
    name: String,
    /// The innermost first.
    dims: Vec<u64>,
    kind: u32,
    offset: u64,
}

fn read_info(bytes: &mut Bytes) -> Result<Info, Wrong> {
    /// More do not occur.
    const MOST_DIMENSIONS: u32 = 4;
    let name = read_text(bytes)?;
    let count = bytes.u32()?;
    if count > MOST_DIMENSIONS {
        return Err(format!("tensor `{name}` has {count} dimensions, expected at most {MOST_DIMENSIONS}").into());
    }
    let mut dims = Vec::new();
    for _ in 0..count {
        dims.push(bytes.u64()?);
    }
    Ok(Info {
        name,
        dims,
        kind: bytes.u32()?,
        offset: bytes.u64()?,
    })
}

impl Info {
    /// Its name and its place, if it lies within a file of `len` bytes whose tensors begin at `start`.
    fn place(self, start: usize, len: usize) -> Result<(String, Place), Wrong> {
        let Self {
            name,
            dims,
            kind,
            offset,
        } = self;
        let Some((_, dtype)) = TENSOR_TYPES.into_iter().find(|(number, _)| *number == kind) else {
            return Err(format!(
                "tensor `{name}` is of GGML's type {kind}, which is quantized or no float; expected F32 (0), F16 (1) or BF16 \
                 (30): take the file that was not quantized"
            )
            .into());
        };
        let size = dims
            .iter()
            .try_fold(dtype.size() as u64, |size, side| size.checked_mul(*side))
            .and_then(|size| usize::try_from(size).ok());
        let begin = usize::try_from(offset)
            .ok()
            .and_then(|offset| start.checked_add(offset));
        let Some(begin) = begin.filter(|begin| {
            size.and_then(|size| begin.checked_add(size))
                .is_some_and(|end| end <= len)
        }) else {
            return Err(format!(
                "tensor `{name}` of {dims:?} lies past the end of the file: it was cut or is still being written"
            )
            .into());
        };
        // `[in, out]` of the parameter is the order of GGUF's sides already; tables have it the other way round.
        let mut dims: Vec<usize> = dims.into_iter().map(|side| side as usize).collect();
        if !parameter_name(&name).is_some_and(|name| is_product(&name)) {
            dims.reverse();
        }
        let place = Place {
            start: begin,
            dtype,
            dims,
        };
        Ok((name, place))
    }
}

fn check_architecture(keys: &HashMap<String, Value>) -> Result<(), Wrong> {
    match keys.get("general.architecture") {
        Some(Value::Text(name)) if name == ARCHITECTURE => Ok(()),
        Some(Value::Text(name)) => Err(format!("it is a model of the architecture {name:?}, expected \"gpt2\"").into()),
        _ => Err("it has no `general.architecture`, expected \"gpt2\"".to_owned().into()),
    }
}

/// The model that the keys and the shapes of the tensors say.
fn config(keys: &HashMap<String, Value>, places: &BTreeMap<String, Place>) -> Result<Gpt2Config, Wrong> {
    let size = |key: &str| -> Result<usize, Wrong> {
        let key = format!("{ARCHITECTURE}.{key}");
        match keys.get(&key) {
            Some(Value::Integer(value)) if *value <= u32::MAX.into() => Ok(*value as usize),
            Some(other) => Err(format!("`{key}` is {other:?}, expected a size").into()),
            None => Err(format!("it has no `{key}`, which every GPT-2 has").into()),
        }
    };
    match keys.get("gpt2.attention.layer_norm_epsilon") {
        Some(Value::Float(epsilon)) if (epsilon - 1e-5).abs() <= 1e-9 => {}
        other => return Err(format!("`gpt2.attention.layer_norm_epsilon` is {other:?}, expected 1e-5").into()),
    }
    let (n_embd, inner) = (size("embedding_length")?, size("feed_forward_length")?);
    Ok(Gpt2Config {
        vocab_size: places
            .get(TOKEN_EMBEDDING)
            .and_then(|place| place.dims.first().copied())
            .unwrap_or_default(),
        block_size: size("context_length")?,
        n_layer: size("block_count")?,
        n_head: size("attention.head_count")?,
        n_embd,
        dropout: 0.0,
        variant: Variant {
            n_inner: (Some(inner) != n_embd.checked_mul(4)).then_some(inner),
            tie_word_embeddings: !places.contains_key(HEAD),
            ..Variant::default()
        },
    })
}

/// Writes `model` as a GGUF file, as [`Weights::write_gguf`](super::Weights::write_gguf).
///
/// # Errors
/// Those of [`Weights::write_gguf`](super::Weights::write_gguf).
pub fn save_gguf<B: Gpt2Backend>(
    model: &Gpt2<B>,
    path: &Path,
    dtype: Dtype,
    name: &str,
    vocabulary: Option<&GgufVocabulary>,
) -> Result<(), ModelError> {
    write(&model.config, lazy_parameters(model), path, dtype, name, vocabulary)
}

pub(super) fn write(
    config: &Gpt2Config,
    tensors: Vec<LazyTensor>,
    path: &Path,
    dtype: Dtype,
    name: &str,
    vocabulary: Option<&GgufVocabulary>,
) -> Result<(), ModelError> {
    check(config)?;
    let mut tensors: HashMap<String, LazyTensor> = tensors
        .into_iter()
        .map(|tensor| (tensor.name.clone(), tensor))
        .collect();
    // The type, the place and the sides of each tensor come before the first of them.
    let stored = |name: &str, shape: Shape| match shape {
        // llama.cpp adds to these on the CPU in f32.
        Shape::Matrix(_) if name != "wpe.weight" => dtype,
        _ => Dtype::F32,
    };
    let mut infos = Writer::default();
    let mut offset = 0_u64;
    for (name, shape) in shapes(config) {
        infos.text(&gguf_name(&name).expect("every parameter has a name there"));
        let mut dims = shape.dims().to_vec();
        if !is_product(&name) {
            dims.reverse();
        }
        infos.u32(dims.len() as u32);
        for side in &dims {
            infos.u64(*side as u64);
        }
        let dtype = stored(&name, shape);
        infos.u32(number_of(dtype));
        infos.u64(offset);
        let size = dims.iter().product::<usize>() * dtype.size();
        offset += size.next_multiple_of(ALIGNMENT) as u64;
    }
    let (keys, count) = keys(config, dtype, name, vocabulary);
    let mut header = Writer::default();
    header.0.extend(MAGIC);
    header.u32(VERSION);
    header.u64(shapes(config).count() as u64);
    header.u64(count);
    header.0.extend(keys.0);
    header.0.extend(infos.0);
    header.0.resize(header.0.len().next_multiple_of(ALIGNMENT), 0);
    write_file(path, |file| {
        file.write_all(&header.0).map_err(|source| io(path, source))?;
        for (name, shape) in shapes(config) {
            let dtype = stored(&name, shape);
            let tensor = tensors.remove(&name).expect("each parameter has a tensor");
            let mut values = tensor.into_values(dtype, path)?;
            if let Shape::Matrix(sides) = shape
                && is_product(&name)
            {
                values = transpose(&values, sides);
            }
            let size = values.len() * dtype.size();
            dtype
                .write(&values, file)
                .and_then(|()| file.write_all(&vec![0; size.next_multiple_of(ALIGNMENT) - size]))
                .map_err(|source| io(path, source))?;
        }
        Ok(())
    })
}

fn number_of(dtype: Dtype) -> u32 {
    let (number, _) = TENSOR_TYPES
        .into_iter()
        .find(|(_, of)| *of == dtype)
        .expect("every type has a number");
    number
}

/// The keys with their values, and how many they are.
fn keys(config: &Gpt2Config, dtype: Dtype, name: &str, vocabulary: Option<&GgufVocabulary>) -> (Writer, u64) {
    /// GGUF's numbers of what most tensors are.
    const FILE_TYPES: [(Dtype, u32); 3] = [(Dtype::F32, 0), (Dtype::F16, 1), (Dtype::Bf16, 32)];
    /// GGUF's numbers of tokens of text, one that steers, and those that mean nothing.
    const NORMAL: i32 = 1;
    const CONTROL: i32 = 3;
    const UNUSED: i32 = 5;
    let mut keys = Writer::default();
    let mut count = 0;
    let mut key = |keys: &mut Writer, name: &str| {
        keys.text(name);
        count += 1;
    };
    let mut text = |keys: &mut Writer, name: &str, value: &str| {
        key(keys, name);
        keys.u32(8);
        keys.text(value);
    };
    text(&mut keys, "general.architecture", ARCHITECTURE);
    text(&mut keys, "general.name", name);
    text(
        &mut keys,
        "tokenizer.ggml.model",
        if vocabulary.is_some() { "gpt2" } else { "none" },
    );
    if vocabulary.is_some() {
        text(&mut keys, "tokenizer.ggml.pre", "gpt-2");
    }
    let file_type = FILE_TYPES
        .into_iter()
        .find(|(of, _)| *of == dtype)
        .map_or(0, |(_, number)| number);
    for (name, value) in [
        ("general.file_type", file_type),
        ("general.quantization_version", 2),
        ("gpt2.block_count", config.n_layer as u32),
        ("gpt2.context_length", config.block_size as u32),
        ("gpt2.embedding_length", config.n_embd as u32),
        ("gpt2.feed_forward_length", config.inner_size() as u32),
        ("gpt2.attention.head_count", config.n_head as u32),
        ("gpt2.vocab_size", config.vocab_size as u32),
    ] {
        key(&mut keys, name);
        keys.u32(4);
        keys.u32(value);
    }
    key(&mut keys, "gpt2.attention.layer_norm_epsilon");
    keys.u32(6);
    keys.0.extend(1e-5_f32.to_le_bytes());
    if let Some(vocabulary) = vocabulary {
        for name in ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"] {
            key(&mut keys, name);
            keys.u32(4);
            keys.u32(vocabulary.end_of_text);
        }
        let known = vocabulary.tokens.len();
        let tokens = (0..config.vocab_size).map(|token| match vocabulary.tokens.get(token) {
            Some(text) => text.clone(),
            None => format!("[PAD{token}]"),
        });
        key(&mut keys, "tokenizer.ggml.tokens");
        keys.texts(tokens);
        key(&mut keys, "tokenizer.ggml.token_type");
        keys.u32(9);
        keys.u32(5);
        keys.u64(config.vocab_size as u64);
        for token in 0..config.vocab_size {
            let kind = if token == vocabulary.end_of_text as usize {
                CONTROL
            } else if token < known {
                NORMAL
            } else {
                UNUSED
            };
            keys.0.extend(kind.to_le_bytes());
        }
        key(&mut keys, "tokenizer.ggml.merges");
        keys.texts(vocabulary.merges.iter().cloned());
    }
    (keys, count)
}

/// Refuses what llama.cpp's `gpt2` does not compute.
fn check(config: &Gpt2Config) -> Result<(), ModelError> {
    let openai = Variant::default();
    let variant = config.variant;
    let refused = |key, value: String, expected: String| {
        Err(ModelError::NotInFormat {
            format: "GGUF",
            key,
            value,
            expected,
        })
    };
    if variant.activation_function != Activation::GeluTanh {
        let expected = Activation::GeluTanh.hf_name().to_owned();
        return refused(
            "activation_function",
            variant.activation_function.hf_name().to_owned(),
            expected,
        );
    }
    for (key, value, expected) in [
        (
            "scale_attn_weights",
            variant.scale_attn_weights,
            openai.scale_attn_weights,
        ),
        (
            "scale_attn_by_inverse_layer_idx",
            variant.scale_attn_by_inverse_layer_idx,
            openai.scale_attn_by_inverse_layer_idx,
        ),
    ] {
        if value != expected {
            return refused(key, value.to_string(), expected.to_string());
        }
    }
    for (key, size) in [
        ("n_layer", config.n_layer),
        ("n_positions", config.block_size),
        ("n_inner", config.inner_size()),
        ("vocab_size", config.vocab_size),
    ] {
        if u32::try_from(size).is_err() {
            return refused(key, size.to_string(), format!("at most {}", u32::MAX));
        }
    }
    Ok(())
}

/// Bytes as GGUF lays them out.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u64(text.len() as u64);
        self.0.extend(text.as_bytes());
    }

    /// A list of texts.
    fn texts(&mut self, texts: impl ExactSizeIterator<Item = String>) {
        self.u32(9);
        self.u32(8);
        self.u64(texts.len() as u64);
        for text in texts {
            self.text(&text);
        }
    }
}
