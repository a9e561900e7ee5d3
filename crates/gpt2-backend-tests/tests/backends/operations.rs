//! Each operation of `gpt2_model::ops`, value and derivatives, on random inputs against its plain formula in `f64` with
//! Burn's own derivatives.

use crate::{floats, relative_error};
use burn::backend::Autodiff;
use burn::tensor::activation::softmax;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Bool, FloatDType, Int, Tensor, TensorData, TensorPrimitive};
use burn_ndarray::{NdArray, NdArrayDevice};
use gpt2_model::ops::training::{AdamWInput, Clip, TrainingBackend};
use gpt2_model::ops::{self, BlockShape, BlockWeights, Gpt2Backend};
use gpt2_model::{Operations, Precision, Recompute};
use gpt2_train::optimizer::AdamWConfig;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The backend of the reference.
type Exact = Autodiff<NdArray<f64>>;

/// Its only device.
const CPU: NdArrayDevice = NdArrayDevice::Cpu;

/// A matrix of numbers between -2 and 2.
struct Matrix {
    values: Vec<f64>,
    shape: [usize; 2],
}

impl Matrix {
    fn random(rng: &mut ChaCha8Rng, shape: [usize; 2]) -> Self {
        let values = (0..shape[0] * shape[1]).map(|_| f64::from(rng.random_range(-2.0_f32..2.0)));
        Self {
            values: values.collect(),
            shape,
        }
    }

    fn to<B: Backend>(&self, dtype: FloatDType, device: &B::Device) -> Tensor<B, 2> {
        Tensor::<B, 2>::from_data(TensorData::new(self.values.clone(), self.shape), (device, dtype.into()))
    }
}

/// The value of `operation` and the derivative of its sum, weighted by random numbers, by each input.
fn evaluate<B: AutodiffBackend>(
    inputs: &[Matrix],
    dtype: FloatDType,
    device: &B::Device,
    operation: impl Fn(Vec<Tensor<B, 2>>) -> Tensor<B, 2>,
) -> Vec<Vec<f32>> {
    let inputs: Vec<_> = inputs
        .iter()
        .map(|input| input.to::<B>(dtype, device).require_grad())
        .collect();
    let value = operation(inputs.clone());
    let weights = Matrix::random(&mut ChaCha8Rng::seed_from_u64(1), value.dims()).to::<B>(dtype, device);
    let gradients = (value.clone() * weights).sum().backward();
    let derivatives = inputs.iter().map(|input| floats(input.grad(&gradients).unwrap()));
    std::iter::once(floats(value.inner())).chain(derivatives).collect()
}

/// Fails where the two disagree: first the value, then the derivative by each input.
fn compare(found: &[Vec<f32>], expected: &[Vec<f32>], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let errors: Vec<f64> = found.iter().zip(expected).map(|(a, b)| relative_error(a, b)).collect();
    // `cargo test operations -- --nocapture` prints the table of errors.
    let thread = std::thread::current();
    let words: Vec<String> = errors.iter().map(|error| format!("{error:.1e}")).collect();
    println!("{}: {}", thread.name().unwrap_or_default(), words.join(" "));
    for (i, error) in errors.into_iter().enumerate() {
        assert!(error < tolerance, "output {i}: relative error {error:.2e}");
    }
}

fn exact_gelu(x: Tensor<Exact, 2>) -> Tensor<Exact, 2> {
    let argument = (x.clone() + x.clone().powi_scalar(3) * 0.044_715) * (2.0 / std::f64::consts::PI).sqrt();
    x * (argument.tanh() + 1.0) * 0.5
}

fn exact_layer_norm(x: Tensor<Exact, 2>, weight: Tensor<Exact, 2>, bias: Tensor<Exact, 2>) -> Tensor<Exact, 2> {
    let centred = x.clone() - x.mean_dim(1);
    let deviation = (centred.clone().square().mean_dim(1) + 1e-5).sqrt();
    centred / deviation * weight + bias
}

/// Heads in the tests of attention.
const HEADS: usize = 2;

/// Of `[batch * seq, 3 * width]`.
fn exact_attention(qkv: &Tensor<Exact, 2>, [batch, seq, head_dim]: [usize; 3]) -> Tensor<Exact, 2> {
    let width = HEADS * head_dim;
    let part = |i: usize| {
        let part = qkv.clone().narrow(1, i * width, width);
        part.reshape([batch, seq, HEADS, head_dim]).swap_dims(1, 2)
    };
    let scores = part(0).matmul(part(1).swap_dims(2, 3)) / (head_dim as f64).sqrt();
    let later = Tensor::<Exact, 2, Bool>::tril_mask([seq, seq], 0, &CPU);
    let weights = softmax(scores.mask_fill(later.unsqueeze(), f64::NEG_INFINITY), 3);
    weights.matmul(part(2)).swap_dims(1, 2).reshape([batch * seq, width])
}

/// A block's input and parameters, in the order of [`BlockWeights`], where GELU and softmax are neither straight nor flat.
fn block_inputs(rows: usize, width: usize) -> Vec<Matrix> {
    let norm = [[1, width], [1, width]];
    let product = |inner: usize, outer: usize| [[inner, outer], [1, outer]];
    let parameters = [
        norm,
        product(width, 3 * width),
        product(width, width),
        norm,
        product(width, 4 * width),
        product(4 * width, width),
    ];
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let shapes = std::iter::once([rows, width]).chain(parameters.into_iter().flatten());
    let spread = 1.0 / (width as f64).sqrt();
    let scaled = |mut matrix: Matrix| {
        let is_weight = matrix.shape[0] > 1 && matrix.shape[0] != rows;
        for value in &mut matrix.values {
            *value *= if is_weight { spread } else { 1.0 };
        }
        matrix
    };
    shapes.map(|shape| scaled(Matrix::random(&mut rng, shape))).collect()
}

/// Where the weights of the products are among [`block_inputs`].
const PRODUCTS: [usize; 4] = [3, 5, 9, 11];

/// A block of [`HEADS`] heads that keeps all activations, with no block in front of it.
fn first_block(seq: usize, precision: Precision) -> BlockShape {
    BlockShape {
        seq,
        n_head: HEADS,
        precision,
        recompute: Recompute::None,
        follows_block: false,
    }
}

fn block_of<B: Gpt2Backend>(
    inputs: Vec<Tensor<B, 2>>,
    operands: [Option<Tensor<B, 2>>; 4],
    shape: BlockShape,
) -> Tensor<B, 2> {
    let mut inputs = inputs.into_iter();
    let mut next = || inputs.next().unwrap();
    let x = next();
    let vector = |tensor: Tensor<B, 2>| tensor.squeeze_dim::<1>(0).into_primitive().tensor();
    let mut weights = |is_norm: bool| {
        let (weight, bias) = (next(), next());
        let weight = if is_norm {
            vector(weight)
        } else {
            weight.into_primitive().tensor()
        };
        [weight, vector(bias)]
    };
    let weights = BlockWeights {
        ln_1: weights(true),
        qkv: weights(false),
        attention_out: weights(false),
        ln_2: weights(true),
        feed_in: weights(false),
        feed_out: weights(false),
    };
    ops::block(x, weights, operands, shape)
}

/// Of `[batch * seq, width]` and heads of `head_dim`.
fn exact_block(inputs: Vec<Tensor<Exact, 2>>, [batch, seq, head_dim]: [usize; 3]) -> Tensor<Exact, 2> {
    let [
        x,
        g_1,
        b_1,
        w_qkv,
        b_qkv,
        w_out,
        b_out,
        g_2,
        b_2,
        w_in,
        b_in,
        w_fed,
        b_fed,
    ] = inputs.try_into().unwrap();
    let qkv = exact_layer_norm(x.clone(), g_1, b_1).matmul(w_qkv) + b_qkv;
    let x = x + exact_attention(&qkv, [batch, seq, head_dim]).matmul(w_out) + b_out;
    let inner = exact_layer_norm(x.clone(), g_2, b_2).matmul(w_in) + b_in;
    x + exact_gelu(inner).matmul(w_fed) + b_fed
}

mod affine {
    use super::*;

    /// Long enough to be split between threads, and no multiple of any kernel's block.
    const SHAPES: [[usize; 3]; 3] = [[3, 5, 7], [203, 97, 131], [203, 96, 136]];

    fn check<B>(device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        for [rows, inner, columns] in SHAPES {
            let mut rng = ChaCha8Rng::seed_from_u64(2);
            let inputs = [[rows, inner], [inner, columns], [1, columns]].map(|shape| Matrix::random(&mut rng, shape));
            let found = evaluate::<B>(&inputs, FloatDType::F32, device, |inputs| {
                let [x, w, bias] = inputs.try_into().unwrap();
                ops::affine(Operations::Kernels, x, w, bias.squeeze_dim(0))
            });
            let expected = evaluate::<Exact>(&inputs, FloatDType::F64, &CPU, |inputs| {
                let [x, w, bias] = inputs.try_into().unwrap();
                x.matmul(w) + bias
            });
            compare(&found, &expected, tolerance);
        }
    }

    crate::on_every_backend!(check);
}

mod gelu {
    use super::*;

    fn check<B>(device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let inputs = [Matrix::random(&mut ChaCha8Rng::seed_from_u64(3), [150, 333])];
        let found = evaluate::<B>(&inputs, FloatDType::F32, device, |inputs| {
            ops::gelu(Operations::Kernels, inputs[0].clone())
        });
        let expected = evaluate::<Exact>(&inputs, FloatDType::F64, &CPU, |inputs| exact_gelu(inputs[0].clone()));
        compare(&found, &expected, tolerance);
    }

    crate::on_every_backend!(check);
}

mod embed {
    use super::*;

    /// One row several times, one never.
    const TOKENS: [[i32; 3]; 2] = [[4, 0, 4], [3, 4, 1]];

    /// Positions of the first token; the table is longer than the positions that are used.
    const PAST: [usize; 2] = [0, 1];

    fn check<B>(device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let inputs = [[5, 72], [6, 72]].map(|shape| Matrix::random(&mut rng, shape));
        for past in PAST {
            let found = evaluate::<B>(&inputs, FloatDType::F32, device, |inputs| {
                let [wte, wpe] = inputs.try_into().unwrap();
                let tokens = Tensor::<B, 2, Int>::from_data(TOKENS, device);
                ops::embed(Operations::Kernels, wte, wpe, tokens, past).flatten(0, 1)
            });
            let expected = evaluate::<Exact>(&inputs, FloatDType::F64, &CPU, |inputs| {
                let [wte, wpe] = inputs.try_into().unwrap();
                let tokens = Tensor::<Exact, 1, Int>::from_data(TOKENS.as_flattened(), &CPU);
                let positions = wpe.narrow(0, past, TOKENS[0].len());
                wte.select(0, tokens) + Tensor::cat(vec![positions.clone(), positions], 0)
            });
            compare(&found, &expected, tolerance);
        }
    }

    crate::on_every_backend!(check);
}

mod block {
    use super::*;

    /// Batch, length and width.
    const SHAPES: [[usize; 3]; 2] = [[2, 3, 12], [2, 70, 128]];

    fn check<B>(device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        for [batch, seq, width] in SHAPES {
            let inputs = block_inputs(batch * seq, width);
            let expected = evaluate::<Exact>(&inputs, FloatDType::F64, &CPU, |inputs| {
                exact_block(inputs, [batch, seq, width / HEADS])
            });
            for recompute in Recompute::ALL {
                let shape = BlockShape {
                    recompute,
                    ..first_block(seq, Precision::F32)
                };
                let block = |inputs| block_of(inputs, [const { None }; 4], shape);
                let found = evaluate::<B>(&inputs, FloatDType::F32, device, block);
                compare(&found, &expected, tolerance);
            }
        }
    }

    crate::on_every_backend!(check);
}

mod adamw {
    use super::*;

    const COUNT: usize = 40_000;

    fn check<B>(device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let [parameter, grad, exp_avg, mut exp_avg_sq] = [(); 4].map(|()| Matrix::random(&mut rng, [1, COUNT]));
        for value in &mut exp_avg_sq.values {
            *value = value.abs();
        }
        let config = AdamWConfig::default();
        let (lr, scale) = (1e-2, 0.3);
        let primitive = |matrix: &Matrix| -> FloatTensor<B::InnerBackend> {
            let tensor = matrix.to::<B::InnerBackend>(FloatDType::F32, device);
            tensor.into_primitive().tensor()
        };
        let step = config.step(lr, 7);
        let rounded = |primitive| B::InnerBackend::round_weights(primitive, FloatDType::BF16);
        let values_of = |primitive| {
            let tensor = Tensor::<B::InnerBackend, 2>::from_primitive(TensorPrimitive::Float(primitive));
            floats(tensor.cast(FloatDType::F32))
        };
        let update = |scale: f64, keeps_operands: bool| {
            let input = AdamWInput {
                parameter: primitive(&parameter),
                grad: primitive(&grad),
                exp_avg: primitive(&exp_avg),
                exp_avg_sq: primitive(&exp_avg_sq),
                operand: keeps_operands.then(|| rounded(primitive(&parameter))),
                has_weight_decay: true,
            };
            let scale = one::<B::InnerBackend>(scale, device);
            let output = B::InnerBackend::adamw(vec![input], &step, scale).pop().unwrap();
            if let Some(operand) = output.operand {
                let expected = rounded(output.parameter.clone());
                assert_eq!(
                    values_of(operand),
                    values_of(expected),
                    "the operand is the rounded parameter"
                );
            }
            [output.parameter, output.exp_avg, output.exp_avg_sq].map(|primitive| {
                floats(Tensor::<B::InnerBackend, 2>::from_primitive(TensorPrimitive::Float(
                    primitive,
                )))
            })
        };
        let found = update(scale, false);

        let mut expected: [Vec<f32>; 3] = Default::default();
        for i in 0..COUNT {
            let grad = grad.values[i] * scale;
            let exp_avg = config.beta1 * exp_avg.values[i] + (1.0 - config.beta1) * grad;
            let exp_avg_sq = config.beta2 * exp_avg_sq.values[i] + (1.0 - config.beta2) * grad * grad;
            let unbiased = exp_avg / (1.0 - config.beta1.powi(7));
            let root = (exp_avg_sq / (1.0 - config.beta2.powi(7))).sqrt();
            let decayed = parameter.values[i] * (1.0 - lr * config.weight_decay);
            expected[0].push((decayed - lr * unbiased / (root + config.eps)) as f32);
            expected[1].push(exp_avg as f32);
            expected[2].push(exp_avg_sq as f32);
        }
        compare(&found, &expected, tolerance);
        if B::InnerBackend::KEEPS_OPERANDS {
            assert!(update(scale, true) == found, "an operand changes no update");
        }

        let values = |matrix: &Matrix| matrix.values.iter().map(|&value| value as f32).collect::<Vec<_>>();
        assert!(
            update(0.0, false) == [&parameter, &exp_avg, &exp_avg_sq].map(values),
            "an update by nothing changes nothing"
        );
    }

    crate::on_every_backend!(check);
}

mod elements_come_to_the_host_in_order {
    use super::*;

    fn check<B>(device: &B::Device, _: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let values: Vec<f32> = (0..35).map(|i| i as f32 - 3.5).collect();
        let tensor = Tensor::<B, 2>::from_data(TensorData::new(values.clone(), [5, 7]), device);
        let shared = tensor.clone();
        assert_eq!(ops::to_host(shared), values);
        let transposed = ops::to_host(tensor.clone().transpose());
        assert_eq!(transposed[..6], [0, 7, 14, 21, 28, 1].map(|i| values[i]));
        assert_eq!(
            ops::to_host(tensor.clone().slice([1..3, 2..4])),
            [9, 10, 16, 17].map(|i| values[i])
        );
        assert_eq!(ops::to_host(tensor.inner()), values);
        // More than a GPU reads at once.
        let values: Vec<f32> = (0..2_200_000).map(|i| i as f32).collect();
        let tensor = Tensor::<B, 2>::from_data(TensorData::new(values.clone(), [2200, 1000]), device);
        assert!(ops::to_host(tensor) == values);
    }

    crate::on_every_backend!(check);
}

/// What multiplies the gradients: the clip, or 0 after a step that went wrong.
mod gradient_scale {
    use super::*;

    fn check<B>(device: &B::Device, _tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let one = |value| one::<B::InnerBackend>(value, device);
        let clip = |max_norm| Clip {
            max_norm,
            micro_steps: 4.0,
        };
        for (max_norm, loss, squared_norm, before, expected) in [
            (1.0, 40.0, 64.0, None, 0.125),
            (1.0, 40.0, 4.0, Some(0.125), 0.25),
            (0.0, 40.0, 1e30, Some(0.25), 0.25),
            (1.0, f64::NAN, 64.0, None, 0.0),
            (1.0, f64::NEG_INFINITY, 64.0, None, 0.0),
            (0.0, 40.0, f64::INFINITY, Some(0.25), 0.0),
            (1.0, 40.0, f64::NAN, None, 0.0),
            (1.0, 40.0, 64.0, Some(0.0), 0.0),
        ] {
            let scale = B::InnerBackend::gradient_scale(one(loss), one(squared_norm), before.map(one), &clip(max_norm));
            let found = B::InnerBackend::read_async(vec![scale, one(loss)]).wait();
            assert!(
                (f64::from(found[0]) - expected).abs() < 1e-6 && found[1].to_bits() == (loss as f32).to_bits(),
                "{found:?} for a loss of {loss}, a squared norm of {squared_norm} and {before:?} before"
            );
        }
    }

    crate::on_every_backend!(check);
}

/// More tensors than a launch takes, shorter and longer than a block adds.
mod gradients_are_added_to_the_last_bit {
    use super::*;

    fn check<B>(device: &B::Device, _: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let [sums, gradients] = [(); 2].map(|()| {
            let shapes = (0..37).map(|nth| [1, 4 + 1028 * nth % 12_000]);
            shapes.map(|shape| Matrix::random(&mut rng, shape)).collect::<Vec<_>>()
        });
        let primitives = |matrices: &[Matrix]| {
            let tensors = matrices
                .iter()
                .map(|matrix| matrix.to::<B::InnerBackend>(FloatDType::F32, device));
            tensors
                .map(|tensor| tensor.into_primitive().tensor())
                .collect::<Vec<_>>()
        };
        let own = primitives(&sums);
        // Someone else holds one of them: it must not change there.
        let kept = own[3].clone();
        let found = B::InnerBackend::add_gradients(own, primitives(&gradients));
        let values = |primitive| {
            floats(Tensor::<B::InnerBackend, 2>::from_primitive(TensorPrimitive::Float(
                primitive,
            )))
        };
        let rounded = |matrix: &Matrix| matrix.values.iter().map(|&value| value as f32).collect::<Vec<_>>();
        assert_eq!(found.len(), sums.len());
        for ((found, sum), gradient) in found.into_iter().zip(&sums).zip(&gradients) {
            let pairs = rounded(sum).into_iter().zip(rounded(gradient));
            assert!(values(found) == pairs.map(|(sum, gradient)| sum + gradient).collect::<Vec<_>>());
        }
        assert!(values(kept) == rounded(&sums[3]));
    }

    crate::on_every_backend!(check);
}

mod exactly_the_elements_are_read_back {
    use super::*;

    fn check<B>(device: &B::Device, _: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let several = |values: &[f32]| {
            let tensor = Tensor::<B::InnerBackend, 1>::from_floats(values, device);
            tensor.into_primitive().tensor()
        };
        // More than are read first, so that memory is left that is not zero.
        drop(B::InnerBackend::read_async(vec![several(&[7.0; 64])]).wait());
        let found =
            B::InnerBackend::read_async(vec![several(&[1.0]), several(&[2.0, 3.0, 4.0]), several(&[5.0])]).wait();
        assert_eq!(found, [1.0, 2.0, 3.0, 4.0, 5.0]);
    }

    crate::on_every_backend!(check);
}

/// A tensor of one element.
fn one<B: Backend>(value: f64, device: &B::Device) -> FloatTensor<B> {
    let tensor = Tensor::<B, 1>::from_floats([value as f32], device);
    tensor.into_primitive().tensor()
}

mod layer_norm {
    use super::*;

    /// More rows than a task takes, and a width that is no multiple of a vector.
    const SHAPES: [[usize; 2]; 2] = [[75, 37], [75, 192]];

    fn check<B>(device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        for shape in SHAPES {
            let mut rng = ChaCha8Rng::seed_from_u64(6);
            let inputs = [shape, [1, shape[1]], [1, shape[1]]].map(|shape| Matrix::random(&mut rng, shape));
            let found = evaluate::<B>(&inputs, FloatDType::F32, device, |inputs| {
                let [x, weight, bias] = inputs.try_into().unwrap();
                // With the residual stream around it, as in a block.
                x.clone()
                    + ops::layer_norm(
                        Operations::Kernels,
                        x,
                        weight.squeeze_dim(0),
                        bias.squeeze_dim(0),
                        Precision::F32,
                    )
            });
            let expected = evaluate::<Exact>(&inputs, FloatDType::F64, &CPU, |inputs| {
                let [x, weight, bias] = inputs.try_into().unwrap();
                x.clone() + exact_layer_norm(x, weight, bias)
            });
            compare(&found, &expected, tolerance);
        }
    }

    crate::on_every_backend!(check);
}

mod attention {
    use super::*;

    /// Batch, length and head's width: one token, and a length that is no multiple of a block.
    const SHAPES: [[usize; 3]; 4] = [[2, 1, 4], [1, 7, 5], [2, 150, 16], [2, 150, 64]];

    fn check<B>(device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        for [batch, seq, head_dim] in SHAPES {
            let width = HEADS * head_dim;
            let inputs = [Matrix::random(
                &mut ChaCha8Rng::seed_from_u64(7),
                [batch * seq, 3 * width],
            )];
            let found = evaluate::<B>(&inputs, FloatDType::F32, device, |inputs| {
                let qkv = inputs[0].clone().reshape([batch, seq, 3 * width]);
                ops::attention(Operations::Kernels, qkv, HEADS).reshape([batch * seq, width])
            });
            let expected = evaluate::<Exact>(&inputs, FloatDType::F64, &CPU, |inputs| {
                exact_attention(&inputs[0], [batch, seq, head_dim])
            });
            compare(&found, &expected, tolerance);
        }
    }

    crate::on_every_backend!(check);
}

/// The kernels of a backend in every precision, against the formula in `f64` on numbers that all precisions hold.
mod kernels {
    use super::*;
    use crate::{Kernels, operand};

    fn evaluate_both<B: AutodiffBackend + Gpt2Backend>(
        device: &B::Device,
        kernels: Kernels,
        shapes: &[[usize; 2]],
        operation: impl Fn(Vec<Tensor<B, 2>>, Precision) -> Tensor<B, 2>,
        exact: impl Fn(Vec<Tensor<Exact, 2>>) -> Tensor<Exact, 2>,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let inputs = shapes.iter().map(|&shape| Matrix::random(&mut rng, shape));
        check(device, kernels, inputs.collect(), operation, exact);
    }

    fn check<B: AutodiffBackend + Gpt2Backend>(
        device: &B::Device,
        kernels: Kernels,
        mut inputs: Vec<Matrix>,
        operation: impl Fn(Vec<Tensor<B, 2>>, Precision) -> Tensor<B, 2>,
        exact: impl Fn(Vec<Tensor<Exact, 2>>) -> Tensor<Exact, 2>,
    ) {
        for value in inputs.iter_mut().flat_map(|matrix| &mut matrix.values) {
            // Numbers that bf16 holds: a sign, and seven bits and a place.
            *value = f64::from(f32::from_bits((*value as f32).to_bits() & 0xffff_0000));
        }
        let expected = evaluate::<Exact>(&inputs, FloatDType::F64, &CPU, exact);
        for &(precision, tolerance) in kernels.precisions {
            let found = evaluate::<B>(&inputs, FloatDType::F32, device, |inputs| {
                operation(inputs, precision).cast(FloatDType::F32)
            });
            print!("{precision}: ");
            compare(&found, &expected, tolerance);
        }
    }

    fn check_affine<B: AutodiffBackend + Gpt2Backend>(device: &B::Device, kernels: Kernels) {
        for [rows, inner, outer] in [[5, 64, 64], [1000, 192, 320], [300, 1024, 136]] {
            evaluate_both::<B>(
                device,
                kernels,
                &[[rows, inner], [inner, outer], [1, outer]],
                |inputs, precision| {
                    let [x, w, bias] = inputs.try_into().unwrap();
                    ops::affine(Operations::Kernels, operand(x, precision), w, bias.squeeze_dim(0))
                },
                |inputs| {
                    let [x, w, bias] = inputs.try_into().unwrap();
                    x.matmul(w) + bias
                },
            );
        }
    }

    fn check_block<B: AutodiffBackend + Gpt2Backend>(device: &B::Device, kernels: Kernels) {
        // The last of no multiple of 64, with heads of 40 channels.
        for [batch, seq, width] in [[2, 150, 128], [1, 40, 128], [2, 70, 80]] {
            let kernels = kernels.for_heads_of(width / HEADS);
            let options = Recompute::ALL.map(|recompute| [(recompute, false), (recompute, true)]);
            for (recompute, keeps_operands) in options.into_iter().flatten() {
                check::<B>(
                    device,
                    kernels,
                    block_inputs(batch * seq, width),
                    |inputs, precision| {
                        let rounded = |i: usize| keeps_operands.then(|| operand(inputs[i].clone(), precision));
                        let operands = PRODUCTS.map(rounded);
                        let shape = BlockShape {
                            recompute,
                            ..first_block(seq, precision)
                        };
                        block_of(inputs, operands, shape)
                    },
                    |inputs| exact_block(inputs, [batch, seq, width / HEADS]),
                );
            }
        }
    }

    /// Two blocks of the same parameters: the second hands its gradient to the first.
    fn check_two_blocks<B: AutodiffBackend + Gpt2Backend>(device: &B::Device, kernels: Kernels) {
        let [batch, seq, width] = [2, 70, 128];
        check::<B>(
            device,
            kernels,
            block_inputs(batch * seq, width),
            |inputs, precision| {
                let block = |mut inputs: Vec<_>, x: Option<Tensor<B, 2>>| {
                    let shape = BlockShape {
                        follows_block: x.is_some(),
                        ..first_block(seq, precision)
                    };
                    if let Some(x) = x {
                        inputs[0] = x;
                    }
                    block_of(inputs, [const { None }; 4], shape)
                };
                let x = block(inputs.clone(), None);
                block(inputs, Some(x))
            },
            |mut inputs| {
                inputs[0] = exact_block(inputs.clone(), [batch, seq, width / HEADS]);
                exact_block(inputs, [batch, seq, width / HEADS])
            },
        );
    }

    /// Gradients in memory of an activation's size are those in memory of their own, to the last bit.
    fn check_gradients_in_activations<B>(device: &B::Device, kernels: Kernels)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        // So many rows that all four products' fit.
        let [batch, seq, width] = [4, 150, 128];
        let inputs = block_inputs(batch * seq, width);
        for &(precision, _) in kernels.precisions {
            let pass = |reuses_activations| {
                B::InnerBackend::set_reuses_activations(reuses_activations);
                evaluate::<B>(&inputs, FloatDType::F32, device, |inputs| {
                    block_of(inputs, [const { None }; 4], first_block(seq, precision))
                })
            };
            let expected = pass(false);
            assert!(pass(true) == expected, "{precision}");
            assert!(pass(false) == expected, "{precision}");
        }
    }

    fn check_attention<B: AutodiffBackend + Gpt2Backend>(device: &B::Device, kernels: Kernels) {
        // The last has more pieces of work than a GPU has multiprocessors.
        let lengths = [[1, 5, 64], [2, 150, 64], [1, 600, 64], [24, 300, 64]];
        let head_sizes = [8, 24, 32, 40, 80, 96, 120, 128].map(|head_size| [2, 150, head_size]);
        for [batch, seq, head_size] in lengths.into_iter().chain(head_sizes) {
            let width = HEADS * head_size;
            evaluate_both::<B>(
                device,
                kernels.for_heads_of(head_size),
                &[[batch * seq, 3 * width]],
                |inputs, precision| {
                    let qkv = operand(inputs[0].clone(), precision).reshape([batch, seq, 3 * width]);
                    ops::attention(Operations::Kernels, qkv, HEADS).reshape([batch * seq, width])
                },
                |inputs| exact_attention(&inputs[0], [batch, seq, head_size]),
            );
        }
    }

    fn check_layer_norm<B: AutodiffBackend + Gpt2Backend>(device: &B::Device, kernels: Kernels) {
        // Some whose last 128 channels are not all there, and the widest.
        for [rows, width] in [[77, 192], [77, 200], [9, 4096]] {
            evaluate_both::<B>(
                device,
                kernels,
                &[[rows, width], [1, width], [1, width]],
                |inputs, precision| {
                    let [x, weight, bias] = inputs.try_into().unwrap();
                    let normal = ops::layer_norm(
                        Operations::Kernels,
                        x.clone(),
                        weight.squeeze_dim(0),
                        bias.squeeze_dim(0),
                        precision,
                    );
                    x + normal.cast(FloatDType::F32)
                },
                |inputs| {
                    let [x, weight, bias] = inputs.try_into().unwrap();
                    x.clone() + exact_layer_norm(x, weight, bias)
                },
            );
        }
    }

    crate::job!(affine, check_affine);
    crate::job!(block, check_block);
    crate::job!(two_blocks, check_two_blocks);
    crate::job!(gradients_in_activations, check_gradients_in_activations);
    crate::job!(attention, check_attention);
    crate::job!(layer_norm, check_layer_norm);
    crate::with_kernels!(
        affine,
        block,
        two_blocks,
        gradients_in_activations,
        attention,
        layer_norm
    );
}
