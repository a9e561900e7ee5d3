//! Which rank keeps the moments of which parameter, where the optimizer is sharded (ZeRO's first stage, Rajbhandari et al.
//! 2020): it alone updates that parameter, and gives it to the others.

use super::Placeholders;
use super::moments::MomentMerger;
use crate::error::TrainError;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};
use gpt2_model::Gpt2;
use gpt2_model::weights::{NamedTensor, visit_parameters};
use std::cmp::Reverse;
use std::collections::HashMap;

/// The owner of each of the tensors that have `sizes`, and what each rank owns in all: the largest first, each to the rank that
/// has least so far.
fn dealt(sizes: &[u64], ranks: usize) -> (Vec<usize>, Vec<u64>) {
    let mut owners = vec![0; sizes.len()];
    let mut shares = vec![0; ranks];
    let mut by_size: Vec<usize> = (0..sizes.len()).collect();
    by_size.sort_by_key(|&tensor| Reverse(sizes[tensor]));
    for tensor in by_size {
        let (rank, share) = shares
            .iter_mut()
            .enumerate()
            .min_by_key(|(_, share)| **share)
            .expect("at least one rank");
        *share += sizes[tensor];
        owners[tensor] = rank;
    }
    (owners, shares)
}

/// Elements of the rank that owns most.
pub(crate) fn largest_share(sizes: &[u64], ranks: usize) -> u64 {
    let (_, shares) = dealt(sizes, ranks);
    shares.into_iter().max().unwrap_or(0)
}

/// Whether this rank keeps the moments of a parameter: without shards, of all.
pub(super) fn is_own(shards: Option<&Shards>, id: ParamId) -> bool {
    shards.is_none_or(|shards| shards.owner(id) == shards.rank)
}

/// The parameters of a model by their owners, as one of the ranks sees them.
#[derive(Debug, Clone)]
pub(crate) struct Shards {
    rank: usize,
    owners: HashMap<ParamId, usize>,
}

impl Shards {
    /// Those of `ranks` ranks, of which this is `rank`.
    pub(crate) fn of<B: Backend>(model: &Gpt2<B>, rank: usize, ranks: usize) -> Self {
        let mut sizes = Sizes::default();
        model.visit(&mut sizes);
        let (owners, _) = dealt(&sizes.elements, ranks);
        Self {
            rank,
            owners: sizes.ids.into_iter().zip(owners).collect(),
        }
    }

    /// The rank that owns a parameter.
    pub(crate) fn owner(&self, id: ParamId) -> usize {
        self.owners[&id]
    }

    /// All moments, as [`AdamW::export`](super::AdamW::export) of one rank gives them, of the elements that each rank has
    /// exported.
    pub(crate) fn merge<B: Backend>(&self, model: &Gpt2<B>, exported: Vec<Vec<f32>>) -> Vec<NamedTensor> {
        let mut merger = MomentMerger::new(self, exported);
        visit_parameters(model, &mut merger);
        merger.finish()
    }
}

/// The model with what `change` makes of its parameters. It is told the owner of each; where it fails, the model is of no use.
pub(crate) fn change_parameters<B: AutodiffBackend>(
    model: Gpt2<B>,
    shards: &Shards,
    change: impl FnOnce(&mut Vec<FloatTensor<B::InnerBackend>>, &[usize]) -> Result<(), TrainError>,
) -> (Gpt2<B>, Result<(), TrainError>) {
    let mut taken = TakeAll::<B::InnerBackend> {
        shards,
        tensors: Vec::new(),
        owners: Vec::new(),
        placeholders: Placeholders(HashMap::new()),
    };
    let model = model.map(&mut taken);
    let TakeAll {
        mut tensors, owners, ..
    } = taken;
    let result = change(&mut tensors, &owners);
    (model.map(&mut ReturnAll(tensors.into_iter())), result)
}

/// Takes every parameter out of the model, so that it is uniquely owned meanwhile.
struct TakeAll<'a, B: Backend> {
    shards: &'a Shards,
    tensors: Vec<FloatTensor<B>>,
    owners: Vec<usize>,
    placeholders: Placeholders<B>,
}

impl<B: AutodiffBackend> ModuleMapper<B> for TakeAll<'_, B::InnerBackend> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, tensor, mapper) = param.consume();
        let tensor = tensor.inner();
        let placeholder = self.placeholders.of(&tensor);
        self.tensors.push(tensor.into_primitive().tensor());
        self.owners.push(self.shards.owner(id));
        Param::from_mapped_value(id, Tensor::from_inner(placeholder), mapper)
    }
}

/// Puts parameters back into the model.
struct ReturnAll<B: Backend>(std::vec::IntoIter<FloatTensor<B>>);

impl<B: AutodiffBackend> ModuleMapper<B> for ReturnAll<B::InnerBackend> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (id, _, mapper) = param.consume();
        let tensor = self.0.next().expect("as many as were taken");
        let value = Tensor::<B::InnerBackend, D>::from_primitive(TensorPrimitive::Float(tensor));
        Param::from_mapped_value(id, Tensor::from_inner(value).require_grad(), mapper)
    }
}

/// The size of every parameter, in the order of the model.
#[derive(Default)]
struct Sizes {
    ids: Vec<ParamId>,
    elements: Vec<u64>,
}

impl<B: Backend> ModuleVisitor<B> for Sizes {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.ids.push(param.id);
        self.elements.push(param.shape().num_elements() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt2_model::{Gpt2Config, cost};

    #[test]
    fn every_rank_owns_a_like_share() {
        assert_eq!(dealt(&[4, 1, 3, 2], 2).0, [0, 0, 1, 1]);
        assert_eq!(dealt(&[1, 1], 3).0, [0, 1]);
        assert_eq!(largest_share(&[4, 1, 3, 2], 2), 5);
        for (preset, ranks, over_the_mean) in [("gpt2", 2, 1.0001), ("gpt2", 4, 1.25), ("gpt2-xl", 8, 1.01)] {
            let sizes = cost::parameter_sizes(&Gpt2Config::preset(preset).unwrap());
            let mean = sizes.iter().sum::<u64>() as f64 / ranks as f64;
            let largest = largest_share(&sizes, ranks) as f64;
            assert!(
                largest <= over_the_mean * mean,
                "{preset} on {ranks}: {}",
                largest / mean
            );
        }
    }
}
