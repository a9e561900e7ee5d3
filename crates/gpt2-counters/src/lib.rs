//! Counters of the operating system and the processor around a piece of work.
//!
//! [`CounterSource`] is the one way to count. [`PerfEvents`] asks the kernel about this process; [`RecordedCounters`]
//! reads what was counted elsewhere from a file. What a machine refuses to count is left out of [`Counts`] with its
//! reason. Nothing here decides what is worth counting, or prints.
//!
//! ```
//! use gpt2_counters::{PerfEvents, count};
//!
//! let (sum, counts) = count(&mut PerfEvents::new(), || (0..1_000_u64).sum::<u64>())?;
//! assert_eq!(sum, 499_500);
//! assert!(counts.named()["elapsed_sec"] > 0.0);
//! for line in counts.notes() {
//!     println!("{line}");
//! }
//! # Ok::<(), gpt2_counters::CountersError>(())
//! ```

mod counts;
mod error;
mod event_set;
pub mod formulas;
mod missing;
mod perf_events;
mod perf_stat;
#[cfg(any(target_os = "linux", all(test, unix)))]
mod permissions;
mod recording;
mod source;
pub mod top_down;
mod usage;

pub use counts::{Counter, Counts, Source};
pub use error::CountersError;
pub use missing::Missing;
pub use perf_events::PerfEvents;
pub use recording::{Measurement, RECORDING_VERSION, RecordedCounters, Recording};
pub use source::{CounterSource, Total, count};
pub use top_down::{RawEvent, top_down};
