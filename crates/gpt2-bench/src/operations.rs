//! A training step operation by operation: each is timed by itself on the shapes that the step has, beside what the device
//! reaches at most.

use crate::error::BenchError;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Distribution, FloatDType, Int, Tensor};
use gpt2_backend::{Chosen, TrainingJob, dispatch};
use gpt2_base::stats::median;
use gpt2_model::ops::training::{AdamWInput, TrainingBackend};
use gpt2_model::ops::{Attended, ClassifierShape, Gpt2Backend};
use gpt2_model::{Gpt2Config, Precision, cost};
use gpt2_train::optimizer::AdamWConfig;
use gpt2_train::plan::RunPlan;
use std::time::Instant;

/// Sides of the square matrices whose product is the ceiling of arithmetic: the first that keeps the device busy for a
/// millisecond, or else the last.
const CEILING_SIDES: [usize; 3] = [2048, 4096, 8192];

/// Milliseconds of work that are queued before the device is waited for.
const QUEUED_MS: f64 = 5.0;

/// Elements of each of the two tensors that are copied for the ceiling of memory: as many as the smallest limit on a buffer
/// that GPUs have (128 MiB) lets through, and far more than any cache holds.
const CEILING_ELEMENTS: usize = 1 << 25;

/// Elements of the parameter that the optimizer is timed on.
const OPTIMIZER_ELEMENTS: usize = 1 << 24;

/// The work that is timed.
struct Work<'a> {
    model: &'a Gpt2Config,
    /// Sequences.
    batch: usize,
    /// Tokens in a sequence.
    seq: usize,
    /// Type of the products.
    precision: Precision,
    /// Timed repetitions of each operation.
    repeats: usize,
}

/// What an operation takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Its name.
    pub name: &'static str,
    /// How often a step does it; a fraction where it was timed on more than a step has.
    pub count: f64,
    /// Median milliseconds of one.
    pub ms: f64,
    /// Floating-point operations of one.
    pub flop: f64,
    /// Bytes that one must at least read and write.
    pub bytes: f64,
}

impl Operation {
    /// Milliseconds of a step.
    pub fn ms_per_step(&self) -> f64 {
        self.count * self.ms
    }
}

/// All operations, and what the device reaches at most.
#[derive(Debug, Clone, PartialEq)]
pub struct Operations {
    /// In the order of a step.
    pub operations: Vec<Operation>,
    /// FLOP/s of a product of two square matrices in the precision of the work.
    pub product_ceiling: f64,
    /// The side of those matrices.
    pub ceiling_side: usize,
    /// Bytes read and written a second by scaling twice 32 Mi elements of `f32`.
    pub memory_ceiling: f64,
}

/// Times the operations of the plan's step on the chosen device, each `repeats` times.
///
/// # Errors
/// [`BenchError::Backend`] if the device is not there any more.
pub fn measure(plan: &RunPlan, chosen: &Chosen, repeats: usize) -> Result<Operations, BenchError> {
    let work = Work {
        model: &plan.model,
        batch: plan.batch.micro_batch,
        seq: plan.batch.seq,
        precision: plan.machine.precision,
        repeats,
    };
    Ok(dispatch(chosen, work)?)
}

impl TrainingJob for Work<'_> {
    type Output = Operations;

    fn run<B>(self, device: B::Device) -> Operations
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        on_device::<B::InnerBackend>(&self, &device)
    }
}

fn on_device<B: TrainingBackend>(work: &Work, device: &B::Device) -> Operations {
    let bench = Bench::<B> { work, device };
    let mut ceiling_side = CEILING_SIDES[0];
    let mut ms = bench.square_product(ceiling_side);
    for side in CEILING_SIDES.into_iter().skip(1) {
        if ms >= 1.0 {
            break;
        }
        ceiling_side = side;
        ms = bench.square_product(side);
    }
    let product_ceiling = 2.0 * (ceiling_side as f64).powi(3) / ms * 1e3;
    let copied = [(); 2].map(|()| bench.float([CEILING_ELEMENTS]));
    let ms = bench.time(|| copied.clone().map(|one| B::float_mul_scalar(one, 0.5.into())));
    let memory_ceiling = 2.0 * 8.0 * CEILING_ELEMENTS as f64 / ms * 1e3;
    drop(copied);
    Operations {
        operations: bench.operations(),
        product_ceiling,
        ceiling_side,
        memory_ceiling,
    }
}

struct Bench<'a, B: Backend> {
    work: &'a Work<'a>,
    device: &'a B::Device,
}

impl<B: TrainingBackend> Bench<'_, B> {
    fn operations(&self) -> Vec<Operation> {
        let Gpt2Config { n_layer, n_embd: c, .. } = *self.work.model;
        let layers = n_layer as f64;
        let mut all = vec![self.embed(), self.layer_norm(2.0 * layers + 1.0)];
        all.extend(self.affine(["qkv", "qkv backward"], [c, 3 * c], false, layers));
        all.extend(self.attention(layers));
        all.extend(self.affine(["attention out", "attention out backward"], [c, c], true, layers));
        all.extend(self.feed_forward(layers));
        all.push(self.layer_norm_backward(2.0 * layers + 1.0));
        all.push(self.embed_backward());
        all.push(self.classifier());
        all.extend(self.optimizer());
        all
    }

    /// Milliseconds of a product of matrices of `side` by `side`.
    fn square_product(&self, side: usize) -> f64 {
        let [x, w] = [(); 2].map(|()| self.product([side, side]));
        let bias = self.float([side]);
        self.time(|| B::affine(x.clone(), w.clone(), bias.clone()))
    }

    fn embed(&self) -> Operation {
        let (wte, wpe, tokens) = self.embedding();
        let ms = self.time(|| B::embed(wte.clone(), wpe.clone(), tokens.clone().into_primitive(), 0));
        row("embedding", 1.0, ms, 0.0, 8.0 * self.stream())
    }

    fn embed_backward(&self) -> Operation {
        let (wte, wpe, tokens) = self.embedding();
        let upstream = self.float([self.work.batch, self.work.seq, self.work.model.n_embd]);
        let mut sum = Some(wte.clone());
        let ms = self.time(|| {
            let (tables, tokens) = ([wte.clone(), wpe.clone()], tokens.clone().into_primitive());
            let [by_wte, by_wpe] = B::embed_backward(tables, tokens, 0, upstream.clone(), sum.take());
            sum = Some(by_wte);
            by_wpe
        });
        row("embedding backward", 1.0, ms, 0.0, 16.0 * self.stream())
    }

    fn embedding(&self) -> (FloatTensor<B>, FloatTensor<B>, Tensor<B, 2, Int>) {
        let c = self.work.model.n_embd;
        let wte = self.float([self.work.model.padded_vocab_size(), c]);
        let wpe = self.float([self.work.model.block_size, c]);
        (wte, wpe, self.tokens([self.work.batch, self.work.seq]))
    }

    fn layer_norm(&self, count: f64) -> Operation {
        let (x, weight, bias) = self.normalised();
        let ms = self.time(|| B::normalise_rows(x.clone(), weight.clone(), bias.clone(), self.work.precision));
        row("LayerNorm", count, ms, 0.0, (4.0 + self.size()) * self.stream())
    }

    fn layer_norm_backward(&self, count: f64) -> Operation {
        let (x, weight, bias) = self.normalised();
        let normal = B::normalise_rows(x.clone(), weight.clone(), bias, self.work.precision);
        let mut sum = Some(x.clone());
        let ms = self.time(|| {
            let (x, statistics) = (x.clone(), normal.statistics.clone());
            let found = B::normalise_rows_backward(x, weight.clone(), statistics, normal.out.clone(), sum.take());
            sum = Some(found.x);
            (found.weight, found.bias)
        });
        row(
            "LayerNorm backward",
            count,
            ms,
            0.0,
            (12.0 + self.size()) * self.stream(),
        )
    }

    fn normalised(&self) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
        let c = self.work.model.n_embd;
        (self.float([self.rows(), c]), self.float([c]), self.float([c]))
    }

    /// With `onto`, the result is added to the residual stream.
    fn affine(&self, names: [&'static str; 2], [inner, outer]: [usize; 2], onto: bool, count: f64) -> [Operation; 2] {
        let rows = self.rows();
        let (x, w, bias) = (
            self.product([rows, inner]),
            self.product([inner, outer]),
            self.float([outer]),
        );
        let (upstream, forward) = if onto {
            let residual = self.float([rows, outer]);
            let forward = self.time(|| B::affine_onto(residual.clone(), x.clone(), w.clone(), bias.clone()));
            (residual, forward)
        } else {
            let forward = self.time(|| B::affine(x.clone(), w.clone(), bias.clone()));
            (self.product([rows, outer]), forward)
        };
        let backward = self.time(|| B::affine_backward(x.clone(), w.clone(), upstream.clone()));
        let flop = 2.0 * (rows * inner * outer) as f64;
        let (read, written) = ((rows * inner + inner * outer) as f64, (rows * outer) as f64);
        let result = if onto { 8.0 } else { self.size() };
        [
            row(names[0], count, forward, flop, self.size() * read + result * written),
            // Two products, each of two of the three matrices into the third.
            row(
                names[1],
                count,
                backward,
                2.0 * flop,
                2.0 * self.size() * (read + written),
            ),
        ]
    }

    fn feed_forward(&self, count: f64) -> [Operation; 2] {
        let (rows, c) = (self.rows(), self.work.model.n_embd);
        let (x, residual) = (self.product([rows, c]), self.float([rows, c]));
        let [w_in, w_out] = [[c, 4 * c], [4 * c, c]].map(|shape| self.product(shape));
        let [bias_in, bias_out] = [4 * c, c].map(|width| self.float([width]));
        let forward = self.time(|| {
            let [inner, activated] = B::affine_gelu(x.clone(), w_in.clone(), bias_in.clone());
            drop(inner);
            B::affine_onto(residual.clone(), activated, w_out.clone(), bias_out.clone())
        });
        let [inner, activated] = B::affine_gelu(x.clone(), w_in.clone(), bias_in);
        let backward = self.time(|| {
            let weights = [w_in.clone(), w_out.clone()];
            B::feed_forward_backward(
                x.clone(),
                weights,
                inner.clone(),
                Some(activated.clone()),
                residual.clone(),
            )
        });
        let flop = 16.0 * (rows * c * c) as f64;
        let weights = 8.0 * self.size() * (c * c) as f64;
        // Forward: x and the residual in, GELU's input out and its output out and in, the sum out.
        let forward_bytes = weights + (13.0 * self.size() + 8.0) * self.stream();
        // Backward: each of four products reads and writes three matrices, two of them four times as wide.
        let backward_bytes = 2.0 * weights + 4.0 * 5.0 * self.size() * self.stream();
        [
            row("feed-forward", count, forward, flop, forward_bytes),
            row("feed-forward backward", count, backward, 2.0 * flop, backward_bytes),
        ]
    }

    fn attention(&self, count: f64) -> [Operation; 2] {
        let Work { batch, seq, model, .. } = *self.work;
        let (c, heads) = (model.n_embd, model.n_head);
        let (qkv, upstream) = (self.product([batch, seq, 3 * c]), self.product([batch, seq, c]));
        let forward = self.time(|| B::causal_attention(qkv.clone(), heads));
        let attended = B::causal_attention(qkv.clone(), heads);
        let backward = self.time(|| {
            let attended = Attended {
                out: attended.out.clone(),
                log_sum: attended.log_sum.clone(),
            };
            B::causal_attention_backward(qkv.clone(), attended, upstream.clone(), heads)
        });
        // Half of [T, T], since no position attends to a later one: 2 products forward, 5 backward.
        let product = (batch * seq * seq * c) as f64;
        [
            row(
                "attention",
                count,
                forward,
                2.0 * product,
                4.0 * self.size() * self.stream(),
            ),
            row(
                "attention backward",
                count,
                backward,
                5.0 * product,
                8.0 * self.size() * self.stream(),
            ),
        ]
    }

    fn classifier(&self) -> Operation {
        let (model, rows) = (self.work.model, self.rows());
        let (vocab, c) = (model.padded_vocab_size(), model.n_embd);
        let (hidden, wte) = (self.product([rows, c]), self.float([vocab, c]));
        let targets = self.tokens([1, rows]).reshape([rows]);
        let shape = ClassifierShape {
            vocab_size: model.vocab_size,
            precision: self.work.precision,
        };
        let ms =
            self.time(|| B::classifier_gradients(hidden.clone(), wte.clone(), targets.clone().into_primitive(), shape));
        let bytes = 4.0 * (3 * vocab * c + 2 * rows * c) as f64;
        row(
            "classifier, loss and backward",
            1.0,
            ms,
            6.0 * (rows * vocab * c) as f64,
            bytes,
        )
    }

    fn optimizer(&self) -> [Operation; 2] {
        let count = cost::padded_parameters(self.work.model) as f64 / OPTIMIZER_ELEMENTS as f64;
        let gradient = self.float([OPTIMIZER_ELEMENTS]);
        let norm = self.time(|| B::squared_norm(vec![gradient.clone()]));
        let step = AdamWConfig::default().step(1e-4, 10);
        let scale = B::float_ones([1].into(), self.device, FloatDType::F32);
        let mut state = Some([(); 3].map(|()| B::float_abs(self.float([OPTIMIZER_ELEMENTS]))));
        let update = self.time(|| {
            let [parameter, exp_avg, exp_avg_sq] = state.take().expect("put back each time");
            let input = AdamWInput {
                parameter,
                grad: gradient.clone(),
                exp_avg,
                exp_avg_sq,
                has_weight_decay: true,
            };
            let output = B::adamw(vec![input], &step, scale.clone())
                .pop()
                .expect("an output for each input");
            state = Some([output.parameter, output.exp_avg, output.exp_avg_sq]);
        });
        let elements = OPTIMIZER_ELEMENTS as f64;
        [
            row("gradient norm", count, norm, 0.0, 4.0 * elements),
            row("AdamW", count, update, 0.0, 28.0 * elements),
        ]
    }

    fn rows(&self) -> usize {
        self.work.batch * self.work.seq
    }

    /// Elements of the residual stream.
    fn stream(&self) -> f64 {
        (self.rows() * self.work.model.n_embd) as f64
    }

    /// Bytes of an operand of a product.
    fn size(&self) -> f64 {
        match self.work.precision {
            Precision::F32 | Precision::Tf32 => 4.0,
            Precision::Bf16 => 2.0,
        }
    }

    fn float<const D: usize>(&self, shape: [usize; D]) -> FloatTensor<B> {
        let tensor = Tensor::<B, D>::random(shape, Distribution::Normal(0.0, 1.0), self.device);
        tensor.into_primitive().tensor()
    }

    /// An operand of a product.
    fn product<const D: usize>(&self, shape: [usize; D]) -> FloatTensor<B> {
        match self.work.precision {
            Precision::Bf16 => B::float_cast(self.float(shape), FloatDType::BF16),
            // What is not rounded in memory may still be marked as an operand.
            precision => B::round_weights(self.float(shape), precision.operands()),
        }
    }

    fn tokens(&self, shape: [usize; 2]) -> Tensor<B, 2, Int> {
        let vocab = self.work.model.vocab_size as f64;
        Tensor::random(shape, Distribution::Uniform(0.0, vocab), self.device)
    }

    /// Median milliseconds of `operation`. Of short ones many are queued at a time, as in a step, so that the wait for the
    /// device takes no part.
    fn time<T>(&self, mut operation: impl FnMut() -> T) -> f64 {
        let mut queue = |count: usize| {
            self.wait();
            let began = Instant::now();
            for _ in 0..count {
                drop(operation());
            }
            self.wait();
            began.elapsed().as_secs_f64() * 1e3 / count as f64
        };
        // The first may compile kernels.
        queue(1);
        let count = (QUEUED_MS / queue(1)).ceil().clamp(1.0, 100.0) as usize;
        let times: Vec<f64> = (0..self.work.repeats.max(1)).map(|_| queue(count)).collect();
        median(&times).expect("times are finite")
    }

    fn wait(&self) {
        B::sync(self.device).expect("the device has done its work");
    }
}

fn row(name: &'static str, count: f64, ms: f64, flop: f64, bytes: f64) -> Operation {
    Operation {
        name,
        count,
        ms,
        flop,
        bytes,
    }
}
