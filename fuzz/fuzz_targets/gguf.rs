//! libFuzzer on what `gguf` names in the crate.

#![no_main]

gpt2_fuzz::target!(GGUF);
