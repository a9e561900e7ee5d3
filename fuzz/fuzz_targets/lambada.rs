//! libFuzzer on what `lambada` names in the crate.

#![no_main]

gpt2_fuzz::target!(LAMBADA);
