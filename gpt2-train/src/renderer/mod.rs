//! How a run is shown: Burn's dashboard on a terminal, plain lines elsewhere, or nothing.

mod announced;
mod dashboard;
mod plain;
mod quiet;
mod terminal;

pub(crate) use announced::Announced;
pub use dashboard::{Dashboard, dashboard_is_shown, restore_terminal};
pub use plain::PlainRenderer;
pub use quiet::QuietRenderer;
pub use terminal::Terminal;
