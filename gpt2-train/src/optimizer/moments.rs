//! The moments of AdamW by name, for checkpoints.

use super::{Moments, Shards, is_own};
use burn::module::{Param, ParamId};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorPrimitive};
use gpt2_model::ModelError;
use gpt2_model::ops::{Gpt2Backend, upload};
use gpt2_model::weights::{NamedTensor, NamedVisitor};
use std::collections::HashMap;
use std::path::Path;

/// Prefixes of the moments' names, PyTorch's.
const EXP_AVG: &str = "exp_avg";
const EXP_AVG_SQ: &str = "exp_avg_sq";

/// Copies moments to the host.
pub(super) struct MomentExporter<'a, B: Backend> {
    moments: &'a HashMap<ParamId, Moments<B>>,
    pub(super) tensors: Vec<NamedTensor>,
}

impl<'a, B: Backend> MomentExporter<'a, B> {
    pub(super) fn new(moments: &'a HashMap<ParamId, Moments<B>>) -> Self {
        Self {
            moments,
            tensors: Vec::new(),
        }
    }
}

impl<B: AutodiffBackend> NamedVisitor<B> for MomentExporter<'_, B::InnerBackend>
where
    B::InnerBackend: Gpt2Backend,
{
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<B, D>>) {
        let Some(moments) = self.moments.get(&param.id) else {
            return;
        };
        for (prefix, moment) in [(EXP_AVG, &moments.exp_avg), (EXP_AVG_SQ, &moments.exp_avg_sq)] {
            self.tensors.push(NamedTensor {
                name: format!("{prefix}.{name}"),
                shape: param.shape().to_vec(),
                values: B::InnerBackend::to_host(moment.clone().tensor()),
            });
        }
    }
}

/// Puts together what the ranks have exported.
pub(super) struct MomentMerger<'a> {
    shards: &'a Shards,
    /// The elements that each rank has exported and that were not taken yet.
    exported: Vec<std::vec::IntoIter<f32>>,
    tensors: Vec<NamedTensor>,
}

impl<'a> MomentMerger<'a> {
    pub(super) fn new(shards: &'a Shards, exported: Vec<Vec<f32>>) -> Self {
        Self {
            shards,
            exported: exported.into_iter().map(Vec::into_iter).collect(),
            tensors: Vec::new(),
        }
    }

    /// # Panics
    /// If the ranks have exported other elements than those of their parameters.
    pub(super) fn finish(self) -> Vec<NamedTensor> {
        let left: usize = self.exported.iter().map(ExactSizeIterator::len).sum();
        assert_eq!(left, 0, "each rank exports the moments of its parameters");
        self.tensors
    }
}

impl<B: Backend> NamedVisitor<B> for MomentMerger<'_> {
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<B, D>>) {
        let of_owner = &mut self.exported[self.shards.owner(param.id)];
        let shape = param.shape();
        for prefix in [EXP_AVG, EXP_AVG_SQ] {
            let values: Vec<f32> = of_owner.by_ref().take(shape.num_elements()).collect();
            // Before the first update there are none.
            if !values.is_empty() {
                assert_eq!(values.len(), shape.num_elements(), "{prefix}.{name}");
                self.tensors.push(NamedTensor {
                    name: format!("{prefix}.{name}"),
                    shape: shape.to_vec(),
                    values,
                });
            }
        }
    }
}

/// Takes moments from the host.
pub(super) struct MomentImporter<'a, B: Backend> {
    file: &'a Path,
    shards: Option<&'a Shards>,
    tensors: HashMap<String, NamedTensor>,
    moments: HashMap<ParamId, Moments<B>>,
    error: Option<ModelError>,
}

impl<'a, B: Backend> MomentImporter<'a, B> {
    /// `file` is where the tensors were read from.
    pub(super) fn new(tensors: Vec<NamedTensor>, file: &'a Path, shards: Option<&'a Shards>) -> Self {
        let tensors = tensors
            .into_iter()
            .map(|tensor| (tensor.name.clone(), tensor))
            .collect();
        Self {
            file,
            shards,
            tensors,
            moments: HashMap::new(),
            error: None,
        }
    }

    pub(super) fn finish(self) -> Result<HashMap<ParamId, Moments<B>>, ModelError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.moments),
        }
    }

    fn take<const D: usize>(
        &mut self,
        name: String,
        expected: &[usize],
        device: &B::Device,
    ) -> Option<TensorPrimitive<B>> {
        let found = self.tensors.remove(&name);
        match found {
            Some(tensor) if tensor.shape == expected => {
                Some(upload::<B, D>(tensor.values, tensor.shape, device).into_primitive())
            }
            found => {
                self.error.get_or_insert_with(|| ModelError::TensorMismatch {
                    path: self.file.to_owned(),
                    name,
                    found: found.map_or_else(|| "missing".to_owned(), |tensor| format!("{:?}", tensor.shape)),
                    expected: format!("{expected:?}"),
                });
                None
            }
        }
    }
}

impl<B: AutodiffBackend> NamedVisitor<B> for MomentImporter<'_, B::InnerBackend> {
    fn visit<const D: usize>(&mut self, name: &str, param: &Param<Tensor<B, D>>) {
        if !is_own(self.shards, param.id) {
            return;
        }
        // On the parameter's own device: a moment elsewhere would be copied at every step.
        let (shape, device) = (param.shape().to_vec(), param.device());
        let exp_avg = self.take::<D>(format!("{EXP_AVG}.{name}"), &shape, &device);
        let exp_avg_sq = self.take::<D>(format!("{EXP_AVG_SQ}.{name}"), &shape, &device);
        if let Some((exp_avg, exp_avg_sq)) = exp_avg.zip(exp_avg_sq) {
            self.moments.insert(param.id, Moments { exp_avg, exp_avg_sq });
        }
    }
}
