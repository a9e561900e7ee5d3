//! libFuzzer on what `safetensors` names in the crate.

#![no_main]

gpt2_fuzz::target!(SAFETENSORS);
