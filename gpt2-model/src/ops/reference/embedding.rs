//! The reference embedding of tokens and positions, and its derivatives.

use crate::ops::convert::{primitive, tensor};
use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{Tensor, TensorMetadata};

pub(in crate::ops) fn value<B: Backend>(
    wte: FloatTensor<B>,
    wpe: FloatTensor<B>,
    tokens: IntTensor<B>,
    past: usize,
) -> FloatTensor<B> {
    let tokens = tensor::<B, 3>(B::embedding(wte, tokens));
    let seq = tokens.dims()[1];
    let positions = tensor::<B, 2>(wpe).narrow(0, past, seq);
    primitive(tokens + positions.unsqueeze())
}

pub(in crate::ops) fn by_tokens<B: Backend>(
    wte: FloatTensor<B>,
    tokens: IntTensor<B>,
    grad_output: FloatTensor<B>,
    sum: Option<FloatTensor<B>>,
) -> FloatTensor<B> {
    let derivative = B::embedding_backward(wte, grad_output, tokens);
    match sum {
        Some(sum) => B::float_add(sum, derivative),
        None => derivative,
    }
}

pub(in crate::ops) fn by_positions<B: Backend>(
    wpe: &FloatTensor<B>,
    grad_output: FloatTensor<B>,
    past: usize,
) -> FloatTensor<B> {
    let [rows, width] = wpe.shape().dims();
    let used = tensor::<B, 3>(grad_output).sum_dim(0).squeeze_dim::<2>(0);
    let seq = used.dims()[0];
    let zeros = Tensor::zeros([rows, width], &used.device());
    primitive(zeros.slice_assign([past..past + seq, 0..width], used))
}
