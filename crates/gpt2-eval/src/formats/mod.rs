//! The files that hold examples. What the examples are is [`crate::tasks`].

pub mod hellaswag;
mod json_lines;
pub mod lambada;
pub mod llmc;
