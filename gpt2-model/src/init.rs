//! Initial weights as OpenAI's: normal with deviation 0.02, the projections into the residual stream scaled down by
//! `1/√(2·n_layer)`, biases 0, LayerNorm 1 and 0.
//!
//! They are drawn on the host from one stream a parameter, so that a seed gives the same model on every backend.

use crate::attention::CausalSelfAttention;
use crate::block::Block;
use crate::config::Gpt2Config;
use crate::error::ModelError;
use crate::layers::{Embedding, LayerNorm, Linear, parameter};
use crate::mlp::Mlp;
use crate::model::Gpt2;
use crate::precision::Precision;
use crate::recompute::Recompute;
use burn::nn::DropoutConfig;
use burn::tensor::backend::Backend;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

/// Deviation of the initial weights (GPT-2's `initializer_range`).
const INIT_STD: f32 = 0.02;

impl Gpt2Config {
    /// A freshly initialised model on `device`.
    ///
    /// # Errors
    /// As [`Gpt2Config::validate`].
    pub fn init<B: Backend>(&self, seed: u64, device: &B::Device) -> Result<Gpt2<B>, ModelError> {
        self.validate()?;
        let mut init = Initializer {
            seed,
            stream: 0,
            device: device.clone(),
        };
        let c = self.n_embd;
        let residual_std = INIT_STD / (2.0 * self.n_layer as f32).sqrt();
        let wte = Embedding {
            weight: init.embedding(self.vocab_size, self.padded_vocab_size(), c),
        };
        let wpe = Embedding {
            weight: init.embedding(self.block_size, self.block_size, c),
        };
        let h = (0..self.n_layer)
            .map(|_| Block {
                ln_1: init.layer_norm(c),
                attn: CausalSelfAttention {
                    c_attn: init.linear(c, 3 * c, INIT_STD),
                    c_proj: init.linear(c, c, residual_std),
                    attn_dropout: DropoutConfig::new(self.dropout).init(),
                    n_head: self.n_head,
                },
                ln_2: init.layer_norm(c),
                mlp: Mlp {
                    c_fc: init.linear(c, 4 * c, INIT_STD),
                    c_proj: init.linear(4 * c, c, residual_std),
                },
                resid_dropout: DropoutConfig::new(self.dropout).init(),
            })
            .collect();
        Ok(Gpt2 {
            wte,
            wpe,
            h,
            ln_f: init.layer_norm(c),
            embd_dropout: DropoutConfig::new(self.dropout).init(),
            config: self.clone(),
            precision: Precision::F32,
            recompute: Recompute::None,
        })
    }
}

struct Initializer<B: Backend> {
    seed: u64,
    stream: u64,
    device: B::Device,
}

impl<B: Backend> Initializer<B> {
    fn normal(&mut self, count: usize, std: f32) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(self.stream);
        self.stream += 1;
        let normal = Normal::new(0.0, std).expect("a positive, finite deviation");
        normal.sample_iter(&mut rng).take(count).collect()
    }

    /// `rows` drawn and the rest, up to `padded_rows`, zero.
    fn embedding(
        &mut self,
        rows: usize,
        padded_rows: usize,
        width: usize,
    ) -> burn::module::Param<burn::tensor::Tensor<B, 2>> {
        let mut values = self.normal(rows * width, INIT_STD);
        values.resize(padded_rows * width, 0.0);
        parameter(values, [padded_rows, width], &self.device)
    }

    fn linear(&mut self, input: usize, output: usize, std: f32) -> Linear<B> {
        Linear {
            weight: parameter(self.normal(input * output, std), [input, output], &self.device),
            bias: parameter(vec![0.0; output], [output], &self.device),
        }
    }

    fn layer_norm(&self, width: usize) -> LayerNorm<B> {
        LayerNorm {
            weight: parameter(vec![1.0; width], [width], &self.device),
            bias: parameter(vec![0.0; width], [width], &self.device),
        }
    }
}
