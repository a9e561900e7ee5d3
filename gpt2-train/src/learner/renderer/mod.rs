//! Burn's dashboard on a terminal.

mod dashboard;
mod deferred;

pub(super) use dashboard::Dashboard;
pub use dashboard::{dashboard_is_shown, restore_terminal};
pub(super) use deferred::DeferredRenderer;
