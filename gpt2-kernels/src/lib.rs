//! The operations of a GPT-2's training step as CUDA kernels of our own, on tensors of Burn's CUDA backend.
//!
//! The sources, in `src/cuda/`, are compiled by NVIDIA's run-time compiler, ahead ([`compile_ahead`]) or when they are
//! first used, and run on CubeCL's stream and memory. Each says at its head what it computes, and what it asks of its
//! caller.
//!
//! Everything here is deterministic: sums are taken in an order that follows from the shapes and the device.
//!
//! Tensors must be contiguous ([`contiguous`]). Products take widths that are multiples of 8, [`layer_norm`] and [`embedding`]
//! multiples of 4 up to [`WIDEST_ROW`], and [`attention`] heads of a multiple of [`HEAD_MULTIPLE`] channels up to
//! [`WIDEST_HEAD`], in TF32 of 64 alone.

pub mod adamw;
mod ahead;
pub mod attention;
pub mod classifier;
mod clock;
pub mod columns;
pub mod embedding;
pub mod gelu;
mod launch;
pub mod layer_norm;
pub mod nccl;
#[cfg(test)]
mod nvrtc;
pub mod product;
pub mod scale;
pub mod timer;

pub use ahead::compile_ahead;
pub use clock::lap;
pub use launch::compiled;
pub use launch::read;

use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::cuda::CudaRuntime;

/// A tensor in the memory of a CUDA device.
pub type Tensor = CubeTensor<CudaRuntime>;

/// Channels of the widest attention head that the kernels take.
pub const WIDEST_HEAD: usize = 128;

/// What divides the channels of every attention head that the kernels take.
pub const HEAD_MULTIPLE: usize = 8;

/// Channels of the widest rows that are normalised and looked up.
pub const WIDEST_ROW: usize = 4096;

/// `tensor` with its elements one after the other in memory, in the order of its indices.
pub fn contiguous(tensor: Tensor) -> Tensor {
    into_contiguous(tensor)
}

/// `tensor`, contiguous and nobody else's, to be written to: itself where it is that, else a copy.
pub fn owned(tensor: Tensor) -> Tensor {
    contiguous(if tensor.can_mut() { tensor } else { tensor.copy() })
}
