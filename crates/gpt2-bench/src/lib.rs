//! Benchmarks and studies of GPT-2's training step. Every whole step is one of the trainer's own loop, started by its own
//! launch.

pub mod error;
pub mod fixed_work;
mod launcher;
pub mod peer;
pub mod profile;
pub mod scaling;
pub mod step;
pub mod study;
pub mod sweep;
pub mod threads;
pub mod work;

mod gpu;
mod process;
mod profiler;
mod words;

pub use error::BenchError;
