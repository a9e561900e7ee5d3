//! The reference affine map and its derivatives.

use super::AffineGradients;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Tensor, TensorPrimitive};

pub(super) fn value<B: Backend>(x: FloatTensor<B>, w: FloatTensor<B>, bias: FloatTensor<B>) -> FloatTensor<B> {
    let product = tensor::<B, 2>(x).matmul(tensor(w));
    (product + tensor::<B, 1>(bias).unsqueeze()).into_primitive().tensor()
}

pub(super) fn derivatives<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    upstream: FloatTensor<B>,
    wanted: AffineGradients<bool>,
) -> AffineGradients<Option<FloatTensor<B>>> {
    let upstream = tensor::<B, 2>(upstream);
    let primitive = |tensor: Tensor<B, 2>| tensor.into_primitive().tensor();
    AffineGradients {
        x: wanted
            .x
            .then(|| primitive(upstream.clone().matmul(tensor::<B, 2>(w).transpose()))),
        w: wanted
            .w
            .then(|| primitive(tensor::<B, 2>(x).transpose().matmul(upstream.clone()))),
        bias: wanted
            .bias
            .then(|| upstream.sum_dim(0).squeeze_dim::<1>(0).into_primitive().tensor()),
    }
}

fn tensor<B: Backend, const D: usize>(primitive: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}
