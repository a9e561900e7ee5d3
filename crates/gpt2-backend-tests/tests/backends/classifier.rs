//! The classifier's own operation against plain automatic differentiation, with padded rows and more rows than a chunk.

use crate::{floats, relative_error};
use burn::tensor::activation::log_softmax;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, Tensor, TensorData};
use gpt2_model::ops::training::TrainingBackend;
use gpt2_model::ops::{ClassifierShape, Gpt2Backend, classifier_loss};
use gpt2_model::{Operations, Precision};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Rows, width, tokens, and rows of the embedding.
#[derive(Clone, Copy)]
struct Shape {
    rows: usize,
    width: usize,
    vocab: usize,
    padded: usize,
}

/// More than one chunk of the reference's 256 rows, a last one that is not full, and a vocabulary that is no multiple of 128.
const SMALL: Shape = Shape {
    rows: 300,
    width: 24,
    vocab: 200,
    padded: 256,
};

fn check<B>(device: &B::Device, tolerance: f64)
where
    B: AutodiffBackend + Gpt2Backend,
    B::InnerBackend: TrainingBackend,
{
    check_in::<B>(device, tolerance, SMALL, Precision::F32, |hidden| hidden);
}

fn check_in<B>(
    device: &B::Device,
    tolerance: f64,
    shape: Shape,
    precision: Precision,
    in_precision: impl Fn(Tensor<B, 2>) -> Tensor<B, 2>,
) where
    B: AutodiffBackend + Gpt2Backend,
    B::InnerBackend: TrainingBackend,
{
    let Shape {
        rows,
        width,
        vocab,
        padded,
    } = shape;
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut draw = |count: usize| (0..count).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>();
    let (hidden, wte) = (draw(rows * width), draw(padded * width));
    let targets: Vec<i32> = (0..rows).map(|_| rng.random_range(0..vocab as i32)).collect();
    let tensors = || {
        let hidden = Tensor::<B, 2>::from_data(TensorData::new(hidden.clone(), [rows, width]), device).require_grad();
        let wte = Tensor::<B, 2>::from_data(TensorData::new(wte.clone(), [padded, width]), device).require_grad();
        let targets = Tensor::<B, 1, Int>::from_data(TensorData::new(targets.clone(), [rows]), device);
        (hidden, wte, targets)
    };

    let (hidden_1, wte_1, targets_1) = tensors();
    let shape = ClassifierShape {
        vocab_size: vocab,
        precision,
    };
    let operand = in_precision(hidden_1.clone());
    // The factor shows whether the gradient of the loss is used.
    let loss_1 = classifier_loss(Operations::Kernels, operand, wte_1.clone(), None, targets_1, shape) * 3.0;

    let (hidden_2, wte_2, targets_2) = tensors();
    let logits = hidden_2.clone().matmul(wte_2.clone().narrow(0, 0, vocab).transpose());
    let loss_2 = log_softmax(logits, 1).gather(1, targets_2.unsqueeze_dim(1)).mean() * -3.0;

    let error = relative_error(&floats(loss_1.clone().inner()), &floats(loss_2.clone().inner()));
    assert!(error < tolerance, "loss: relative error {error:.2e}");
    let (gradients_1, gradients_2) = (loss_1.backward(), loss_2.backward());
    for (name, found, expected) in [
        ("hidden", hidden_1.grad(&gradients_1), hidden_2.grad(&gradients_2)),
        ("wte", wte_1.grad(&gradients_1), wte_2.grad(&gradients_2)),
    ] {
        let error = relative_error(&floats(found.unwrap()), &floats(expected.unwrap()));
        assert!(error < tolerance, "gradient of {name}: relative error {error:.2e}");
    }
}

crate::on_every_backend!(check);

/// With several chunks of logits of GPT-2's vocabulary.
mod kernels {
    use super::{Shape, check_in};
    use crate::{Kernels, operand};
    use burn::tensor::backend::AutodiffBackend;
    use gpt2_model::Precision;
    use gpt2_model::ops::Gpt2Backend;
    use gpt2_model::ops::training::TrainingBackend;

    fn check<B>(device: &B::Device, kernels: Kernels)
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        let shape = Shape {
            rows: kernels.rows,
            width: 64,
            vocab: 50_257,
            padded: 50_304,
        };
        for &(precision, _) in kernels.precisions {
            let tolerance = match precision {
                Precision::F32 | Precision::Tf32 => 5e-3, // on CUDA the expected values' own products are TF32
                Precision::Bf16 => 1e-2,
            };
            check_in::<B>(device, tolerance, shape, precision, |hidden| operand(hidden, precision));
        }
    }

    crate::job!(classifier, check);
    crate::with_kernels!(classifier);
}
