//! The machine, as the operating system describes it.

use std::thread;
use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};

/// What the machine is. Does not change while a run goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// Name of the machine.
    pub hostname: Option<String>,
    /// Operating system with its version.
    pub os: Option<String>,
    /// The processor's name.
    pub cpu: Option<String>,
    /// Processors that this process may run on, hyper-threads included.
    pub cores: usize,
    /// Memory that this process may use: the machine's or, if smaller, its control group's. In bytes.
    pub memory_bytes: u64,
}

impl HostFacts {
    /// Asks the operating system.
    pub fn detect() -> Self {
        let wanted = RefreshKind::nothing()
            .with_memory(MemoryRefreshKind::nothing().with_ram())
            .with_cpu(CpuRefreshKind::nothing());
        let system = System::new_with_specifics(wanted);
        let machine = system.total_memory();
        let cpu = system.cpus().first().map(|cpu| cpu.brand().trim().to_owned());
        Self {
            hostname: System::host_name(),
            os: System::long_os_version(),
            cpu: cpu.filter(|name| !name.is_empty()),
            // Unlike a list of processors, this respects affinity and the control group's quota.
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: system
                .cgroup_limits()
                .map_or(machine, |limits| limits.total_memory.min(machine)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_a_processor_and_memory() {
        let host = HostFacts::detect();
        assert!(host.cores >= 1 && host.memory_bytes > 0, "{host:?}");
    }
}
