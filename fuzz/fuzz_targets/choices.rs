//! libFuzzer on what `choices` names in the crate.

#![no_main]

gpt2_fuzz::target!(CHOICES);
