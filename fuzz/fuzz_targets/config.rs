//! libFuzzer on what `config` names in the crate.

#![no_main]

gpt2_fuzz::target!(CONFIG);
