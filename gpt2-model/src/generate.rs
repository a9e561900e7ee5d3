//! Text from a model, one token at a time.

use crate::error::ModelError;
use crate::kv_cache::KvCache;
use crate::model::Gpt2;
use crate::ops::Gpt2Backend;
use crate::sampling::Sampling;
use burn::tensor::{Int, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// An endless iterator over the tokens that continue a prompt, from [`Gpt2::generate`]. It ends after an error.
///
/// Keys and values are cached while the sequence fits the model's block. Past that every position changes with each
/// token, so the last `block_size` tokens are recomputed, as nanoGPT does.
///
/// # Errors
/// [`ModelError::NonFiniteLogits`] where a logit of the model is NaN or infinite.
#[derive(Debug)]
pub struct Generator<'a, B: Gpt2Backend> {
    model: &'a Gpt2<B>,
    sampling: Sampling,
    rng: ChaCha8Rng,
    /// None where the sequence has left the block behind.
    cache: Option<KvCache<B>>,
    /// The last `block_size` tokens, prompt included.
    tokens: Vec<i32>,
    /// Tokens of prompt and text so far.
    position: usize,
    failed: bool,
    device: B::Device,
}

impl<B: Gpt2Backend> Gpt2<B> {
    /// The tokens that continue `prompt`, without an end; the same seed gives the same ones.
    ///
    /// # Panics
    /// If the prompt is empty.
    pub fn generate(&self, prompt: &[i32], sampling: Sampling, seed: u64) -> Generator<'_, B> {
        assert!(!prompt.is_empty(), "a prompt has at least one token");
        let start = prompt.len().saturating_sub(self.config.block_size);
        Generator {
            model: self,
            sampling,
            rng: ChaCha8Rng::seed_from_u64(seed),
            cache: Some(KvCache::new(self.config.n_layer)),
            tokens: prompt[start..].to_vec(),
            position: prompt.len(),
            failed: false,
            device: self.wte.weight.device(),
        }
    }
}

impl<B: Gpt2Backend> Iterator for Generator<'_, B> {
    type Item = Result<i32, ModelError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let block_size = self.model.config.block_size;
        if self.tokens.len() > block_size {
            self.tokens.drain(..self.tokens.len() - block_size);
            self.cache = None;
        }
        let new = &self.tokens[self.cache.as_ref().map_or(0, KvCache::len)..];
        let input = Tensor::<B, 2, Int>::from_data(TensorData::new(new.to_vec(), [1, new.len()]), &self.device);
        let logits: Vec<f32> = self
            .model
            .last_logits(input, self.cache.as_mut())
            .into_data() // host–device sync: the token is chosen on the host
            .convert::<f32>()
            .into_vec()
            .expect("converted to f32 above");
        if !logits.iter().all(|logit| logit.is_finite()) {
            self.failed = true;
            let position = self.position;
            return Some(Err(ModelError::NonFiniteLogits { position }));
        }
        let token = self.sampling.draw(&logits, &mut self.rng) as i32;
        self.tokens.push(token);
        self.position += 1;
        Some(Ok(token))
    }
}
