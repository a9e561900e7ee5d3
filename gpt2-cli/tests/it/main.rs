//! The `gpt2` command as its users meet it: what it prints, and how it exits.

mod bad_input;
mod bench;
mod eval;
mod export;
#[cfg(feature = "hub")]
#[path = "../../../crates/gpt2-hub/tests/it/fake_hub.rs"]
#[allow(dead_code, reason = "the tests of its own crate use more of it")]
mod fake_hub;
mod help;
mod hints;
#[cfg(feature = "hub")]
mod hub;
mod prepare_inspect;
#[cfg(target_os = "linux")]
mod ranks;
mod sample;
#[cfg(feature = "hub")]
#[path = "../../../crates/gpt2-hub/tests/it/server.rs"]
#[allow(dead_code, reason = "the tests of its own crate use more of it")]
mod server;
mod studies;
mod support;
#[cfg(unix)]
mod terminal;
mod tokens;
