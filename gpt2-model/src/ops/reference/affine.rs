//! The reference affine map and its derivatives.

use crate::ops::backend::Gpt2Backend;
use crate::ops::convert::{primitive, round_like, tensor, widen};
use crate::ops::types::AffineGradients;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;

pub(in crate::ops) fn value<B: Backend>(x: FloatTensor<B>, w: FloatTensor<B>, bias: FloatTensor<B>) -> FloatTensor<B> {
    let x = tensor::<B, 2>(x);
    let (w, bias) = (round_like(tensor(w), &x), round_like(tensor::<B, 1>(bias), &x));
    primitive(x.matmul(w) + bias.unsqueeze())
}

pub(in crate::ops) fn onto<B: Gpt2Backend>(
    residual: FloatTensor<B>,
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    bias: FloatTensor<B>,
) -> FloatTensor<B> {
    primitive(tensor::<B, 2>(residual) + widen(tensor(B::affine(x, w, bias))))
}

pub(in crate::ops) fn with_gelu<B: Gpt2Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    bias: FloatTensor<B>,
) -> [FloatTensor<B>; 2] {
    let inner = B::affine(x, w, bias);
    [inner.clone(), B::tanh_gelu(inner)]
}

pub(in crate::ops) fn derivatives<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    grad_output: FloatTensor<B>,
) -> AffineGradients<FloatTensor<B>> {
    let x = tensor::<B, 2>(x);
    let grad_output = round_like(tensor::<B, 2>(grad_output), &x);
    let w = round_like(tensor::<B, 2>(w), &x);
    AffineGradients {
        x: primitive(grad_output.clone().matmul(w.transpose())),
        w: primitive(widen(x.transpose().matmul(grad_output.clone()))),
        bias: primitive(widen(grad_output).sum_dim(0).squeeze_dim::<1>(0)),
    }
}
