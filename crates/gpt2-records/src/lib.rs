//! What a run or a study leaves behind, as its files hold it. Whoever reads them, a report or another program, needs neither
//! the trainer nor a backend.

mod breakdown;
mod derive;
mod epoch;
mod scheduler;
mod step;
mod study;
mod training_metrics;
mod warmup;

pub use breakdown::{Breakdown, RankTimes, StepTimes};
pub use epoch::{Epoch, breakdown, steady_steps, step_times, tokens_per_sec, warmup_steps};
pub use scheduler::{Scheduler, recorded_variables};
pub use step::{DamagedRecord, RankStep, StepRecord, complete_lines, complete_records};
pub use study::*;
pub use training_metrics::*;
pub use warmup::{Settled, settled};
