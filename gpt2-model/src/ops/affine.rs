//! The reference affine map and its derivatives.

use super::{AffineGradients, primitive, tensor};
use crate::layers::{round_like, widen};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;

pub(super) fn value<B: Backend>(x: FloatTensor<B>, w: FloatTensor<B>, bias: FloatTensor<B>) -> FloatTensor<B> {
    let x = tensor::<B, 2>(x);
    let (w, bias) = (round_like(tensor(w), &x), round_like(tensor::<B, 1>(bias), &x));
    primitive(x.matmul(w) + bias.unsqueeze())
}

pub(super) fn onto<B: Backend>(
    residual: FloatTensor<B>,
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    bias: FloatTensor<B>,
) -> FloatTensor<B> {
    primitive(tensor::<B, 2>(residual) + widen(tensor(value::<B>(x, w, bias))))
}

pub(super) fn derivatives<B: Backend>(
    x: FloatTensor<B>,
    w: FloatTensor<B>,
    upstream: FloatTensor<B>,
    wanted: AffineGradients<bool>,
) -> AffineGradients<Option<FloatTensor<B>>> {
    let x = tensor::<B, 2>(x);
    let upstream = round_like(tensor::<B, 2>(upstream), &x);
    let by_x = |upstream: Tensor<B, 2>, x: &Tensor<B, 2>| upstream.matmul(round_like(tensor(w), x).transpose());
    AffineGradients {
        x: wanted.x.then(|| primitive(by_x(upstream.clone(), &x))),
        w: wanted
            .w
            .then(|| primitive(widen(x.transpose().matmul(upstream.clone())))),
        bias: wanted
            .bias
            .then(|| primitive(widen(upstream).sum_dim(0).squeeze_dim::<1>(0))),
    }
}
