//! The reference product of a tensor and a factor.

use burn::tensor::TensorMetadata;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;

pub(in crate::ops) fn value<B: Backend>(tensor: FloatTensor<B>, factor: FloatTensor<B>) -> FloatTensor<B> {
    let ones = vec![1; tensor.shape().num_dims()];
    let factor = B::float_cast(factor, tensor.dtype().into());
    B::float_mul(tensor, B::float_reshape(factor, ones.into()))
}
