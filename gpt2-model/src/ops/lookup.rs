//! The reference derivative of a table of vectors.

use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};

pub(super) fn derivative<B: Backend>(
    table: FloatTensor<B>,
    indices: IntTensor<B>,
    upstream: FloatTensor<B>,
    sum: Option<FloatTensor<B>>,
) -> FloatTensor<B> {
    let derivative = B::embedding_backward(table, upstream, indices);
    match sum {
        Some(sum) => B::float_add(sum, derivative),
        None => derivative,
    }
}
