//! GPT-2 on the [Burn](https://burn.dev) framework, generic over the backend.
//!
//! The model ([`Gpt2`]) is exactly OpenAI's: pre-LN blocks, learned positions, a fused query-key-value product, the tanh
//! form of GELU, a classifier tied to the token embedding; a [`Variant`] says in what another one differs. This crate trains
//! nothing and reads no files outside [`weights`].
//!
//! [`Gpt2::load`] opens weights of Hugging Face, llm.c or llama.cpp, [`Gpt2::loss`] trains them under Burn's autodiff,
//! [`Gpt2::generate`] writes; `examples/finetune.rs` does all three in fifty lines. [`Inference`] is a model without its type.
//!
//! | feature | brings |
//! |---|---|
//! | `flex` | the CPU, in pure Rust: `burn_flex::Flex` |
//! | `ndarray` | the CPU, on ndarray: `burn_ndarray::NdArray` |
//! | `blis` | BLIS, a BLAS built from source, for both |
//! | `wgpu` | GPUs of any make: [`ops::Wgpu`](ops) |
//! | `cuda` | NVIDIA's GPUs: [`ops::Cuda`](ops) |

#![warn(missing_docs, clippy::print_stdout, clippy::print_stderr)]

#[cfg(feature = "blis")]
use blis_src as _; // Links the library that ndarray calls.

pub mod capabilities;
pub mod cost;
pub mod ops;
pub mod sampling;
pub mod spans;
pub mod weights;

mod attention;
mod block;
mod computation;
mod config;
mod error;
mod generate;
mod inference;
mod init;
mod kv_cache;
mod layers;
mod mlp;
mod model;
mod precision;
mod recompute;
mod variant;

pub use attention::CausalSelfAttention;
pub use block::Block;
pub use computation::{Computation, Operations};
pub use config::Gpt2Config;
pub use error::ModelError;
pub use generate::Generator;
pub use inference::{Inference, InferenceBackend, Sequences, TokenScore};
pub use kv_cache::{KvCache, LayerCache};
pub use layers::{Embedding, LayerNorm, Linear};
pub use mlp::Mlp;
pub use model::Gpt2;
pub use precision::Precision;
pub use recompute::Recompute;
pub use variant::{Activation, Variant};
