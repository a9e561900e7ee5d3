//! Measuring: what a run's own numbers say about its speed. Nothing here trains.

pub mod operations;
