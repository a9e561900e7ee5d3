//! The operations of a GPT-2's training step as kernels in CubeCL, which compiles them for every device that Burn's CubeCL
//! backends reach: through Vulkan, Metal, DirectX or CUDA.
//!
//! The kernels ask for nothing that only some devices have: cubes of 256 units, 32 KiB of shared memory, no atomics and
//! no operations across the units of a plane. Products of operands that may be rounded are the one exception: they are for
//! [`product::TensorUnits`]. Tensors are contiguous ([`contiguous`]), and `f32` in memory but for what only such products or
//! generation read, which may be `bf16`.
//!
//! Everything here is deterministic: sums are taken in an order that follows from the shapes alone.

pub mod adamw;
pub mod attention;
pub mod classifier;
pub mod columns;
pub mod decode;
pub mod embedding;
pub mod gelu;
mod launch;
pub mod layer_norm;
pub mod product;
mod reduce;
pub mod scale;

pub use launch::{Tensor, contiguous, owned};

/// Elements that a unit reads at once: products take matrices whose sides, and attention heads whose channels, are a multiple
/// of it.
pub const LANES: usize = 4;
