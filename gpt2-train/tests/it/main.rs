//! The crate from outside: run files as they are shipped, the files of a run directory, and whole runs of a tiny model.

mod configs;
mod report;

#[cfg(feature = "ndarray")]
mod promises;
#[cfg(feature = "ndarray")]
mod ranks;
#[cfg(feature = "ndarray")]
mod tasks;
#[cfg(feature = "ndarray")]
mod tiny;
#[cfg(feature = "ndarray")]
mod together;
