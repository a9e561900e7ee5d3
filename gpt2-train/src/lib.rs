//! Training GPT-2: the run's configuration and plan, its directory, the step loop and the reports.
//!
//! A run goes from [`config::RunConfig`] (what was written) through [`plan::RunPlan`] (what it comes to) into a
//! [`run_dir::RunDir`], whose files `report` sums up at the end.

pub mod atomic_file;
pub mod batches;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod hardware;
pub mod measure;
pub mod metrics;
pub mod metrics_log;
pub mod optimizer;
pub mod plan;
pub mod quantity;
pub mod renderer;
pub mod report;
pub mod run_dir;
pub mod schedule;
pub mod session;
pub mod task;

mod lr;
mod strategy;

pub use error::TrainError;
pub use session::{Display, Session};
pub use strategy::{Ending, StopReason};
