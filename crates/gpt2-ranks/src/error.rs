//! Everything that can go wrong between ranks.

use crate::lost::LostRank;
use std::io;

/// An error of this crate. Each message is one line: what was found, what was expected and the fix.
#[derive(Debug, thiserror::Error)]
pub enum RanksError {
    /// A launcher has set some of its variables, and not all that are needed.
    #[error("{set} is set by {launcher}, but {missing} is not; set it too, or unset {set} to train in one process")]
    PartlySet {
        /// Whose variables they are.
        launcher: &'static str,
        /// A variable that is set.
        set: &'static str,
        /// One that is not.
        missing: &'static str,
    },
    /// A launcher's variable holds what it cannot.
    #[error(
        "{variable} is {value:?}, expected {expected}; it is {launcher}'s: start the ranks through it, or unset it"
    )]
    BadVariable {
        /// Whose variable it is.
        launcher: &'static str,
        /// Its name.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// What it should.
        expected: String,
    },
    /// It is not known where the ranks meet.
    #[error(
        "{launcher} does not say where the ranks meet: set MASTER_ADDR to the host of rank 0, and MASTER_PORT to a port of it \
         that is free"
    )]
    NoRendezvous {
        /// The launcher.
        launcher: &'static str,
    },
    /// The host of rank 0 is not known here.
    #[error("cannot find the host of rank 0, {host}: {source}; see MASTER_ADDR")]
    Host {
        /// Its name.
        host: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Rank 0 cannot listen.
    #[error("rank 0 cannot listen on {address}: {source}; another run may use the port: choose another by MASTER_PORT")]
    Listen {
        /// Where.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Not all ranks came.
    #[error("{missing} did not come to {address} within {seconds} s; see what they say, or whether they can reach it")]
    Missing {
        /// Which.
        missing: String,
        /// Where they should have come.
        address: String,
        /// How long rank 0 waited.
        seconds: u64,
    },
    /// Rank 0 is not there.
    #[error(
        "cannot reach rank 0 at {address} within {seconds} s: {reason}; see what it says, and MASTER_ADDR and MASTER_PORT"
    )]
    NotReached {
        /// Where it should be.
        address: String,
        /// How long this rank tried.
        seconds: u64,
        /// What came of the last try.
        reason: String,
    },
    /// Rank 0 has refused this rank.
    #[error("rank 0 at {address} refuses this rank: {reason}")]
    Refused {
        /// Where rank 0 is.
        address: String,
        /// Its reason.
        reason: String,
    },
    /// Another rank is lost.
    #[error("{0}")]
    Lost(LostRank),
    /// The connections to the other ranks fail, though none is known to be lost.
    #[error("cannot exchange with the other ranks: {source}")]
    Io {
        /// The system's reason.
        #[from]
        source: io::Error,
    },
}
