//! The reference feed-forward half of a block: two affine maps with a GELU between them, each in its backend's own way.

use super::{AffineGradients, FedForward, FeedForwardWeights, Gpt2Backend};
use crate::recompute::Recompute;
use burn::tensor::ops::FloatTensor;

pub(super) fn value<B: Gpt2Backend>(
    residual: FloatTensor<B>,
    x: FloatTensor<B>,
    weights: FeedForwardWeights<FloatTensor<B>>,
    recompute: Recompute,
) -> FedForward<FloatTensor<B>> {
    let inner = B::affine(x, weights.w_in, weights.bias_in);
    let activated = B::tanh_gelu(inner.clone());
    FedForward {
        out: B::affine_onto(residual, activated.clone(), weights.w_out, weights.bias_out),
        inner,
        activated: (recompute == Recompute::None).then_some(activated),
    }
}

pub(super) fn derivatives<B: Gpt2Backend>(
    x: FloatTensor<B>,
    [w_in, w_out]: [FloatTensor<B>; 2],
    fed: FedForward<FloatTensor<B>>,
    upstream: FloatTensor<B>,
) -> (FloatTensor<B>, FeedForwardWeights<FloatTensor<B>>) {
    let all = |found: AffineGradients<Option<FloatTensor<B>>>| {
        let expected = "all are asked for";
        (
            found.x.expect(expected),
            found.w.expect(expected),
            found.bias.expect(expected),
        )
    };
    let FedForward { inner, activated, .. } = fed;
    let activated = activated.unwrap_or_else(|| B::tanh_gelu(inner.clone()));
    let (by_activated, w_out, bias_out) = all(B::affine_backward(activated, w_out, upstream, AffineGradients::ALL));
    let by_inner = B::tanh_gelu_backward(inner, by_activated);
    let (by_x, w_in, bias_in) = all(B::affine_backward(x, w_in, by_inner, AffineGradients::ALL));
    let weights = FeedForwardWeights {
        w_in,
        bias_in,
        w_out,
        bias_out,
    };
    (by_x, weights)
}
