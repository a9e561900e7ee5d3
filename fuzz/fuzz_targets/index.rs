//! libFuzzer on what `index` names in the crate.

#![no_main]

gpt2_fuzz::target!(INDEX);
