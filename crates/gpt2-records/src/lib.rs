//! What a run or a study leaves behind, as its files hold it. Whoever reads them, a report or another program, needs neither
//! the trainer nor a backend.

mod derive;
mod epoch;
mod scheduler;
mod step;
mod study;
mod training_metrics;
mod warmup;

pub use epoch::{Epoch, steady_steps, tokens_per_sec, warmup_steps};
pub use scheduler::{Scheduler, recorded_variables};
pub use step::{DamagedRecord, RankStep, StepRecord, complete_lines};
pub use study::*;
pub use training_metrics::*;
pub use warmup::{Settled, settled};
