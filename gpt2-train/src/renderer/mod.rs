//! How a run is shown: Burn's dashboard on a terminal, plain lines elsewhere, or nothing.

mod announced;
mod dashboard;
mod plain;
mod quiet;

pub(crate) use announced::Announced;
pub use dashboard::{dashboard, restore_terminal};
pub use plain::PlainRenderer;
pub use quiet::QuietRenderer;
