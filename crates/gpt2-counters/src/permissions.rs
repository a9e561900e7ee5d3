//! Who may count what: the kernel's setting, a container's filter, and what `perf_event_open` answers under them.

use crate::missing::{Missing, PARANOID};
use std::io;

/// What decides whether counters may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permissions {
    /// The kernel's setting; none where there is no such file.
    pub(crate) paranoid: Option<i32>,
    /// Whether a seccomp filter holds for this process.
    pub(crate) seccomp_filter: bool,
}

impl Permissions {
    /// Those of this process.
    pub(crate) fn of_process() -> Self {
        let paranoid = std::fs::read_to_string(PARANOID).ok();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            paranoid: paranoid.and_then(|text| text.trim().parse().ok()),
            seccomp_filter: has_seccomp_filter(&status),
        }
    }
}

/// Reads `/proc/self/status`: mode 2 of `Seccomp` is a filter (proc_pid_status(5)).
fn has_seccomp_filter(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"))
        .is_some_and(|mode| mode.trim() == "2")
}

/// Why `perf_event_open` refused a counter. `user_only` says whether the kernel was left out of the count.
///
/// Levels of the setting (`Documentation/admin-guide/sysctl/kernel.rst`): up to 1 an ordinary user may count the kernel
/// too, up to 2 their own user space. Debian and Ubuntu add higher ones, which allow nothing.
pub(crate) fn classify(error: &io::Error, permissions: Permissions, user_only: bool) -> Missing {
    let at_most = if user_only { 2 } else { 1 };
    match error.raw_os_error() {
        // A filter answers EPERM or ENOSYS, the setting EACCES.
        Some(libc::EPERM | libc::ENOSYS) if permissions.seccomp_filter => Missing::Seccomp,
        Some(libc::EACCES | libc::EPERM) => match permissions.paranoid {
            Some(paranoid) if paranoid > at_most => Missing::NoPermission { paranoid, at_most },
            _ => other(error),
        },
        Some(libc::ENOSYS) => Missing::NotInKernel,
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::ENODEV) => Missing::NoPmu,
        Some(libc::EMFILE | libc::ENFILE) => Missing::TooManyFiles,
        _ => other(error),
    }
}

fn other(error: &io::Error) -> Missing {
    Missing::Other {
        error: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: i32, paranoid: Option<i32>, seccomp_filter: bool, user_only: bool) -> Missing {
        let permissions = Permissions {
            paranoid,
            seccomp_filter,
        };
        classify(&io::Error::from_raw_os_error(errno), permissions, user_only)
    }

    #[test]
    fn the_setting_is_named_with_the_command_that_changes_it() {
        let missing = refused(libc::EACCES, Some(2), false, false);
        assert_eq!(
            missing.to_string(),
            "no permission: /proc/sys/kernel/perf_event_paranoid is 2, expected at most 1; \
             `sudo sysctl kernel.perf_event_paranoid=1` changes it"
        );
        // Debian's and Ubuntu's levels refuse user space too.
        let user = refused(libc::EPERM, Some(4), false, true);
        assert_eq!(
            user,
            Missing::NoPermission {
                paranoid: 4,
                at_most: 2
            }
        );
        assert!(matches!(
            refused(libc::EACCES, Some(3), true, true),
            Missing::NoPermission { .. }
        ));
    }

    #[test]
    fn a_filter_is_told_from_a_setting() {
        assert_eq!(refused(libc::EPERM, Some(1), true, false), Missing::Seccomp);
        assert_eq!(refused(libc::ENOSYS, None, true, false), Missing::Seccomp);
        assert_eq!(refused(libc::ENOSYS, None, false, false), Missing::NotInKernel);
        assert!(matches!(
            refused(libc::EPERM, Some(-1), false, true),
            Missing::Other { .. }
        ));
        assert!(has_seccomp_filter("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
        assert!(!has_seccomp_filter("Seccomp:\t0\nSeccomp_filters:\t2\n"));
    }

    #[test]
    fn a_machine_without_a_pmu_is_recognised() {
        for errno in [libc::ENOENT, libc::EOPNOTSUPP, libc::ENODEV] {
            assert_eq!(refused(errno, Some(2), false, false), Missing::NoPmu);
        }
        assert_eq!(refused(libc::EMFILE, Some(2), false, false), Missing::TooManyFiles);
    }
}
