//! libFuzzer on what `llmc` names in the crate.

#![no_main]

gpt2_fuzz::target!(LLMC);
