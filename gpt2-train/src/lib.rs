//! Training GPT-2: the run's configuration and plan, its directory, the step loop and the reports.
//!
//! A run goes from [`config::RunConfig`] (what was written) through [`plan::RunPlan`] (what it comes to) and [`launch`]
//! into the step loop and a [`run_dir::RunDir`], whose files [`report`] sums up at the end.

pub mod announcement;
pub mod batches;
pub mod checkpoint;
pub mod config;
pub mod data_source;
pub mod error;
pub mod evaluate;
pub mod group;
pub mod hardware;
pub mod launch;
pub mod observer;
pub mod optimizer;
pub mod plan;
pub mod rank_log;
pub mod report;
pub mod run_dir;
pub mod sample;
pub mod schedule;
pub mod step_log;
pub mod stop;
pub mod terminal;

mod checkpoint_writer;
mod gradients;
mod learner;
mod ranks;
mod step_loop;
mod tasks;
mod tensorboard;

pub use checkpoint_writer::wait_for_checkpoints;
pub use error::TrainError;
pub use launch::Launch;
pub use learner::{dashboard_is_shown, restore_terminal};
pub use step_loop::Outcome;
pub use stop::StopReason;

#[cfg(test)]
mod tests {
    use gpt2_model::Gpt2Config;

    /// A model that takes no time.
    pub(crate) fn tiny_config(n_layer: usize) -> Gpt2Config {
        Gpt2Config {
            n_layer,
            n_head: 1,
            n_embd: 8,
            block_size: 8,
            ..Gpt2Config::preset("d3").unwrap()
        }
    }
}
