//! What every launch needs.

use burn::tensor::{DType, TensorMetadata};
use burn_cubecl::CubeRuntime;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

/// A tensor in the memory of a device.
pub type Tensor<R> = CubeTensor<R>;

/// Units of a cube.
pub(crate) const UNITS: usize = 256;

/// Cubes along one axis of a launch: what every interface takes.
const CUBES_ALONG: usize = 65_535;

/// `tensor` with its elements one after the other in memory, in the order of its indices.
pub fn contiguous<R: CubeRuntime>(tensor: Tensor<R>) -> Tensor<R> {
    into_contiguous(tensor)
}

/// `tensor`, contiguous and nobody else's, to be written to: itself where it is that, else a copy.
pub fn owned<R: CubeRuntime>(tensor: Tensor<R>) -> Tensor<R> {
    contiguous(if tensor.can_mut() { tensor } else { tensor.copy() })
}

/// An `f32` tensor on the device of `like` whose elements are not written yet.
pub(crate) fn empty<R: CubeRuntime>(like: &Tensor<R>, shape: &[usize]) -> Tensor<R> {
    empty_of(like, shape, DType::F32)
}

/// [`empty`] of any type.
pub(crate) fn empty_of<R: CubeRuntime>(like: &Tensor<R>, shape: &[usize], dtype: DType) -> Tensor<R> {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape.into(), dtype)
}

/// At least `count` cubes, over two axes where one is not enough.
pub(crate) fn cubes(count: usize) -> CubeCount {
    let down = count.div_ceil(CUBES_ALONG).max(1);
    CubeCount::Static(count.div_ceil(down) as u32, down as u32, 1)
}

/// Cubes with a unit for every element of `tensor`.
pub(crate) fn cubes_over<R: CubeRuntime>(tensor: &Tensor<R>) -> CubeCount {
    cubes(tensor.shape().num_elements().div_ceil(UNITS))
}

/// All cubes have the same size.
pub(crate) fn units() -> CubeDim {
    CubeDim::new_1d(UNITS as u32)
}

/// A kernel for a tensor that is, or is not, in `bf16`.
macro_rules! of_type {
    ($tensor:expr, $kernel:ident) => {
        match $tensor.dtype {
            burn::tensor::DType::BF16 => $kernel::launch_unchecked::<burn::tensor::bf16, R>,
            _ => $kernel::launch_unchecked::<f32, R>,
        }
    };
}
pub(crate) use of_type;

/// The tensor as a kernel's argument.
pub(crate) fn array<R: CubeRuntime>(tensor: &Tensor<R>) -> ArrayArg<R> {
    tensor.clone().into_array_arg()
}
