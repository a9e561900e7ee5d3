//! Initial weights as OpenAI's: normal with deviation 0.02, the projections into the residual stream scaled down by
//! `1/√(2·n_layer)`, biases 0, LayerNorm 1 and 0.
//!
//! They are drawn on the host from one stream a parameter, many at a time, so that a seed gives the same model on every
//! backend and with any number of threads.

use crate::attention::CausalSelfAttention;
use crate::block::Block;
use crate::computation::Operations;
use crate::config::Gpt2Config;
use crate::error::ModelError;
use crate::layers::{Embedding, LayerNorm, Linear, parameter};
use crate::mlp::Mlp;
use crate::model::Gpt2;
use crate::precision::Precision;
use crate::recompute::Recompute;
use burn::module::{Param, ParamId};
use burn::nn::DropoutConfig;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};

/// Deviation of the initial weights (GPT-2's `initializer_range`).
const INIT_STD: f32 = 0.02;

impl Gpt2Config {
    /// A freshly initialised model on `device`.
    ///
    /// # Errors
    /// As [`Gpt2Config::validate`].
    pub fn init<B: Backend>(&self, seed: u64, device: &B::Device) -> Result<Gpt2<B>, ModelError> {
        let mut list = List::<B>(Vec::new(), device);
        self.build(&mut list)?;
        let matrices = list.0;
        let (senders, drawn): (Vec<_>, Vec<_>) = matrices.iter().map(|_| mpsc::sync_channel(0)).unzip();
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            // Each holds one matrix at most until it is taken.
            for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    loop {
                        let stream = next.fetch_add(1, Ordering::Relaxed);
                        let Some((matrix, sender)) = matrices.get(stream).zip(senders.get(stream)) else {
                            break;
                        };
                        if sender.send(matrix.draw(seed, stream as u64)).is_err() {
                            break;
                        }
                    }
                });
            }
            let drawn = drawn.into_iter();
            self.build(&mut Draws { drawn, device })
        })
    }

    /// A model on `device` whose parameters are 0, for weights that are filled in. Each is made when it is first read: one
    /// that is replaced before costs nothing.
    ///
    /// # Errors
    /// As [`Gpt2Config::validate`].
    pub(crate) fn zeros<B: Backend>(&self, device: &B::Device) -> Result<Gpt2<B>, ModelError> {
        self.build(&mut Zeros(device))
    }

    fn build<B: Backend>(&self, values: &mut impl InitialValues<B>) -> Result<Gpt2<B>, ModelError> {
        self.validate()?;
        let c = self.n_embd;
        let residual_std = INIT_STD / (2.0 * self.n_layer as f32).sqrt();
        let wte = Embedding::new(values.normal([self.padded_vocab_size(), c], self.vocab_size, INIT_STD));
        let wpe = Embedding::new(values.normal([self.block_size, c], self.block_size, INIT_STD));
        let inner = self.inner_size();
        let h = (0..self.n_layer)
            .map(|i| Block {
                ln_1: layer_norm(values, c),
                attn: CausalSelfAttention {
                    c_attn: linear(values, c, 3 * c, INIT_STD),
                    c_proj: linear(values, c, c, residual_std),
                    attn_dropout: DropoutConfig::new(self.dropout).init(),
                    n_head: self.n_head,
                    score_factor: self.variant.score_factor(i, self.head_dim()),
                },
                ln_2: layer_norm(values, c),
                mlp: Mlp {
                    c_fc: linear(values, c, inner, INIT_STD),
                    c_proj: linear(values, inner, c, residual_std),
                    activation: self.variant.activation_function,
                },
                resid_dropout: DropoutConfig::new(self.dropout).init(),
            })
            .collect();
        Ok(Gpt2 {
            wte,
            wpe,
            h,
            ln_f: layer_norm(values, c),
            lm_head: (!self.variant.tie_word_embeddings)
                .then(|| Embedding::new(values.normal([self.padded_vocab_size(), c], self.vocab_size, INIT_STD))),
            embd_dropout: DropoutConfig::new(self.dropout).init(),
            config: self.clone(),
            precision: Precision::F32,
            recompute: Recompute::None,
            operations: Operations::Kernels,
        })
    }
}

fn linear<B: Backend>(values: &mut impl InitialValues<B>, input: usize, output: usize, std: f32) -> Linear<B> {
    Linear::new(values.normal([input, output], input, std), values.constant(output, 0.0))
}

fn layer_norm<B: Backend>(values: &mut impl InitialValues<B>, width: usize) -> LayerNorm<B> {
    LayerNorm {
        weight: values.constant(width, 1.0),
        bias: values.constant(width, 0.0),
    }
}

/// What parameters begin with.
trait InitialValues<B: Backend> {
    /// A matrix whose first `rows` are drawn; the others are 0.
    fn normal(&mut self, shape: [usize; 2], rows: usize, std: f32) -> Param<Tensor<B, 2>>;

    /// A row of one value.
    fn constant(&mut self, width: usize, value: f32) -> Param<Tensor<B, 1>>;
}

/// A matrix that is to be drawn.
struct Matrix {
    /// Of the whole, with what is 0.
    elements: usize,
    drawn: usize,
    std: f32,
}

impl Matrix {
    /// Its values, from a stream of its own.
    fn draw(&self, seed: u64, stream: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        let normal = Normal::new(0.0, self.std).expect("a positive, finite deviation");
        let mut values = Vec::with_capacity(self.elements);
        values.extend(normal.sample_iter(&mut rng).take(self.drawn));
        values.resize(self.elements, 0.0);
        values
    }
}

/// Lists the matrices that a model asks for.
struct List<'a, B: Backend>(Vec<Matrix>, &'a B::Device);

impl<B: Backend> InitialValues<B> for List<'_, B> {
    fn normal(&mut self, shape: [usize; 2], rows: usize, std: f32) -> Param<Tensor<B, 2>> {
        let [height, width] = shape;
        self.0.push(Matrix {
            elements: height * width,
            drawn: rows * width,
            std,
        });
        zeros(shape, self.1)
    }

    fn constant(&mut self, width: usize, _value: f32) -> Param<Tensor<B, 1>> {
        zeros([width], self.1)
    }
}

/// Gives matrices that others draw, in the order of the list.
struct Draws<'a, B: Backend> {
    drawn: std::vec::IntoIter<Receiver<Vec<f32>>>,
    device: &'a B::Device,
}

impl<B: Backend> InitialValues<B> for Draws<'_, B> {
    fn normal(&mut self, shape: [usize; 2], _rows: usize, _std: f32) -> Param<Tensor<B, 2>> {
        let values = self.drawn.next().and_then(|drawn| drawn.recv().ok());
        parameter(values.expect("each matrix is drawn once"), shape, self.device)
    }

    fn constant(&mut self, width: usize, value: f32) -> Param<Tensor<B, 1>> {
        parameter(vec![value; width], [width], self.device)
    }
}

struct Zeros<'a, B: Backend>(&'a B::Device);

impl<B: Backend> InitialValues<B> for Zeros<'_, B> {
    fn normal(&mut self, shape: [usize; 2], _rows: usize, _std: f32) -> Param<Tensor<B, 2>> {
        zeros(shape, self.0)
    }

    fn constant(&mut self, width: usize, _value: f32) -> Param<Tensor<B, 1>> {
        zeros([width], self.0)
    }
}

fn zeros<B: Backend, const D: usize>(shape: [usize; D], device: &B::Device) -> Param<Tensor<B, D>> {
    Param::uninitialized(
        ParamId::new(),
        move |device, require_grad| Tensor::zeros(shape, device).set_require_grad(require_grad),
        device.clone(),
        true,
        shape.into(),
    )
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use burn_ndarray::{NdArray, NdArrayDevice};

    #[test]
    fn zeros_are_made_when_they_are_read() {
        let model: Gpt2<NdArray> = Gpt2Config::preset("d3").unwrap().zeros(&NdArrayDevice::Cpu).unwrap();
        let c_fc = &model.h[2].mlp.c_fc;
        assert!(!model.wte.weight.is_initialized() && !c_fc.weight.is_initialized() && !c_fc.bias.is_initialized());
        assert_eq!(model.wte.weight.lazy_shape().as_slice(), [50_304, 96]);
        let values: Vec<f32> = c_fc.weight.val().into_data().into_vec().unwrap();
        assert_eq!(values, vec![0.0; 96 * 4 * 96]);
        assert!(c_fc.weight.is_initialized() && !model.wte.weight.is_initialized());
    }
}
