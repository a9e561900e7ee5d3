//! The operations on Burn's tensors, as the layers call them.

use super::backend::Gpt2Backend;
use super::convert::{primitive, tensor};
use super::reference;
use super::types::{BlockShape, BlockWeights, ClassifierShape};
use crate::computation::Operations;
use crate::precision::Precision;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Int, Tensor};

/// [`Gpt2Backend::to_host`] on tensors.
pub fn to_host<B: Gpt2Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    B::to_host(primitive(tensor))
}

/// [`Gpt2Backend::logits`] on tensors.
///
/// # Shapes
/// `hidden` is `[N, C]`, `wte` `[Vp, C]`; the result `[N, Vp]`.
pub fn logits<B: Gpt2Backend>(hidden: Tensor<B, 2>, wte: Tensor<B, 2>) -> Tensor<B, 2> {
    tensor(B::logits(primitive(hidden), primitive(wte)))
}

/// [`Gpt2Backend::classifier_loss`] on tensors.
///
/// # Shapes
/// `hidden` is `[N, C]`, `wte` `[Vp, C]`, `targets` `[N]`; the result `[1]`.
pub fn classifier_loss<B: Gpt2Backend>(
    operations: Operations,
    hidden: Tensor<B, 2>,
    wte: Tensor<B, 2>,
    operand: Option<Tensor<B, 2>>,
    targets: Tensor<B, 1, Int>,
    shape: ClassifierShape,
) -> Tensor<B, 1> {
    let (hidden, wte, targets) = (primitive(hidden), primitive(wte), targets.into_primitive());
    tensor(match operations {
        Operations::Kernels => B::classifier_loss(hidden, wte, operand.map(primitive), targets, shape),
        Operations::Reference => reference::classifier::loss::<B>(hidden, wte, targets, shape),
    })
}

/// [`Gpt2Backend::token_losses`] on tensors.
///
/// # Shapes
/// `hidden` is `[N, C]`, `wte` `[Vp, C]`, `targets` `[N]`; the result `[N]`.
pub fn token_losses<B: Gpt2Backend>(
    hidden: Tensor<B, 2>,
    wte: Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    shape: ClassifierShape,
) -> Tensor<B, 1> {
    tensor(B::token_losses(
        primitive(hidden),
        primitive(wte),
        targets.into_primitive(),
        shape,
    ))
}

/// [`Gpt2Backend::tanh_gelu`] on tensors.
pub fn gelu<B: Gpt2Backend, const D: usize>(operations: Operations, x: Tensor<B, D>) -> Tensor<B, D> {
    tensor(match operations {
        Operations::Kernels => B::tanh_gelu(primitive(x)),
        Operations::Reference => reference::gelu::value::<B>(primitive(x)),
    })
}

/// [`Gpt2Backend::affine`] on tensors.
///
/// # Shapes
/// `x` is `[N, in]`, `w` `[in, out]`, `bias` `[out]`; the result `[N, out]`.
pub fn affine<B: Gpt2Backend>(
    operations: Operations,
    x: Tensor<B, 2>,
    w: Tensor<B, 2>,
    bias: Tensor<B, 1>,
) -> Tensor<B, 2> {
    let affine = match operations {
        Operations::Kernels => B::affine,
        Operations::Reference => reference::affine::value::<B>,
    };
    tensor(affine(primitive(x), primitive(w), primitive(bias)))
}

/// [`Gpt2Backend::block`] on tensors.
///
/// # Shapes
/// `x` and the result are `[B · T, C]`, in `f32`.
pub fn block<B: Gpt2Backend>(
    x: Tensor<B, 2>,
    weights: BlockWeights<FloatTensor<B>>,
    operands: [Option<Tensor<B, 2>>; 4],
    shape: BlockShape,
) -> Tensor<B, 2> {
    let operands = operands.map(|operand| operand.map(primitive));
    tensor(B::block(primitive(x), weights, operands, shape))
}

/// [`Gpt2Backend::embed`] on tensors.
///
/// # Shapes
/// `wte` is `[Vp, C]`, `wpe` `[positions, C]`, `tokens` `[B, T]`; the result `[B, T, C]`.
pub fn embed<B: Gpt2Backend>(
    operations: Operations,
    wte: Tensor<B, 2>,
    wpe: Tensor<B, 2>,
    tokens: Tensor<B, 2, Int>,
    past: usize,
) -> Tensor<B, 3> {
    let embed = match operations {
        Operations::Kernels => B::embed,
        Operations::Reference => reference::embedding::value::<B>,
    };
    tensor(embed(primitive(wte), primitive(wpe), tokens.into_primitive(), past))
}

/// [`Gpt2Backend::normalise_rows`] on tensors.
///
/// # Shapes
/// `x` is `[N, C]`, `weight` and `bias` `[C]`; the result `[N, C]`, in the type of `precision`.
pub fn layer_norm<B: Gpt2Backend>(
    operations: Operations,
    x: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    bias: Tensor<B, 1>,
    precision: Precision,
) -> Tensor<B, 2> {
    let normalise = match operations {
        Operations::Kernels => B::normalise_rows,
        Operations::Reference => reference::layer_norm::value::<B>,
    };
    tensor(normalise(primitive(x), primitive(weight), primitive(bias), precision).out)
}

/// [`Gpt2Backend::causal_attention`] on tensors.
///
/// # Shapes
/// `qkv` is `[B, T, 3C]`; the result `[B, T, C]`.
pub fn attention<B: Gpt2Backend>(operations: Operations, qkv: Tensor<B, 3>, n_head: usize) -> Tensor<B, 3> {
    let attention = match operations {
        Operations::Kernels => B::causal_attention,
        Operations::Reference => reference::attention::value::<B>,
    };
    tensor(attention(primitive(qkv), n_head).out)
}
