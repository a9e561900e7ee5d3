//! Why a counter is missing.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Where the kernel says what ordinary users may count.
pub(crate) const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// Why a counter is missing. Its text is one line, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Missing {
    /// The kernel's setting does not allow it to this user.
    NoPermission {
        /// The setting's value.
        paranoid: i32,
        /// The highest that would do.
        at_most: i32,
    },
    /// The processor has no such counter, or it is hidden from this virtual machine.
    NoPmu,
    /// A filter of system calls is in the way.
    Seccomp,
    /// The kernel was built without performance events.
    NotInKernel,
    /// The process may not open as many files as there are threads and counters.
    TooManyFiles,
    /// The processor's counters were taken by others all the time.
    NeverScheduled,
    /// This operating system tells no such count.
    NotOnThisSystem,
    /// Any other error.
    Other {
        /// What the operating system said.
        error: String,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPermission { paranoid, at_most } => write!(
                f,
                "no permission: {PARANOID} is {paranoid}, expected at most {at_most}; \
                 `sudo sysctl kernel.perf_event_paranoid={at_most}` changes it"
            ),
            Self::NoPmu => f.write_str(
                "this machine offers no such hardware counter, as most virtual machines; run on the bare machine, or \
                 on a virtual one with a virtual PMU",
            ),
            Self::Seccomp => f.write_str(
                "the system call perf_event_open is refused by a seccomp filter, as in most containers; start the \
                 container with `--security-opt seccomp=unconfined` or `--cap-add PERFMON`",
            ),
            Self::NotInKernel => {
                f.write_str("the kernel has no performance events; use one built with CONFIG_PERF_EVENTS")
            }
            Self::TooManyFiles => f.write_str(
                "too many open files, one is needed for each counter and thread; raise the limit with `ulimit -n`",
            ),
            Self::NeverScheduled => {
                f.write_str("the processor's counters were in use by others all the time; stop other profilers")
            }
            Self::NotOnThisSystem => f.write_str("this operating system has no such counter; use Linux"),
            Self::Other { error } => write!(f, "perf_event_open failed: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_one_line_and_survives_the_file() {
        for missing in [
            Missing::NoPermission {
                paranoid: 3,
                at_most: 1,
            },
            Missing::NoPmu,
            Missing::Seccomp,
            Missing::NotInKernel,
            Missing::TooManyFiles,
            Missing::NeverScheduled,
            Missing::NotOnThisSystem,
            Missing::Other { error: "x".to_owned() },
        ] {
            assert!(!missing.to_string().contains('\n') && !missing.to_string().is_empty());
            let json = serde_json::to_string(&missing).unwrap();
            assert_eq!(serde_json::from_str::<Missing>(&json).unwrap(), missing);
        }
    }
}
