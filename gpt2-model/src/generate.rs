//! Text from a model, one token at a time.

use crate::kv_cache::KvCache;
use crate::model::Gpt2;
use crate::ops::Gpt2Backend;
use crate::sampling::Sampling;
use burn::tensor::{Int, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// An endless iterator over the tokens that continue a prompt.
///
/// Keys and values are cached while the sequence fits the model's block. Past that every position changes with each
/// token, so the last `block_size` tokens are computed anew, as nanoGPT does.
///
/// # Panics
/// If the prompt is empty.
#[derive(Debug)]
pub struct Generator<'a, B: Gpt2Backend> {
    model: &'a Gpt2<B>,
    sampling: Sampling,
    rng: ChaCha8Rng,
    cache: KvCache<B>,
    /// The last `block_size` tokens, prompt included.
    tokens: Vec<i32>,
    device: B::Device,
}

impl<'a, B: Gpt2Backend> Generator<'a, B> {
    /// A generator that continues `prompt`; the same seed gives the same tokens.
    pub fn new(model: &'a Gpt2<B>, prompt: &[i32], sampling: Sampling, seed: u64) -> Self {
        assert!(!prompt.is_empty(), "a prompt has at least one token");
        let start = prompt.len().saturating_sub(model.config.block_size);
        Self {
            model,
            sampling,
            rng: ChaCha8Rng::seed_from_u64(seed),
            cache: KvCache::new(model.config.n_layer),
            tokens: prompt[start..].to_vec(),
            device: model.wte.weight.device(),
        }
    }
}

impl<B: Gpt2Backend> Iterator for Generator<'_, B> {
    type Item = i32;

    fn next(&mut self) -> Option<i32> {
        let block_size = self.model.config.block_size;
        if self.tokens.len() > block_size {
            self.tokens.drain(..self.tokens.len() - block_size);
            self.cache = KvCache::new(self.model.config.n_layer);
        }
        let new = &self.tokens[self.cache.len()..];
        let input = Tensor::<B, 2, Int>::from_data(TensorData::new(new.to_vec(), [1, new.len()]), &self.device);
        let logits: Vec<f32> = self
            .model
            .next_logits(input, &mut self.cache)
            .into_data() // host–device sync: the token is chosen on the host
            .convert::<f32>()
            .into_vec()
            .expect("converted to f32 above");
        let token = self.sampling.draw(&logits, &mut self.rng) as i32;
        self.tokens.push(token);
        Some(token)
    }
}
