//! GPT-2 on the [Burn](https://burn.dev) framework, generic over the backend.
//!
//! The model ([`Gpt2`]) is exactly OpenAI's: pre-LN blocks, learned positions, a fused query-key-value product, the tanh
//! form of GELU, a classifier tied to the token embedding; a [`Variant`] says in what another one differs. This crate trains
//! nothing and reads no files outside [`weights`].
//!
//! [`Gpt2::load`] opens weights of Hugging Face, llm.c or llama.cpp, [`Gpt2::loss`] trains them under Burn's autodiff,
//! [`Gpt2::generate`] writes; `examples/finetune.rs` does all three in fifty lines. [`Inference`] is a model without its type.
//!
#![cfg_attr(feature = "flex", doc = "```")]
#![cfg_attr(not(feature = "flex"), doc = "```ignore")]
//! use burn::tensor::{Int, Tensor};
//! use burn_flex::{Flex, FlexDevice};
//! use gpt2_model::{Gpt2, Gpt2Config, sampling::Sampling};
//!
//! # fn main() -> Result<(), gpt2_model::ModelError> {
//! let config = Gpt2Config {
//!     vocab_size: 256,
//!     ..Gpt2Config::preset("d3")?
//! };
//! let model: Gpt2<Flex> = config.init(1, &FlexDevice)?;
//!
//! let tokens = Tensor::<Flex, 2, Int>::from_data([[1, 2, 3]], &FlexDevice); // [B, T]
//! assert_eq!(model.forward(tokens).dims(), [1, 3, 256]); // [B, T, V]
//!
//! let written = model.generate(&[1, 2, 3], Sampling::default(), 1).take(5);
//! let written: Vec<i32> = written.collect::<Result<_, _>>()?;
//! assert_eq!(written.len(), 5);
//! # Ok(())
//! # }
//! ```
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
mod operands;
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
pub use operands::Operands;
pub use precision::Precision;
pub use recompute::Recompute;
pub use variant::{Activation, Variant};
