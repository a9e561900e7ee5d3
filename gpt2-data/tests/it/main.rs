//! Tests of the crate from outside, through its public face alone.

mod inspect;
mod prepare;
mod resume;
mod support;
mod tokenizer;
