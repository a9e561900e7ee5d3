//! Everything that can be wrong with a model's configuration or its files.

use std::path::PathBuf;

/// An error of this crate; each message is one line that names what was expected.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A preset's name is not known.
    #[error("unknown model preset `{name}`: expected one of {}{}", expected.join(", "), nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownPreset {
        /// The name that was given.
        name: String,
        /// Every known name.
        expected: Vec<&'static str>,
        /// The closest known name, if one is close.
        nearest: Option<&'static str>,
    },
    /// A field of the configuration is out of its range.
    #[error("model configuration: `{field}` is {found}, expected {expected}")]
    InvalidConfig {
        /// The field's name.
        field: &'static str,
        /// Its value.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// There is no model at a path.
    #[error("{path}: {reason}", path = path.display())]
    NoModel {
        /// The path.
        path: PathBuf,
        /// What is there instead, what was expected, and what to do.
        reason: String,
    },
    /// A `config.json`, or an index of weights files, is not one of a GPT-2 as this crate computes it.
    #[error("{path}: {reason}", path = path.display())]
    HfConfig {
        /// The file.
        path: PathBuf,
        /// The key, its value, and what was expected.
        reason: String,
    },
    /// A weights file is one of another kind.
    #[error("{path}: {found}", path = path.display())]
    NotTheFile {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        found: String,
    },
    /// A weights file is damaged, or says something that this crate does not compute.
    #[error("{path}: {reason}", path = path.display())]
    WeightsFile {
        /// The file.
        path: PathBuf,
        /// What was found, and what was expected.
        reason: String,
    },
    /// A weight does not fit the type that it is to be written in.
    #[error("{path}: tensor `{name}` holds {value}, which {dtype} cannot hold; choose {wider}", path = path.display())]
    BeyondType {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The weight.
        value: f32,
        /// The type.
        dtype: &'static str,
        /// What can hold it.
        wider: &'static str,
    },
    /// A format has no way to say in what a model differs from OpenAI's.
    #[error("{format} has no `{key}` of {value}, expected {expected}; write the format hf")]
    NotInFormat {
        /// The format.
        format: &'static str,
        /// The key of `config.json`.
        key: &'static str,
        /// Its value.
        value: String,
        /// What the format takes.
        expected: String,
    },
    /// The classifier of a model is not its token embedding, though its configuration says so.
    #[error(
        "{path}: the classifier `lm_head.weight` differs from the token embedding, and config.json says that it is tied: expected \
         the two to be equal, or `tie_word_embeddings` to be false",
        path = path.display()
    )]
    UntiedHead {
        /// The weights file.
        path: PathBuf,
    },
    /// A safetensors file is damaged or is not one.
    #[error("{path}: not a readable safetensors file: {source}", path = path.display())]
    SafeTensors {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A parameter is missing from a weights file.
    #[error("{path}: tensor `{name}` is missing: expected the {count} parameters of a GPT-2 with {n_layer} layers", path = path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The parameter, by its Hugging Face name.
        name: String,
        /// How many parameters the model has.
        count: usize,
        /// The model's layers.
        n_layer: usize,
    },
    /// A weights file holds a tensor that the model has no place for.
    #[error("{path}: tensor `{name}` is no parameter of this GPT-2", path = path.display())]
    UnexpectedTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
    },
    /// A tensor has another shape or type than the model's parameter.
    #[error("{path}: tensor `{name}` is {found}, expected {expected}", path = path.display())]
    TensorMismatch {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// Its shape and type.
        found: String,
        /// The parameter's.
        expected: String,
    },
    /// A model gives logits that no token can be drawn from.
    #[error(
        "the model's logits are not finite at token {position}: its weights hold NaN, infinite or far too large numbers"
    )]
    NonFiniteLogits {
        /// The token that they follow, counted from 1 through prompt and text.
        position: usize,
    },
}
