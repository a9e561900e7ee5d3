//! The loss of a rank, as the others know it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A rank that the others cannot go on without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostRank {
    /// Its number.
    pub rank: usize,
    /// Where it ran.
    pub host: String,
    /// Its process there.
    pub pid: u32,
    /// The last step that it is known to have begun.
    pub step: u64,
    /// What became of it.
    pub how: How,
}

/// What became of a rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// Its process has ended.
    Gone,
    /// It has given no sign of life for so many seconds.
    Silent(u64),
    /// It has ended with this error.
    Failed(String),
}

impl fmt::Display for LostRank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rank, host, pid, step, ..
        } = self;
        write!(f, "rank {rank} (host {host}, process {pid}) ")?;
        match &self.how {
            How::Gone => write!(f, "is gone, at step {step}"),
            How::Silent(seconds) => write!(f, "has given no sign of life for {seconds} s, at step {step}"),
            How::Failed(message) => write!(f, "has failed, at step {step}: {message}"),
        }
    }
}
