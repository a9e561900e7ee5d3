//! Keys and values of the positions that have been seen, so that generation computes each position once.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

/// The cache of a whole model: one [`LayerCache`] a block.
#[derive(Debug)]
pub struct KvCache<B: Backend> {
    pub(crate) layers: Vec<LayerCache<B>>,
}

impl<B: Backend> KvCache<B> {
    /// An empty cache for a model of `n_layer` blocks.
    pub fn new(n_layer: usize) -> Self {
        Self {
            layers: (0..n_layer).map(|_| LayerCache { keys_values: None }).collect(),
        }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.layers
            .first()
            .and_then(|layer| layer.keys_values.as_ref())
            .map_or(0, |(keys, _)| keys.dims()[2])
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Keys and values of one block, each `[B, H, past, D]`.
#[derive(Debug)]
pub struct LayerCache<B: Backend> {
    keys_values: Option<(Tensor<B, 4>, Tensor<B, 4>)>,
}

impl<B: Backend> LayerCache<B> {
    /// Adds the new positions and returns all of them.
    ///
    /// # Shapes
    /// `keys` and `values` are `[B, H, T, D]`; the results `[B, H, past + T, D]`.
    pub(crate) fn append(&mut self, keys: Tensor<B, 4>, values: Tensor<B, 4>) -> (Tensor<B, 4>, Tensor<B, 4>) {
        let all = match self.keys_values.take() {
            Some((past_keys, past_values)) => (
                Tensor::cat(vec![past_keys, keys], 2),
                Tensor::cat(vec![past_values, values], 2),
            ),
            None => (keys, values),
        };
        self.keys_values = Some(all.clone());
        all
    }
}
