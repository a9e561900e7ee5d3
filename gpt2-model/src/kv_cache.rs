//! Keys and values of the positions that have been seen, so that generation computes each position once.

use burn::tensor::backend::Backend;
use burn::tensor::{DType, Tensor, s};

/// The cache of a whole model: one [`LayerCache`] a block.
///
#[cfg_attr(feature = "flex", doc = "```")]
#[cfg_attr(not(feature = "flex"), doc = "```ignore")]
/// # use burn::tensor::{Int, Tensor};
/// # use burn_flex::{Flex, FlexDevice};
/// # use gpt2_model::{Gpt2, Gpt2Config, KvCache};
/// # fn main() -> Result<(), gpt2_model::ModelError> {
/// # let config = Gpt2Config { vocab_size: 256, ..Gpt2Config::preset("d3")? };
/// # let model: Gpt2<Flex> = config.init(1, &FlexDevice)?;
/// let tokens = |tokens: &[i32]| Tensor::<Flex, 1, Int>::from_data(tokens, &FlexDevice).unsqueeze();
/// let mut cache = KvCache::new(model.config.n_layer);
/// model.next_logits(tokens(&[1, 2]), &mut cache);
/// let cached = model.next_logits(tokens(&[3]), &mut cache); // [B, V]
/// assert_eq!(cache.len(), 3);
///
/// let whole = model.forward(tokens(&[1, 2, 3])).narrow(1, 2, 1).squeeze_dim(1);
/// assert!((cached - whole).abs().max().into_scalar() < 1e-4);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct KvCache<B: Backend> {
    pub(crate) layers: Vec<LayerCache<B>>,
}

impl<B: Backend> KvCache<B> {
    /// An empty cache for a model of `n_layer` blocks.
    pub fn new(n_layer: usize) -> Self {
        let empty = || LayerCache {
            keys_values: None,
            len: 0,
        };
        Self {
            layers: (0..n_layer).map(|_| empty()).collect(),
        }
    }

    /// Positions held.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.len)
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Keys and values of one block, each `[B, H, capacity, D]`: zero past those that are held.
///
/// The capacity doubles when it is used up, so that tensors keep their shapes from token to token: a GPU would compile kernels
/// for each new one.
#[derive(Debug)]
pub struct LayerCache<B: Backend> {
    keys_values: Option<[Tensor<B, 4>; 2]>,
    len: usize,
}

impl<B: Backend> LayerCache<B> {
    /// Positions of the smallest cache.
    const LEAST: usize = 64;

    /// Positions held.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds the new positions and returns the whole cache.
    ///
    /// # Shapes
    /// `keys` and `values` are `[B, H, T, D]`; the results `[B, H, capacity, D]`.
    pub(crate) fn append(&mut self, keys: Tensor<B, 4>, values: Tensor<B, 4>) -> [Tensor<B, 4>; 2] {
        let shape = keys.dims();
        let held = self.take(shape, keys.dtype(), &keys.device());
        let held = put(held, [keys, values], self.len);
        self.give_back(held.clone(), shape[2]);
        held
    }

    /// Takes the cache out, with room for new positions of this shape, `[B, H, T, D]`: whoever takes it writes them behind
    /// those that are held, and gives it back.
    ///
    /// # Shapes
    /// The results are `[B, H, capacity, D]`.
    pub(crate) fn take(&mut self, new: [usize; 4], dtype: DType, device: &B::Device) -> [Tensor<B, 4>; 2] {
        let end = self.len + new[2];
        match self.keys_values.take() {
            Some(held) if end <= held[0].dims()[2] => held,
            held => {
                let mut shape = new;
                shape[2] = end.next_power_of_two().max(Self::LEAST);
                let larger = [(); 2].map(|()| Tensor::zeros(shape, (device, dtype)));
                match held {
                    Some(held) => put(larger, held, 0),
                    None => larger,
                }
            }
        }
    }

    /// Puts back what was taken, with `positions` more in it.
    pub(crate) fn give_back(&mut self, held: [Tensor<B, 4>; 2], positions: usize) {
        self.len += positions;
        self.keys_values = Some(held);
    }
}

/// Writes `new` over the positions from `start` on.
fn put<B: Backend>([keys, values]: [Tensor<B, 4>; 2], new: [Tensor<B, 4>; 2], start: usize) -> [Tensor<B, 4>; 2] {
    let [new_keys, new_values] = new;
    let at = |new: &Tensor<B, 4>| s![.., .., start..start + new.dims()[2], ..];
    [
        keys.slice_assign(at(&new_keys), new_keys),
        values.slice_assign(at(&new_values), new_values),
    ]
}
