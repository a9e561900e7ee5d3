//! Hugging Face's hub: weights and text into the cache that its other clients have, and a model as a commit.
//!
//! An [`Address`] such as `hf:openai-community/gpt2` or `hf:datasets/roneneldan/TinyStories/*.txt` names files of a
//! repository. A [`Hub`] fetches them ([`Hub::weights`], [`Hub::text`]) and sends a directory ([`Hub::push`]). What is
//! in the files is not looked at, but for the list of shards of sharded weights.
//!
//! The cache is that of Python's `huggingface_hub`, by the layout of the crate `hf-hub`: what one has fetched, the
//! other finds. A file gets its name there when all of it has arrived and its size and SHA-256 are those that the hub
//! lists.
//!
//! The transfers are not those of `hf-hub`. Version 0.5 sends nothing, checks no hash, appends a whole answer to half a
//! file where a server ignores `Range`, and knows no `HF_HUB_OFFLINE`. Version 1.0 brings tokio, reqwest and hf-xet,
//! some 230 crates; it begins an interrupted file again, and sends large files by xet only. Here they go through
//! `ureq`, which blocks and brings sixteen, and through Git LFS.
//!
//! ```no_run
//! use gpt2_hub::{Address, Hub};
//!
//! let hub = Hub::from_env()?;
//! let address: Address = "hf:openai-community/gpt2".parse()?;
//! let directory = hub.weights(&address, &|_| {})?;
//! # Ok::<(), gpt2_hub::HubError>(())
//! ```

mod address;
mod cache;
mod config;
mod download;
mod error;
mod event;
mod http;
mod hub;
mod listing;
mod refusal;
mod upload;
mod weights;

pub use address::{Address, RepoKind, SCHEME};
pub use config::{HubConfig, Token};
pub use error::HubError;
pub use event::HubEvent;
pub use hub::Hub;
pub use upload::{Push, Pushed};
