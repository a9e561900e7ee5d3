//! The memory of this process, as the operating system counts it.

use std::fs;

/// Memory of this process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostMemory {
    /// Resident now (`VmRSS`).
    pub resident: Option<u64>,
    /// The most that has been resident (`VmHWM`).
    pub peak: Option<u64>,
}

impl HostMemory {
    /// Reads both from `/proc/self/status`; none on systems that have no such file.
    pub fn now() -> Self {
        fs::read_to_string("/proc/self/status")
            .map(|status| Self::parse(&status))
            .unwrap_or_default()
    }

    fn parse(status: &str) -> Self {
        Self {
            resident: kib_field(status, "VmRSS:"),
            peak: kib_field(status, "VmHWM:"),
        }
    }
}

/// A line such as `VmHWM:     3328 kB` (proc(5); the unit is 1,024 bytes).
fn kib_field(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_file_is_read() {
        let memory = HostMemory::parse("Name:\tgpt2\nVmPeak:\t  9 kB\nVmHWM:\t    3328 kB\nVmRSS:\t    1024 kB\n");
        assert_eq!(
            memory,
            HostMemory {
                resident: Some(1 << 20),
                peak: Some(3328 << 10)
            }
        );
        assert_eq!(HostMemory::parse("VmHWM: many kB\n"), HostMemory::default());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_is_at_least_what_is_resident() {
        let memory = HostMemory::now();
        assert!(
            memory.resident.unwrap() > 0 && memory.peak >= memory.resident,
            "{memory:?}"
        );
    }
}
