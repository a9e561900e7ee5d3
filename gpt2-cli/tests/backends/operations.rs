//! Each operation of `gpt2_model::ops`, value and derivatives, on random inputs against its plain formula in `f64` with
//! Burn's own derivatives.

use crate::{floats, relative_error};
use burn::backend::Autodiff;
use burn::tensor::activation::softmax;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Bool, FloatDType, Int, Tensor, TensorData, TensorPrimitive};
use burn_ndarray::{NdArray, NdArrayDevice};
use gpt2_model::ops::{self, Gpt2Backend};
use gpt2_model::{Precision, Recompute};
use gpt2_train::optimizer::{AdamWConfig, Pending, TrainingBackend, UpdateRule};
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
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = relative_error(found, expected);
        println!("output {i}: relative error {error:.1e}");
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
                ops::affine(x, w, bias.squeeze_dim(0))
            });
            let expected = evaluate::<Exact>(&inputs, FloatDType::F64, &CPU, |inputs| {
                let [x, w, bias] = inputs.try_into().unwrap();
                x.matmul(w) + bias
            });
            compare(&found, &expected, tolerance);

            let [x, w, bias] = inputs;
            let inputs = [x, w, bias, Matrix::random(&mut rng, [rows, columns])];
            let found = evaluate::<B>(&inputs, FloatDType::F32, device, |inputs| {
                let [x, w, bias, residual] = inputs.try_into().unwrap();
                ops::affine_onto(residual, x, w, bias.squeeze_dim(0))
            });
            let expected = evaluate::<Exact>(&inputs, FloatDType::F64, &CPU, |inputs| {
                let [x, w, bias, residual] = inputs.try_into().unwrap();
                residual + x.matmul(w) + bias
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
        let found = evaluate::<B>(&inputs, FloatDType::F32, device, |inputs| ops::gelu(inputs[0].clone()));
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
        let inputs = [[5, 64], [6, 64]].map(|shape| Matrix::random(&mut rng, shape));
        for past in PAST {
            let found = evaluate::<B>(&inputs, FloatDType::F32, device, |inputs| {
                let [wte, wpe] = inputs.try_into().unwrap();
                let tokens = Tensor::<B, 2, Int>::from_data(TOKENS, device);
                ops::embed(wte, wpe, tokens, past).flatten(0, 1)
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

mod feed_forward {
    use super::*;

    const ROWS: usize = 133;
    const WIDTH: usize = 64;

    fn check<B>(device: &B::Device, tolerance: f64)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let stream = [ROWS, WIDTH];
        let shapes = [
            stream,
            stream,
            [WIDTH, 4 * WIDTH],
            [1, 4 * WIDTH],
            [4 * WIDTH, WIDTH],
            [1, WIDTH],
        ];
        let mut inputs = shapes.map(|shape| Matrix::random(&mut rng, shape));
        for value in &mut inputs[2].values {
            // Where GELU is neither straight nor flat.
            *value *= 0.2;
        }
        let expected = evaluate::<Exact>(&inputs, FloatDType::F64, &CPU, |inputs| {
            let [residual, x, w_in, bias_in, w_out, bias_out] = inputs.try_into().unwrap();
            residual + exact_gelu(x.matmul(w_in) + bias_in).matmul(w_out) + bias_out
        });
        for recompute in [Recompute::None, Recompute::Gelu] {
            let found = evaluate::<B>(&inputs, FloatDType::F32, device, |inputs| {
                let [residual, x, w_in, bias_in, w_out, bias_out] = inputs.try_into().unwrap();
                let biases = [bias_in.squeeze_dim(0), bias_out.squeeze_dim(0)];
                ops::feed_forward(residual, x, [w_in, w_out], biases, recompute)
            });
            compare(&found, &expected, tolerance);
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
        let [parameter, gradient, mean, mut square] = [(); 4].map(|()| Matrix::random(&mut rng, [1, COUNT]));
        for value in &mut square.values {
            *value = value.abs();
        }
        let config = AdamWConfig::default();
        let (lr, scale, step) = (1e-2, 0.3, 7);
        let primitive = |matrix: &Matrix| -> FloatTensor<B::InnerBackend> {
            let tensor = matrix.to::<B::InnerBackend>(FloatDType::F32, device);
            tensor.into_primitive().tensor()
        };
        let pending = Pending {
            parameter: primitive(&parameter),
            gradient: primitive(&gradient),
            mean: primitive(&mean),
            square: primitive(&square),
            decays: true,
        };
        let rule = UpdateRule::new(&config, lr, scale, step);
        let updated = B::InnerBackend::adamw(vec![pending], &rule).pop().unwrap();
        let found = [updated.parameter, updated.mean, updated.square].map(|primitive| {
            floats(Tensor::<B::InnerBackend, 2>::from_primitive(TensorPrimitive::Float(
                primitive,
            )))
        });

        let mut expected: [Vec<f32>; 3] = Default::default();
        for i in 0..COUNT {
            let gradient = gradient.values[i] * scale;
            let mean = config.beta1 * mean.values[i] + (1.0 - config.beta1) * gradient;
            let square = config.beta2 * square.values[i] + (1.0 - config.beta2) * gradient * gradient;
            let unbiased = mean / (1.0 - config.beta1.powi(7));
            let root = (square / (1.0 - config.beta2.powi(7))).sqrt();
            let decayed = parameter.values[i] * (1.0 - lr * config.weight_decay);
            expected[0].push((decayed - lr * unbiased / (root + config.eps)) as f32);
            expected[1].push(mean as f32);
            expected[2].push(square as f32);
        }
        compare(&found, &expected, tolerance);
    }

    crate::on_every_backend!(check);
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
                x.clone() + ops::layer_norm(x, weight.squeeze_dim(0), bias.squeeze_dim(0), Precision::F32)
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
                ops::attention(qkv, HEADS).reshape([batch * seq, width])
            });
            let expected = evaluate::<Exact>(&inputs, FloatDType::F64, &CPU, |inputs| {
                exact_attention(&inputs[0], [batch, seq, head_dim])
            });
            compare(&found, &expected, tolerance);
        }
    }

    crate::on_every_backend!(check);
}

/// Operands of products in `bf16`, against the formula in `f64` on the same rounded numbers.
#[cfg(feature = "cuda")]
mod bf16 {
    use super::*;

    type Narrow = Autodiff<ops::Cuda>;

    /// Rounding to eight bits, of the operands' products and of the derivatives between them.
    const TOLERANCE: f64 = 1e-2;

    fn evaluate_both(
        shapes: &[[usize; 2]],
        narrow: impl Fn(Vec<Tensor<Narrow, 2>>) -> Tensor<Narrow, 2>,
        exact: impl Fn(Vec<Tensor<Exact, 2>>) -> Tensor<Exact, 2>,
    ) {
        if !crate::present("cuda", "no CUDA device") {
            return;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let inputs: Vec<Matrix> = shapes
            .iter()
            .map(|&shape| {
                let mut matrix = Matrix::random(&mut rng, shape);
                for value in &mut matrix.values {
                    // Numbers that bf16 holds: a sign, and seven bits and a place.
                    *value = f64::from(f32::from_bits((*value as f32).to_bits() & 0xffff_0000));
                }
                matrix
            })
            .collect();
        let found = evaluate::<Narrow>(&inputs, FloatDType::F32, &burn_cuda::CudaDevice::default(), |inputs| {
            narrow(inputs).cast(FloatDType::F32)
        });
        let expected = evaluate::<Exact>(&inputs, FloatDType::F64, &CPU, exact);
        compare(&found, &expected, TOLERANCE);
    }

    fn round(x: Tensor<Narrow, 2>) -> Tensor<Narrow, 2> {
        x.cast(FloatDType::BF16)
    }

    #[test]
    fn affine() {
        for [rows, inner, outer] in [[5, 64, 64], [1000, 192, 320], [300, 1024, 136]] {
            evaluate_both(
                &[[rows, inner], [inner, outer], [1, outer]],
                |inputs| {
                    let [x, w, bias] = inputs.try_into().unwrap();
                    ops::affine(round(x), w, bias.squeeze_dim(0))
                },
                |inputs| {
                    let [x, w, bias] = inputs.try_into().unwrap();
                    x.matmul(w) + bias
                },
            );
            evaluate_both(
                &[[rows, outer], [rows, inner], [inner, outer], [1, outer]],
                |inputs| {
                    let [residual, x, w, bias] = inputs.try_into().unwrap();
                    ops::affine_onto(residual, round(x), w, bias.squeeze_dim(0))
                },
                |inputs| {
                    let [residual, x, w, bias] = inputs.try_into().unwrap();
                    residual + x.matmul(w) + bias
                },
            );
        }
    }

    #[test]
    fn feed_forward() {
        let (rows, width) = (333, 128);
        let shapes = [
            [rows, width],
            [rows, width],
            [width, 4 * width],
            [1, 4 * width],
            [4 * width, width],
            [1, width],
        ];
        for recompute in [Recompute::None, Recompute::Gelu] {
            evaluate_both(
                &shapes,
                |inputs| {
                    let [residual, x, w_in, bias_in, w_out, bias_out] = inputs.try_into().unwrap();
                    let biases = [bias_in.squeeze_dim(0), bias_out.squeeze_dim(0)];
                    ops::feed_forward(residual, round(x * 0.125), [w_in, w_out], biases, recompute)
                },
                |inputs| {
                    let [residual, x, w_in, bias_in, w_out, bias_out] = inputs.try_into().unwrap();
                    residual + exact_gelu((x * 0.125).matmul(w_in) + bias_in).matmul(w_out) + bias_out
                },
            );
        }
    }

    #[test]
    fn attention() {
        for [batch, seq] in [[1, 5], [2, 150], [1, 600]] {
            let width = HEADS * 64;
            evaluate_both(
                &[[batch * seq, 3 * width]],
                |inputs| {
                    let qkv = round(inputs[0].clone()).reshape([batch, seq, 3 * width]);
                    ops::attention(qkv, HEADS).reshape([batch * seq, width])
                },
                |inputs| exact_attention(&inputs[0], [batch, seq, 64]),
            );
        }
    }

    #[test]
    fn layer_norm() {
        evaluate_both(
            &[[77, 192], [1, 192], [1, 192]],
            |inputs| {
                let [x, weight, bias] = inputs.try_into().unwrap();
                let normal = ops::layer_norm(x.clone(), weight.squeeze_dim(0), bias.squeeze_dim(0), Precision::Bf16);
                x + normal.cast(FloatDType::F32)
            },
            |inputs| {
                let [x, weight, bias] = inputs.try_into().unwrap();
                x.clone() + exact_layer_norm(x, weight, bias)
            },
        );
    }
}
