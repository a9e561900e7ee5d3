//! The crate's public face, without a device: run files as they are shipped, and the files of a run directory.

mod configs;
mod report;
