//! Burn's dashboard on a terminal.

mod dashboard;
mod deferred;

pub(super) use dashboard::dashboard;
pub use dashboard::restore_terminal;
pub(super) use deferred::DeferredRenderer;
