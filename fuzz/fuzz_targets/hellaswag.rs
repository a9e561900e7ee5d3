//! libFuzzer on what `hellaswag` names in the crate.

#![no_main]

gpt2_fuzz::target!(HELLASWAG);
