//! What the kernel's account of this process holds: getrusage(2), summed over all threads, ended ones included.
//!
//! `/proc/self/status` has context switches too, but of the main thread alone.

/// The account at one moment, or the difference of two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    pub(crate) user_sec: f64,
    pub(crate) system_sec: f64,
    pub(crate) context_switches: f64,
    pub(crate) page_faults: f64,
}

impl Usage {
    /// The account now; none where the system keeps none.
    #[cfg(unix)]
    pub(crate) fn now() -> Option<Self> {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the pointer is valid for a whole `rusage`, which is all that getrusage writes to.
        let code = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
        if code != 0 {
            return None;
        }
        // SAFETY: `rusage` holds integers alone, for which zeros are valid, and getrusage has filled it.
        let usage = unsafe { usage.assume_init() };
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        Some(Self {
            user_sec: seconds(usage.ru_utime),
            system_sec: seconds(usage.ru_stime),
            context_switches: usage.ru_nvcsw as f64 + usage.ru_nivcsw as f64,
            page_faults: usage.ru_minflt as f64 + usage.ru_majflt as f64,
        })
    }

    /// The account now; none where the system keeps none.
    #[cfg(not(unix))]
    pub(crate) fn now() -> Option<Self> {
        None
    }

    /// What has come to it since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            user_sec: self.user_sec - before.user_sec,
            system_sec: self.system_sec - before.system_sec,
            context_switches: self.context_switches - before.context_switches,
            page_faults: self.page_faults - before.page_faults,
        }
    }
}
