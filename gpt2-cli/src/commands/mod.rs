//! The commands, one a module: each turns its arguments into calls of the libraries and prints what comes of them.

pub(crate) mod bench;
pub(crate) mod data;
pub(crate) mod describe;
pub(crate) mod devices;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod profile;
pub(crate) mod ranks;
pub(crate) mod report;
pub(crate) mod sample;
pub(crate) mod study;
mod summary;
pub(crate) mod train;
mod weights;
