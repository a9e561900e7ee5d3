//! libFuzzer on what `shard` names in the crate.

#![no_main]

gpt2_fuzz::target!(SHARD);
