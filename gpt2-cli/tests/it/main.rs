//! The `gpt2` command as its users meet it: what it prints, and how it exits.

mod bad_input;
mod bench;
mod eval;
mod export;
mod help;
mod hints;
mod prepare_inspect;
#[cfg(target_os = "linux")]
mod ranks;
mod sample;
mod studies;
mod support;
#[cfg(unix)]
mod terminal;
mod tokens;
