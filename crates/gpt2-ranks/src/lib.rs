//! The processes that train one model together, one a device: who each is ([`RankInfo`]), how they meet and what they
//! exchange ([`ProcessGroup`]), and how the others end when one is lost ([`LostRank`]).
//!
//! All goes through TCP connections of each rank to rank 0. What is large, such as gradients on GPUs, has faster ways; this is
//! the way for what the ranks must agree on, and for gradients on CPUs.

mod environment;
mod error;
mod frame;
mod group;
mod lost;
mod monitor;
mod node_list;
mod rendezvous;

pub use environment::{Launcher, RankInfo, free_port, variables_of};
pub use error::RanksError;
pub use group::ProcessGroup;
pub use lost::{How, LostRank};
pub use monitor::Monitor;
pub use rendezvous::Timeouts;
