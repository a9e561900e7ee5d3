//! A transformer block as one operation, so that what its backward pass keeps is decided in one place.

use super::backend::Gpt2Backend;
use super::convert::{self, primitive, tensor};
use super::types::{Attended, BlockShape, BlockWeights, GradOutput, Normalised};
use crate::recompute::Recompute;
use crate::spans::{Operation, Pass, span};
use burn::tensor::TensorMetadata;
use burn::tensor::ops::FloatTensor;

/// What a block's backward pass reads besides the block's input. What is absent is recomputed.
#[derive(Debug, Clone)]
pub(super) struct Activations<T> {
    /// What the two LayerNorms gave, `[N, C]`, with their statistics.
    normal: [Option<T>; 2],
    statistics: [Option<[T; 2]>; 2],
    /// `[B, T, 3C]`.
    qkv: T,
    attended: Attended<T>,
    /// The residual stream between the halves, `[N, C]`.
    middle: T,
    /// GELU's input, `[N, 4C]`.
    inner: T,
    /// GELU's output, `[N, 4C]`.
    activated: Option<T>,
}

impl<T> Activations<T> {
    /// What is kept of all activations.
    pub(super) fn kept(mut self, recompute: Recompute) -> Option<Self> {
        match recompute {
            Recompute::None => {}
            Recompute::Gelu => self.activated = None,
            Recompute::GeluLn => {
                self.activated = None;
                self.normal = [None, None];
            }
            Recompute::Block => return None,
        }
        Some(self)
    }
}

/// The block's result, `[N, C]`, and all activations.
pub(super) fn value<B: Gpt2Backend>(
    x: FloatTensor<B>,
    weights: &BlockWeights<FloatTensor<B>>,
    shape: BlockShape,
) -> (FloatTensor<B>, Activations<FloatTensor<B>>) {
    let activations = activations::<B>(x, weights, shape, Pass::Forward);
    let activated = activations.activated.clone().expect("all activations are there");
    let [w, bias] = weights.feed_out.clone();
    let out = span(Operation::FeedOut, Pass::Forward, || {
        B::affine_onto(activations.middle.clone(), activated, w, bias)
    });
    (out, activations)
}

/// Everything but the last product.
fn activations<B: Gpt2Backend>(
    x: FloatTensor<B>,
    weights: &BlockWeights<FloatTensor<B>>,
    shape: BlockShape,
    pass: Pass,
) -> Activations<FloatTensor<B>> {
    let first = normalise::<B>(x.clone(), &weights.ln_1, shape, pass);
    let [w, bias] = weights.qkv.clone();
    let qkv = span(Operation::Qkv, pass, || B::affine(first.out.clone(), w, bias));
    let [tokens, width] = qkv.shape().dims();
    let qkv = B::float_reshape(qkv, [tokens / shape.seq, shape.seq, width].into());
    let attended = span(Operation::Attention, pass, || {
        B::causal_attention(qkv.clone(), shape.n_head)
    });
    let [w, bias] = weights.attention_out.clone();
    let middle = span(Operation::AttentionOut, pass, || {
        B::affine_onto(x, rows::<B>(attended.out.clone()), w, bias)
    });
    let second = normalise::<B>(middle.clone(), &weights.ln_2, shape, pass);
    let [w, bias] = weights.feed_in.clone();
    let [inner, activated] = span(Operation::FeedIn, pass, || B::affine_gelu(second.out.clone(), w, bias));
    Activations {
        normal: [first.out, second.out].map(Some),
        statistics: [first.statistics, second.statistics],
        qkv,
        attended,
        middle,
        inner,
        activated: Some(activated),
    }
}

/// A block's derivatives.
pub(super) struct Derivatives<T> {
    /// By the input, `[N, C]`.
    pub(super) x: T,
    /// The same as the block in front takes it, where there is one and what made it has its sums.
    pub(super) operand: Option<GradOutput<T>>,
    /// By the parameters.
    pub(super) weights: BlockWeights<T>,
}

/// The derivatives times `grad_output`, `[N, C]`, which may be there as an operand too.
pub(super) fn derivatives<B: Gpt2Backend>(
    x: FloatTensor<B>,
    weights: BlockWeights<FloatTensor<B>>,
    kept: Option<Activations<FloatTensor<B>>>,
    shape: BlockShape,
    grad_output: FloatTensor<B>,
    operand: Option<GradOutput<FloatTensor<B>>>,
) -> Derivatives<FloatTensor<B>> {
    let Activations {
        normal: [normal_1, normal_2],
        statistics: [statistics_1, statistics_2],
        qkv,
        attended,
        middle,
        inner,
        activated,
    } = kept.unwrap_or_else(|| activations::<B>(x.clone(), &weights, shape, Pass::Backward));
    let backward = Pass::Backward;
    // The gradients of biases, gains and offsets: nothing here reads them.
    let sums = B::defer_sums();

    // The second half. Its derivative by the residual stream goes around it and is added to in place.
    let normal = normal_2.unwrap_or_else(|| normalise::<B>(middle.clone(), &weights.ln_2, shape, backward).out);
    let ([w_in, _], [w_out, _]) = (weights.feed_in, weights.feed_out);
    let (grad_normal, fed) = span(Operation::FeedForward, backward, || {
        B::feed_forward_backward(normal, [w_in, w_out], inner, activated, grad_output.clone(), operand)
    });
    let [gain, _] = weights.ln_2;
    let (ln_2, grad_output) = span(Operation::LayerNorm, backward, || {
        B::normalise_rows_backward_for_product(middle, gain, statistics_2, grad_normal, Some(grad_output))
    });

    // The first half.
    let [w, _] = weights.attention_out;
    let mixed = rows::<B>(attended.out.clone());
    let out = span(Operation::AttentionOut, backward, || {
        B::affine_backward_from(mixed, w, grad_output)
    });
    let grad_mixed = B::float_reshape(out.x, attended.out.shape());
    let grad_qkv = rows::<B>(span(Operation::Attention, backward, || {
        B::causal_attention_backward(qkv, attended, grad_mixed, shape.n_head)
    }));
    let normal = normal_1.unwrap_or_else(|| normalise::<B>(x.clone(), &weights.ln_1, shape, backward).out);
    let [w, _] = weights.qkv;
    let projected = span(Operation::Qkv, backward, || B::affine_backward(normal, w, grad_qkv));
    let [gain, _] = weights.ln_1;
    let (ln_1, operand) = span(Operation::LayerNorm, backward, || {
        let sum = Some(ln_2.x);
        let found = if shape.follows_block {
            let (ln_1, operand) = B::normalise_rows_backward_for_product(x, gain, statistics_1, projected.x, sum);
            (ln_1, operand.column_sums.is_some().then_some(operand))
        } else {
            (
                B::normalise_rows_backward(x, gain, statistics_1, projected.x, sum),
                None,
            )
        };
        drop(sums);
        found
    });
    let weights = BlockWeights {
        ln_1: [ln_1.weight, ln_1.bias],
        qkv: [projected.w, projected.bias],
        attention_out: [out.w, out.bias],
        ln_2: [ln_2.weight, ln_2.bias],
        feed_in: [fed.w_in, fed.bias_in],
        feed_out: [fed.w_out, fed.bias_out],
    };
    Derivatives {
        x: ln_1.x,
        operand,
        weights,
    }
}

fn normalise<B: Gpt2Backend>(
    x: FloatTensor<B>,
    [gain, offset]: &[FloatTensor<B>; 2],
    shape: BlockShape,
    pass: Pass,
) -> Normalised<FloatTensor<B>> {
    span(Operation::LayerNorm, pass, || {
        B::normalise_rows(x, gain.clone(), offset.clone(), shape.precision)
    })
}

/// `[B, T, C]` → `[B·T, C]`.
fn rows<B: Gpt2Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    primitive(convert::rows(tensor::<B, 3>(x)))
}
