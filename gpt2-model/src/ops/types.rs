//! What the operations are told and what they give.

use crate::precision::Precision;
use crate::recompute::Recompute;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;

/// What the classifier needs to know besides its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassifierShape {
    /// Tokens; rows of the embedding past it take no part.
    pub vocab_size: usize,
    /// The type of the products.
    pub precision: Precision,
}

/// The classifier's loss and its derivatives.
#[derive(Debug, Clone)]
pub struct ClassifierGradients<B: Backend> {
    /// Mean cross-entropy in nats, `[1]`.
    pub loss: FloatTensor<B>,
    /// Of the loss by the hidden states, `[N, C]`, in their type.
    pub hidden: FloatTensor<B>,
    /// Of the loss by the embedding, `[Vp, C]`, `f32`.
    pub wte: FloatTensor<B>,
}

/// The derivatives of [`Gpt2Backend::affine`](super::Gpt2Backend::affine).
#[derive(Debug, Clone, Copy)]
pub struct AffineGradients<T> {
    /// By the input, `[N, in]`.
    pub x: T,
    /// By the weights, `[in, out]`, in `f32`.
    pub w: T,
    /// By the bias, `[out]`, in `f32`.
    pub bias: T,
}

/// A gradient as the backward pass of a product takes it.
#[derive(Debug, Clone, Copy)]
pub struct GradOutput<T> {
    /// `[N, out]`.
    pub value: T,
    /// The sums of its columns, which are the gradient of the bias, `[out]` in `f32`, where what made it has them.
    pub column_sums: Option<T>,
}

impl<T> From<T> for GradOutput<T> {
    /// Without the sums.
    fn from(value: T) -> Self {
        Self {
            value,
            column_sums: None,
        }
    }
}

/// What LayerNorm gives.
#[derive(Debug, Clone, Copy)]
pub struct Normalised<T> {
    /// The normalised rows, scaled and shifted, `[N, C]`.
    pub out: T,
    /// Each row's mean and the reciprocal of its deviation, `[N]` each, for a derivative that does not recompute them.
    pub statistics: Option<[T; 2]>,
}

/// The derivatives of [`Gpt2Backend::normalise_rows`](super::Gpt2Backend::normalise_rows).
#[derive(Debug, Clone, Copy)]
pub struct LayerNormGradients<T> {
    /// By the input, `[N, C]`.
    pub x: T,
    /// By the gain, `[C]`.
    pub weight: T,
    /// By the offset, `[C]`.
    pub bias: T,
}

/// What attention gives.
#[derive(Debug, Clone, Copy)]
pub struct Attended<T> {
    /// The mixed values, `[B, T, C]`.
    pub out: T,
    /// For each row of scores the logarithm of the sum of their exponentials, `[B, H, T]`, `f32`: the derivative
    /// recomputes the attention weights from it.
    pub log_sum: T,
}

/// The derivatives of a block's feed-forward half by its parameters.
#[derive(Debug, Clone, Copy)]
pub struct FeedForwardGradients<T> {
    /// `[C, 4C]`.
    pub w_in: T,
    /// `[4C]`.
    pub bias_in: T,
    /// `[4C, C]`.
    pub w_out: T,
    /// `[C]`.
    pub bias_out: T,
}

/// The parameters of a block, or their derivatives: of LayerNorms gain and offset, `[C]`, of products weights and bias.
#[derive(Debug, Clone)]
pub struct BlockWeights<T> {
    /// Before the attention.
    pub ln_1: [T; 2],
    /// Query, key and value, `[C, 3C]`.
    pub qkv: [T; 2],
    /// After the attention, `[C, C]`.
    pub attention_out: [T; 2],
    /// Before the feed-forward half.
    pub ln_2: [T; 2],
    /// `[C, 4C]`.
    pub feed_in: [T; 2],
    /// `[4C, C]`.
    pub feed_out: [T; 2],
}

impl<T> BlockWeights<T> {
    /// `change` of each, in the order of the fields.
    pub(super) fn map<U>(self, mut change: impl FnMut(T) -> U) -> BlockWeights<U> {
        BlockWeights {
            ln_1: self.ln_1.map(&mut change),
            qkv: self.qkv.map(&mut change),
            attention_out: self.attention_out.map(&mut change),
            ln_2: self.ln_2.map(&mut change),
            feed_in: self.feed_in.map(&mut change),
            feed_out: self.feed_out.map(&mut change),
        }
    }

    /// With the operands that are there in place of the weights of the products.
    pub(crate) fn with_operands(self, operands: [Option<T>; 4]) -> Self {
        let [qkv, attention_out, feed_in, feed_out] = operands;
        let with = |[w, bias]: [T; 2], operand: Option<T>| [operand.unwrap_or(w), bias];
        Self {
            qkv: with(self.qkv, qkv),
            attention_out: with(self.attention_out, attention_out),
            feed_in: with(self.feed_in, feed_in),
            feed_out: with(self.feed_out, feed_out),
            ..self
        }
    }

    /// All twelve, in the order of the fields.
    pub(super) fn into_iter(self) -> impl Iterator<Item = T> {
        let Self {
            ln_1,
            qkv,
            attention_out,
            ln_2,
            feed_in,
            feed_out,
        } = self;
        [ln_1, qkv, attention_out, ln_2, feed_in, feed_out]
            .into_iter()
            .flatten()
    }
}

/// What a block needs to know besides its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockShape {
    /// T, the tokens of a sequence.
    pub seq: usize,
    /// Attention heads.
    pub n_head: usize,
    /// The type of the products.
    pub precision: Precision,
    /// What is not kept for the backward pass.
    pub recompute: Recompute,
    /// Whether the block in front gave the input and nothing else reads it: the gradient of the input is then handed over
    /// in the form that the backward pass of that block takes. With another reader its gradients would be wrong.
    pub follows_block: bool,
}

/// What a block needs to know besides its tensors to compute one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeShape {
    /// Positions before it, whose keys and values are held.
    pub past: usize,
    /// The type of the products.
    pub precision: Precision,
}

/// A block of one position, from `x`, the block's parameters, and the keys and values that are held, to what leaves it and
/// what is held then.
pub type DecodeBlock<T> = fn(T, BlockWeights<T>, [T; 2], DecodeShape) -> (T, [T; 2]);

/// Kernels for one position of each sequence, as generation computes them.
#[derive(Debug)]
pub struct DecodeKernels<B: Backend> {
    /// A block: `x`, `[B, C]`, becomes what leaves it, and the position's key and value join those that are held,
    /// `[B, H, capacity, D]`.
    pub block: DecodeBlock<FloatTensor<B>>,
    /// The logits, `[B, V]`, of hidden states, `[B, C]` in `f32`, and the classifier, `[Vp, C]`.
    pub logits: fn(FloatTensor<B>, FloatTensor<B>, ClassifierShape) -> FloatTensor<B>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_have_one_order() {
        let weights = BlockWeights {
            ln_1: [1, 2],
            qkv: [3, 4],
            attention_out: [5, 6],
            ln_2: [7, 8],
            feed_in: [9, 10],
            feed_out: [11, 12],
        };
        let mut mapped = Vec::new();
        let weights = weights.map(|weight| {
            mapped.push(weight);
            weight
        });
        assert!(mapped.into_iter().eq(1..=12));
        assert!(weights.into_iter().eq(1..=12));
    }
}
