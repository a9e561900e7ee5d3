//! Operations that a backend may compute in its own way.
//!
//! [`Gpt2Backend`] extends Burn's `Backend`; its default methods are the reference, written in plain tensors and always
//! compiled. A backend that can do better overrides them; the derivative lives in one place, for `Autodiff`.

mod autodiff;
mod backend;
mod block;
mod block_gradients;
pub(crate) mod convert;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod decode;
mod handover;
#[cfg(feature = "host")]
#[expect(clippy::needless_pass_by_value, reason = "views of arrays are handles")]
mod host;
mod reference;
mod tensor;
pub mod training;
mod types;
#[cfg(feature = "wgpu")]
mod wgpu;

pub use backend::Gpt2Backend;
pub use block_gradients::{TakeBlockGradients, take_block_gradients};
pub use convert::upload;
#[cfg(feature = "cuda")]
pub use cuda::Cuda;
#[cfg(feature = "cuda")]
pub use gpt2_kernels::compiled as compiled_kernels;
#[cfg(feature = "host")]
pub use host::{HostTensor, multiplies_bf16 as cpu_multiplies_bf16};
pub use tensor::{affine, attention, block, classifier_loss, embed, gelu, layer_norm, logits, to_host, token_losses};
pub use types::{
    AffineGradients, Attended, BlockShape, BlockWeights, ClassifierGradients, ClassifierShape, DecodeBlock,
    DecodeKernels, DecodeShape, FeedForwardGradients, GradOutput, LayerNormGradients, Normalised,
};
#[cfg(feature = "wgpu")]
pub use wgpu::{Wgpu, multiplies_bf16 as wgpu_multiplies_bf16};
