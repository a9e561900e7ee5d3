//! A model's parameters by name. The names are the paths of the fields: `h.0.attn.c_attn.weight`.

use super::io::NamedTensor;
use crate::error::ModelError;
use crate::model::Gpt2;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, TensorData};
use std::collections::HashMap;
use std::path::Path;

/// The embedding that stands padded in memory and unpadded in files.
const PADDED: &str = "wte.weight";

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
    let mut exporter = Exporter {
        vocab_size: model.config.vocab_size,
        tensors: Vec::new(),
    };
    visit_parameters(model, &mut exporter);
    exporter.tensors
}

/// The model with the parameters of `tensors`, which were read from `path`.
///
/// # Errors
/// [`ModelError::MissingTensor`], [`ModelError::UnexpectedTensor`] or [`ModelError::TensorMismatch`] where the two do not
/// fit; the model is then lost, but nothing else has changed.
pub fn load_parameters<B: Backend>(
    model: Gpt2<B>,
    tensors: Vec<NamedTensor>,
    path: &Path,
) -> Result<Gpt2<B>, ModelError> {
    let expected = parameter_names(&model);
    let mut tensors: HashMap<String, NamedTensor> = tensors
        .into_iter()
        .map(|tensor| (tensor.name.clone(), tensor))
        .collect();
    if let Some(name) = expected.iter().find(|name| !tensors.contains_key(*name)) {
        return Err(ModelError::MissingTensor {
            path: path.to_owned(),
            name: name.clone(),
            count: expected.len(),
            n_layer: model.config.n_layer,
        });
    }
    if tensors.len() > expected.len() {
        tensors.retain(|name, _| !expected.contains(name));
        let name = tensors.into_keys().min().unwrap_or_default();
        return Err(ModelError::UnexpectedTensor {
            path: path.to_owned(),
            name,
        });
    }
    let vocab_size = model.config.vocab_size;
    let mut importer = Importer {
        path: Vec::new(),
        file: path,
        vocab_size,
        tensors,
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
    tensors: Vec<NamedTensor>,
}

impl<B: Backend> NamedVisitor<B> for Exporter {
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<B, D>>) {
        let data = param.val().into_data().convert_dtype(DType::F32); // host–device sync
        let mut shape = data.shape.to_vec();
        let mut values: Vec<f32> = data.into_vec().expect("converted to f32 above");
        if name == PADDED {
            values.truncate(self.vocab_size * shape[1]);
            shape[0] = self.vocab_size;
        }
        self.tensors.push(NamedTensor {
            name: name.to_owned(),
            shape,
            values,
        });
    }
}

struct Importer<'a> {
    path: Vec<String>,
    file: &'a Path,
    vocab_size: usize,
    tensors: HashMap<String, NamedTensor>,
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
        let name = self.path.join(".");
        let shape = param.lazy_shape();
        let mut expected = shape.to_vec();
        if name == PADDED {
            expected[0] = self.vocab_size;
        }
        let Some(mut tensor) = self.tensors.remove(&name) else {
            return param;
        };
        if tensor.shape != expected {
            self.error.get_or_insert_with(|| ModelError::TensorMismatch {
                path: self.file.to_owned(),
                name,
                found: format!("{:?}", tensor.shape),
                expected: format!("{expected:?}"),
            });
            return param;
        }
        tensor.values.resize(shape.num_elements(), 0.0);
        let device = param.lazy_device();
        let (id, _, mapper) = param.consume();
        let value = Tensor::from_data(TensorData::new(tensor.values, shape), &device).require_grad();
        Param::from_mapped_value(id, value, mapper)
    }
}
