//! The reference derivatives of the feed-forward half of a block: two affine maps with a GELU between them, each in its
//! backend's own way.

use crate::ops::backend::Gpt2Backend;
use crate::ops::types::FeedForwardGradients;
use burn::tensor::ops::FloatTensor;

pub(in crate::ops) fn derivatives<B: Gpt2Backend>(
    x: FloatTensor<B>,
    [w_in, w_out]: [FloatTensor<B>; 2],
    inner: FloatTensor<B>,
    activated: Option<FloatTensor<B>>,
    grad_output: FloatTensor<B>,
) -> (FloatTensor<B>, FeedForwardGradients<FloatTensor<B>>) {
    let activated = activated.unwrap_or_else(|| B::tanh_gelu(inner.clone()));
    let out = B::affine_backward(activated, w_out, grad_output);
    let grad_inner = B::tanh_gelu_backward(inner, out.x);
    let fed = B::affine_backward(x, w_in, grad_inner);
    let by = FeedForwardGradients {
        w_in: fed.w,
        bias_in: fed.bias,
        w_out: out.w,
        bias_out: out.bias,
    };
    (fed.x, by)
}
