//! Tensors in other shapes and types, as the operations and the layers need them.

use crate::precision::Precision;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, FloatDType, Shape, Tensor, TensorData, TensorMetadata as _, TensorPrimitive};

pub(crate) fn primitive<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

pub(crate) fn tensor<B: Backend, const D: usize>(primitive: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// The elements of `tensor` in order, as Burn copies them.
pub(super) fn to_host<B: Backend>(tensor: FloatTensor<B>) -> Vec<f32> {
    let row = [tensor.shape().num_elements()];
    let tensor = Tensor::<B, 1>::from_primitive(TensorPrimitive::Float(B::float_reshape(tensor, row.into())));
    let data = tensor.into_data().convert_dtype(DType::F32); // host–device sync
    data.into_vec().expect("converted to f32")
}

/// `x` in the type of the products, as Burn's own take it.
pub(crate) fn round<B: Backend, const D: usize>(x: Tensor<B, D>, precision: Precision) -> Tensor<B, D> {
    match precision {
        Precision::F32 | Precision::Tf32 => x,
        Precision::Bf16 if x.dtype() == DType::BF16 => x,
        Precision::Bf16 => x.cast(FloatDType::BF16),
    }
}

/// `x` in the type of `other`.
pub(super) fn round_like<B: Backend, const D: usize, const E: usize>(
    x: Tensor<B, D>,
    other: &Tensor<B, E>,
) -> Tensor<B, D> {
    if other.dtype() == DType::BF16 {
        round(x, Precision::Bf16)
    } else {
        x
    }
}

/// `x` in `f32`, the type of the residual stream.
pub(crate) fn widen<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    if x.dtype() == DType::BF16 {
        x.cast(FloatDType::F32)
    } else {
        x
    }
}

/// `[B, T, C]` → `[B·T, C]`.
pub(crate) fn rows<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 2> {
    let [batch, seq, width] = x.dims();
    x.reshape([batch * seq, width])
}

/// Query, key and value, which lie next to each other: `[B, T, 3C]` → three of `[B, H, T, D]`.
pub(crate) fn split_heads<B: Backend>(qkv: Tensor<B, 3>, n_head: usize) -> [Tensor<B, 4>; 3] {
    let [batch, seq, width] = qkv.dims();
    let heads = qkv
        .reshape([batch, seq, 3 * n_head, width / (3 * n_head)])
        .swap_dims(1, 2); // [B, 3H, T, D]
    [0, 1, 2].map(|i| heads.clone().narrow(1, i * n_head, n_head))
}

/// `[B, H, T, D]` → `[B, T, C]`.
pub(crate) fn join_heads<B: Backend>(heads: Tensor<B, 4>) -> Tensor<B, 3> {
    let [batch, n_head, seq, head_dim] = heads.dims();
    heads.swap_dims(1, 2).reshape([batch, seq, n_head * head_dim])
}

/// A tensor of the given values, one after the other in the device's memory too: a matrix may get longer rows there, and
/// is then copied before kernels write to it, which leaves its first memory unused.
pub fn upload<B: Backend, const D: usize>(
    values: Vec<f32>,
    shape: impl Into<Shape>,
    device: &B::Device,
) -> Tensor<B, D> {
    let count = values.len();
    Tensor::<B, 1>::from_data(TensorData::new(values, [count]), device).reshape(shape.into())
}
