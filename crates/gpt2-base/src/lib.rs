//! What the other crates share and no domain owns: files that are whole or absent, hashes, locks, figures for people,
//! statistics, the nearest name for a misspelt one, and how a value that cannot be used is described.
//!
//! Nothing here knows of tokens, models or runs. File operations fail with [`std::io::Error`]; callers add what they
//! were doing and to which file.

#![warn(missing_docs)]

pub mod fs;
mod invalid;
mod nearest;
pub mod stats;
pub mod units;

pub use invalid::Invalid;
pub use nearest::{OTHER_NAMES, nearest, nearest_multiples, other_name};
