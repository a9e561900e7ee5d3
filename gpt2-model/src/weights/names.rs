//! A model's parameters by name. The names are the paths of the fields: `h.0.attn.c_attn.weight`.

use super::safetensors::{LazyTensor, NamedTensor};
use crate::config::Gpt2Config;
use crate::error::ModelError;
use crate::model::Gpt2;
use crate::ops::{Gpt2Backend, to_host, upload};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

/// The token embedding.
pub(super) const TOKEN_EMBEDDING: &str = "wte.weight";

/// The classifier, where it is not the token embedding.
pub(super) const HEAD: &str = "lm_head.weight";

/// Whether a parameter has a row for each token, and is padded in memory and not in files.
fn is_padded(name: &str) -> bool {
    name == TOKEN_EMBEDDING || name == HEAD
}

/// Sees every parameter of a model with its name.
pub trait NamedVisitor<B: Backend> {
    /// Called for each parameter, in the order in which Burn visits them.
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<B, D>>);
}

/// Shows `visitor` every parameter of `model`.
pub fn visit_parameters<B: Backend>(model: &Gpt2<B>, visitor: &mut impl NamedVisitor<B>) {
    let mut named = Named {
        path: Vec::new(),
        visitor,
    };
    model.visit(&mut named);
}

/// Burn's visitor, which is told the names of fields one at a time.
struct Named<'a, V> {
    path: Vec<String>,
    visitor: &'a mut V,
}

impl<B: Backend, V: NamedVisitor<B>> ModuleVisitor<B> for Named<'_, V> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.visitor.visit(&self.path.join("."), param);
    }
}

/// The names of the parameters, in the order in which Burn visits them.
pub fn parameter_names<B: Backend>(model: &Gpt2<B>) -> Vec<String> {
    let mut names = Names::default();
    visit_parameters(model, &mut names);
    names.found
}

/// Every parameter, copied to the host; tables of tokens without their padded rows.
pub fn parameters<B: Gpt2Backend>(model: &Gpt2<B>) -> Vec<NamedTensor> {
    lazy_parameters(model)
        .into_iter()
        .map(|tensor| NamedTensor {
            values: (tensor.values)()
                .expect("tensors of a model fail to nothing")
                .into_owned(),
            name: tensor.name,
            shape: tensor.shape,
        })
        .collect()
}

/// Every parameter, copied to the host when its values are asked for; tables of tokens without their padded rows.
pub(super) fn lazy_parameters<B: Gpt2Backend>(model: &Gpt2<B>) -> Vec<LazyTensor<'static>> {
    let mut exporter = Exporter {
        vocab_size: model.config.vocab_size,
        tensors: Vec::new(),
    };
    visit_parameters(model, &mut exporter);
    exporter.tensors
}

/// Rows and columns.
pub(super) type Matrix = [usize; 2];

/// The shape of a parameter in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Vector(usize),
    Matrix(Matrix),
}

impl Shape {
    pub(super) fn dims(&self) -> &[usize] {
        match self {
            Self::Vector(width) => std::slice::from_ref(width),
            Self::Matrix(sides) => sides,
        }
    }
}

/// The parameters of a block by their names after `h.0.`, in the order in which Burn visits them, with their shapes.
pub(super) fn block_shapes(config: &Gpt2Config) -> [(&'static str, Shape); 12] {
    let (c, inner) = (config.n_embd, config.inner_size());
    [
        ("ln_1.weight", Shape::Vector(c)),
        ("ln_1.bias", Shape::Vector(c)),
        ("attn.c_attn.weight", Shape::Matrix([c, 3 * c])),
        ("attn.c_attn.bias", Shape::Vector(3 * c)),
        ("attn.c_proj.weight", Shape::Matrix([c, c])),
        ("attn.c_proj.bias", Shape::Vector(c)),
        ("ln_2.weight", Shape::Vector(c)),
        ("ln_2.bias", Shape::Vector(c)),
        ("mlp.c_fc.weight", Shape::Matrix([c, inner])),
        ("mlp.c_fc.bias", Shape::Vector(inner)),
        ("mlp.c_proj.weight", Shape::Matrix([inner, c])),
        ("mlp.c_proj.bias", Shape::Vector(c)),
    ]
}

/// The parameters of such a model and their shapes in files, in the order in which Burn visits them.
pub(super) fn shapes(config: &Gpt2Config) -> impl Iterator<Item = (String, Shape)> {
    let c = config.n_embd;
    let table = |name: &str, rows| (name.to_owned(), Shape::Matrix([rows, c]));
    let vector = |name: &str| (name.to_owned(), Shape::Vector(c));
    let block = block_shapes(config);
    let blocks = (0..config.n_layer).flat_map(move |i| block.map(|(name, shape)| (format!("h.{i}.{name}"), shape)));
    let head = (!config.variant.tie_word_embeddings).then(|| table(HEAD, config.vocab_size));
    [
        table(TOKEN_EMBEDDING, config.vocab_size),
        table("wpe.weight", config.block_size),
    ]
    .into_iter()
    .chain(blocks)
    .chain(["ln_f.weight", "ln_f.bias"].map(vector))
    .chain(head)
}

/// Tensors by the names of a model's parameters.
pub(super) trait TensorSource {
    /// Where they come from, as error messages name it.
    fn path(&self) -> &Path;

    /// The names that it has.
    fn names(&self) -> Vec<&str>;

    /// The shape of a tensor, if there is one of this name.
    fn shape(&self, name: &str) -> Option<&[usize]>;

    /// Checks that a tensor, if there is one of this name, is of a type that [`read`](Self::read) takes. Formats whose
    /// headers are refused for any other type have nothing to check.
    fn check_type(&self, _name: &str) -> Result<(), ModelError> {
        Ok(())
    }

    /// The values of a tensor, if there is one of this name.
    fn read(&self, name: &str) -> Result<Vec<f32>, ModelError>;
}

/// Checks that `source` has the parameters of such a model and nothing else. No values are read.
///
/// # Errors
/// [`ModelError::MissingTensor`], [`ModelError::UnexpectedTensor`] or [`ModelError::TensorMismatch`].
pub(super) fn check_parameters(config: &Gpt2Config, source: &dyn TensorSource) -> Result<(), ModelError> {
    let mut known = BTreeSet::new();
    for (name, shape) in shapes(config) {
        let Some(found) = source.shape(&name) else {
            return Err(ModelError::MissingTensor {
                path: source.path().to_owned(),
                name,
                // As many as may be without overflow: the configuration may say anything.
                count: config.n_layer.saturating_mul(12).saturating_add(4),
                n_layer: config.n_layer,
            });
        };
        if found != shape.dims() {
            return Err(ModelError::TensorMismatch {
                path: source.path().to_owned(),
                name,
                found: format!("{found:?}"),
                expected: format!("{:?}", shape.dims()),
            });
        }
        source.check_type(&name)?;
        known.insert(name);
    }
    match source.names().into_iter().find(|name| !known.contains(*name)) {
        Some(name) => Err(ModelError::UnexpectedTensor {
            path: source.path().to_owned(),
            name: name.to_owned(),
        }),
        None => Ok(()),
    }
}

/// The model with the parameters of `source`, which are read one at a time.
///
/// # Errors
/// Those of [`check_parameters`], and what `source` fails with.
pub(super) fn load_parameters<B: Backend>(
    config: &Gpt2Config,
    source: &dyn TensorSource,
    device: &B::Device,
) -> Result<Gpt2<B>, ModelError> {
    check_parameters(config, source)?;
    let mut importer = Importer {
        path: Vec::new(),
        source,
        error: None,
    };
    let model = config.zeros(device)?.map(&mut importer);
    match importer.error {
        Some(error) => Err(error),
        None => Ok(model),
    }
}

#[derive(Default)]
struct Names {
    found: Vec<String>,
}

impl<B: Backend> NamedVisitor<B> for Names {
    fn visit<const D: usize>(&mut self, name: &str, _: &Param<Tensor<B, D>>) {
        self.found.push(name.to_owned());
    }
}

struct Exporter {
    vocab_size: usize,
    tensors: Vec<LazyTensor<'static>>,
}

impl<B: Gpt2Backend> NamedVisitor<B> for Exporter {
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<B, D>>) {
        let tensor = param.val();
        let mut shape = tensor.dims().to_vec();
        if is_padded(name) {
            shape[0] = self.vocab_size;
        }
        let count = shape.iter().product();
        self.tensors.push(LazyTensor {
            name: name.to_owned(),
            shape,
            values: Box::new(move || {
                let mut values = to_host(tensor);
                values.truncate(count);
                Ok(Cow::Owned(values))
            }),
        });
    }
}

struct Importer<'a> {
    path: Vec<String>,
    source: &'a dyn TensorSource,
    /// The first error; nothing more is read after it.
    error: Option<ModelError>,
}

impl<B: Backend> ModuleMapper<B> for Importer<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        if self.error.is_some() {
            return param;
        }
        let shape = param.lazy_shape();
        match self.source.read(&self.path.join(".")) {
            Ok(mut values) => {
                values.resize(shape.iter().product(), 0.0); // the padded rows
                // The old value, which may not have been made yet, is not asked for.
                let value = upload(values, shape, &param.lazy_device());
                Param::initialized(param.id, value.require_grad())
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}
