//! A model's parameters by name. The names are the paths of the fields: `h.0.attn.c_attn.weight`.

use super::safetensors::{LazyTensor, NamedTensor};
use crate::error::ModelError;
use crate::model::Gpt2;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};
use std::borrow::Cow;
use std::path::Path;

/// The token embedding, which is padded in memory and not in files.
pub(super) const TOKEN_EMBEDDING: &str = "wte.weight";

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

/// Every parameter, copied to the host; the embedding without its padded rows.
pub fn parameters<B: Backend>(model: &Gpt2<B>) -> Vec<NamedTensor> {
    lazy_parameters(model)
        .into_iter()
        .map(|tensor| NamedTensor {
            values: (tensor.values)().into_owned(),
            name: tensor.name,
            shape: tensor.shape,
        })
        .collect()
}

/// Every parameter, copied to the host when its values are asked for; the embedding without its padded rows.
pub(super) fn lazy_parameters<B: Backend>(model: &Gpt2<B>) -> Vec<LazyTensor<'static>> {
    let mut exporter = Exporter {
        vocab_size: model.config.vocab_size,
        tensors: Vec::new(),
    };
    visit_parameters(model, &mut exporter);
    exporter.tensors
}

/// Tensors by the names of a model's parameters.
pub(super) trait TensorSource {
    /// Where they come from, as error messages name it.
    fn path(&self) -> &Path;

    /// The names that it has.
    fn names(&self) -> impl Iterator<Item = &str>;

    /// The shape of a tensor, if there is one of this name.
    fn shape(&self, name: &str) -> Option<&[usize]>;

    /// The values of a tensor.
    fn read(&self, name: &str) -> Result<Vec<f32>, ModelError>;
}

/// The model with the parameters of `source`, which are read one at a time.
///
/// # Errors
/// [`ModelError::MissingTensor`], [`ModelError::UnexpectedTensor`] or [`ModelError::TensorMismatch`] where the two do not
/// fit, and what `source` fails with.
pub(super) fn load_parameters<B: Backend>(model: Gpt2<B>, source: &impl TensorSource) -> Result<Gpt2<B>, ModelError> {
    let expected = parameter_names(&model);
    if let Some(name) = expected.iter().find(|name| source.shape(name).is_none()) {
        return Err(ModelError::MissingTensor {
            path: source.path().to_owned(),
            name: name.clone(),
            count: expected.len(),
            n_layer: model.config.n_layer,
        });
    }
    if let Some(name) = source.names().find(|name| !expected.iter().any(|known| known == name)) {
        return Err(ModelError::UnexpectedTensor {
            path: source.path().to_owned(),
            name: name.to_owned(),
        });
    }
    let vocab_size = model.config.vocab_size;
    let mut importer = Importer {
        path: Vec::new(),
        vocab_size,
        source,
        error: None,
    };
    let model = model.map(&mut importer);
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

impl<B: Backend> NamedVisitor<B> for Exporter {
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<B, D>>) {
        let tensor = param.val();
        let mut shape = tensor.dims().to_vec();
        if name == TOKEN_EMBEDDING {
            shape[0] = self.vocab_size;
        }
        let count = shape.iter().product();
        self.tensors.push(LazyTensor {
            name: name.to_owned(),
            shape,
            values: Box::new(move || {
                let data = tensor.into_data().convert_dtype(DType::F32); // host–device sync
                let mut values: Vec<f32> = data.into_vec().expect("converted to f32 above");
                values.truncate(count);
                Cow::Owned(values)
            }),
        });
    }
}

struct Importer<'a, S> {
    path: Vec<String>,
    vocab_size: usize,
    source: &'a S,
    /// The first error; nothing more is read after it.
    error: Option<ModelError>,
}

impl<S: TensorSource> Importer<'_, S> {
    /// The values of the parameter `name`, of this shape in memory.
    fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        let mut expected = shape.to_vec();
        if name == TOKEN_EMBEDDING {
            expected[0] = self.vocab_size;
        }
        let found = self.source.shape(name).unwrap_or_default();
        if found != expected {
            return Err(ModelError::TensorMismatch {
                path: self.source.path().to_owned(),
                name: name.to_owned(),
                found: format!("{found:?}"),
                expected: format!("{expected:?}"),
            });
        }
        let mut values = self.source.read(name)?;
        values.resize(shape.iter().product(), 0.0);
        Ok(values)
    }
}

impl<B: Backend, S: TensorSource> ModuleMapper<B> for Importer<'_, S> {
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
        match self.values(&self.path.join("."), &shape.to_vec()) {
            Ok(values) => {
                // The old value, which may not have been made yet, is not asked for.
                let value = Tensor::from_data(TensorData::new(values, shape), &param.lazy_device());
                Param::initialized(param.id, value.require_grad())
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}
