//! What can go wrong with counters.

use std::io;
use std::path::PathBuf;

/// An error of this crate. Each message is one line: what was found, what was expected and the fix.
#[derive(Debug, thiserror::Error)]
pub enum CountersError {
    /// Counting was stopped before it was started.
    #[error("counters were stopped without a start; call `start` first")]
    NotStarted,
    /// Counting was started twice.
    #[error("counters were started twice; call `stop` first")]
    AlreadyStarted,
    /// A counter that was opened cannot be used.
    #[error("cannot {action} counter `{counter}`: {source}")]
    Counter {
        /// What was tried: `enable`, `disable` or `read`.
        action: &'static str,
        /// The counter.
        counter: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A recording could not be read or written.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A recording is not the JSON of one.
    #[error("{path}: not a recording of counters: {source}", path = path.display())]
    NotARecording {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line.
        #[source]
        source: serde_json::Error,
    },
    /// A recording is of another version.
    #[error("{path}: `version` is {found}, expected {expected}; record it again", path = path.display())]
    RecordingVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that is read.
        expected: u32,
    },
    /// A recorded value cannot be a count or a time.
    #[error("{path}: measurement {measurement}: `{name}` is {value}, expected {expected}", path = path.display())]
    InvalidValue {
        /// The file.
        path: PathBuf,
        /// Which measurement, from 1.
        measurement: usize,
        /// The name of the value.
        name: String,
        /// The value.
        value: f64,
        /// What would be right.
        expected: &'static str,
    },
    /// More is asked of a recording than it holds.
    #[error(
        "{path}: measurement {next} was asked for, expected at most {held}; record more, or measure less",
        path = path.display()
    )]
    RecordingExhausted {
        /// The file.
        path: PathBuf,
        /// Which measurement was asked for, from 1.
        next: usize,
        /// How many there are.
        held: usize,
    },
    /// A line of `perf stat` cannot be read.
    #[error("{path}:{line}: not a line of `perf stat -x,` or `perf stat -j`: {reason}", path = path.display())]
    PerfStat {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was found and what was expected.
        reason: String,
    },
    /// The output of `perf stat` does not tell how long it counted.
    #[error(
        "{path}: no `duration_time`; add `-e duration_time,user_time,system_time` to `perf stat`",
        path = path.display()
    )]
    NoDuration {
        /// The file.
        path: PathBuf,
    },
    /// The counts hold the events of no known top-down method.
    #[error(
        "no top-down events among the counts, expected `topdown-retiring` (Intel since Ice Lake), `uops_issued.any` \
         (Intel before) or `ex_ret_ops` (AMD Zen 4)"
    )]
    NoTopDownEvents,
    /// An event that a top-down formula needs was not counted.
    #[error("top-down metrics need `{event}`, which was not counted; count it with the others")]
    TopDownEventMissing {
        /// The event.
        event: &'static str,
    },
    /// The counts of a top-down formula do not belong together.
    #[error("top-down metrics: {what} is {found:.3}, expected {expected}; count all events around the same work")]
    TopDownInconsistent {
        /// Which share or sum.
        what: &'static str,
        /// Its value.
        found: f64,
        /// What would be right.
        expected: &'static str,
    },
}
