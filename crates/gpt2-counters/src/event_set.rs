//! The kernel's performance events of this process, opened for every thread that it has, with those that it starts
//! later.

use crate::counts::{Counter, Source};
#[cfg(not(target_os = "linux"))]
use crate::error::CountersError;
use crate::missing::Missing;
use crate::top_down::RawEvent;
use std::collections::BTreeMap;

/// What was counted, by name.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) events: BTreeMap<String, f64>,
    pub(crate) sources: BTreeMap<String, Source>,
    pub(crate) missing: BTreeMap<String, Missing>,
}

/// What can be asked of the kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    /// One that all processors and kernels have a name for.
    Counter(Counter),
    /// One of this kind of processor.
    Raw(RawEvent),
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Self::Counter(counter) => counter.name(),
            Self::Raw(event) => event.name,
        }
    }
}

#[cfg(target_os = "linux")]
pub(crate) use linux::EventSet;

#[cfg(target_os = "linux")]
mod linux {
    use super::{Event, Read};
    use crate::counts::{Counter, Source};
    use crate::error::CountersError;
    use crate::formulas::unmultiplexed;
    use crate::missing::Missing;
    use crate::permissions::{Permissions, classify};
    use perf_event::events::{Hardware, Raw, Software};
    use perf_event::{Builder, Counter as PerfCounter};
    use std::fs;
    use std::io;
    use std::time::Duration;

    /// Events that can be counted.
    pub(crate) struct EventSet {
        opened: Vec<Opened>,
        refused: Vec<(&'static str, Missing)>,
    }

    /// An event, opened for each thread.
    struct Opened {
        event: Event,
        user_only: bool,
        counters: Vec<PerfCounter>,
        /// What the counters held when they were last stopped.
        before: Sum,
    }

    /// Counters of several threads, summed.
    #[derive(Debug, Clone, Copy, Default)]
    struct Sum {
        count: f64,
        enabled_sec: f64,
        running_sec: f64,
    }

    impl EventSet {
        /// Opens `events` for every thread that the process has. Threads that those start later inherit the counters.
        ///
        /// The list of threads is read once, before the first counter is opened: a thread that starts in between is
        /// either inherited or not counted, but never counted twice.
        pub(crate) fn open(events: &[Event]) -> Self {
            let threads = threads();
            let permissions = Permissions::of_process();
            let (mut opened, mut refused) = (Vec::new(), Vec::new());
            for &event in events {
                match open_for_all(event, &threads, permissions) {
                    Ok(counters) => opened.push(counters),
                    Err(missing) => refused.push((event.name(), missing)),
                }
            }
            Self { opened, refused }
        }

        /// Begins to count.
        pub(crate) fn enable(&mut self) -> Result<(), CountersError> {
            self.for_each("enable", PerfCounter::enable)
        }

        /// Ends counting.
        pub(crate) fn disable(&mut self) -> Result<(), CountersError> {
            self.for_each("disable", PerfCounter::disable)
        }

        fn for_each(
            &mut self,
            action: &'static str,
            act: fn(&mut PerfCounter) -> io::Result<()>,
        ) -> Result<(), CountersError> {
            for Opened { event, counters, .. } in &mut self.opened {
                for counter in counters {
                    act(counter).map_err(|source| CountersError::Counter {
                        action,
                        counter: event.name().to_owned(),
                        source,
                    })?;
                }
            }
            Ok(())
        }

        /// What was counted since the last call.
        pub(crate) fn read(&mut self) -> Result<Read, CountersError> {
            let mut read = Read::default();
            for (name, missing) in &self.refused {
                read.missing.insert((*name).to_owned(), missing.clone());
            }
            for opened in &mut self.opened {
                let name = opened.event.name().to_owned();
                let Sum {
                    count,
                    enabled_sec,
                    running_sec,
                } = opened.since_last().map_err(|source| CountersError::Counter {
                    action: "read",
                    counter: name.clone(),
                    source,
                })?;
                let Some(count) = unmultiplexed(count, enabled_sec, running_sec) else {
                    read.missing.insert(name, Missing::NeverScheduled);
                    continue;
                };
                let source = Source::PerfEvents {
                    user_only: opened.user_only,
                    running: if enabled_sec > 0.0 {
                        running_sec / enabled_sec
                    } else {
                        1.0
                    },
                };
                read.sources.insert(name.clone(), source);
                read.events.insert(name, count * opened.event.unit());
            }
            Ok(read)
        }
    }

    impl Opened {
        fn since_last(&mut self) -> io::Result<Sum> {
            let mut now = Sum::default();
            for counter in &mut self.counters {
                // The kernel adds the threads that have inherited the counter, ended ones included.
                let read = counter.read_full()?;
                let seconds = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64();
                now.count += read.count() as f64;
                now.enabled_sec += seconds(read.time_enabled());
                now.running_sec += seconds(read.time_running());
            }
            let before = std::mem::replace(&mut self.before, now);
            Ok(Sum {
                count: now.count - before.count,
                enabled_sec: now.enabled_sec - before.enabled_sec,
                running_sec: now.running_sec - before.running_sec,
            })
        }
    }

    impl Event {
        fn builder(self) -> Builder<'static> {
            match self {
                Self::Counter(Counter::TaskClock) => Builder::new(Software::TASK_CLOCK),
                Self::Counter(Counter::ContextSwitches) => Builder::new(Software::CONTEXT_SWITCHES),
                Self::Counter(Counter::CpuMigrations) => Builder::new(Software::CPU_MIGRATIONS),
                Self::Counter(Counter::PageFaults) => Builder::new(Software::PAGE_FAULTS),
                Self::Counter(Counter::Cycles) => Builder::new(Hardware::CPU_CYCLES),
                Self::Counter(Counter::Instructions) => Builder::new(Hardware::INSTRUCTIONS),
                Self::Counter(Counter::Branches) => Builder::new(Hardware::BRANCH_INSTRUCTIONS),
                Self::Counter(Counter::BranchMisses) => Builder::new(Hardware::BRANCH_MISSES),
                Self::Raw(event) => Builder::new(Raw::new(event.config)),
            }
        }

        /// What one count of the kernel is in the unit of the name: the task clock counts nanoseconds.
        fn unit(self) -> f64 {
            match self {
                Self::Counter(Counter::TaskClock) => 1e-6,
                _ => 1.0,
            }
        }

        /// Whether the event happens in the kernel alone: without the kernel it would be counted as 0.
        fn is_in_kernel(self) -> bool {
            matches!(self, Self::Counter(Counter::ContextSwitches | Counter::CpuMigrations))
        }
    }

    /// Opens an event for all threads: with the kernel's part where that is allowed, else without it.
    fn open_for_all(event: Event, threads: &[i32], permissions: Permissions) -> Result<Opened, Missing> {
        let (mut counters, mut user_only) = (Vec::new(), false);
        for &thread in threads {
            let mut result = open(event, thread, user_only);
            // All threads are counted alike, as the first one is.
            if counters.is_empty() && !user_only && !event.is_in_kernel() && is_permission(&result) {
                user_only = true;
                result = open(event, thread, user_only);
            }
            match result {
                Ok(counter) => counters.push(counter),
                // It has ended since the list was read.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => return Err(classify(&error, permissions, user_only)),
            }
        }
        Ok(Opened {
            event,
            // The task clock runs in the kernel too, whatever else is left out.
            user_only: user_only && !matches!(event, Event::Counter(Counter::TaskClock)),
            counters,
            before: Sum::default(),
        })
    }

    fn is_permission(result: &io::Result<PerfCounter>) -> bool {
        let errno = result.as_ref().err().and_then(io::Error::raw_os_error);
        matches!(errno, Some(libc::EACCES | libc::EPERM))
    }

    fn open(event: Event, thread: i32, user_only: bool) -> io::Result<PerfCounter> {
        event
            .builder()
            .observe_pid(thread)
            .any_cpu()
            .inherit(true)
            .enabled(false)
            .exclude_kernel(user_only)
            .exclude_hv(user_only)
            .build()
    }

    /// The ids of the threads of this process; where they cannot be listed, that of the calling one.
    fn threads() -> Vec<i32> {
        let listed = |entries: fs::ReadDir| {
            entries
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
                .collect::<Vec<i32>>()
        };
        let threads = fs::read_dir("/proc/self/task").map(listed).unwrap_or_default();
        // perf_event_open(2): 0 is the calling thread.
        if threads.is_empty() { vec![0] } else { threads }
    }
}

/// A system without performance events.
#[cfg(not(target_os = "linux"))]
pub(crate) struct EventSet(Vec<&'static str>);

#[cfg(not(target_os = "linux"))]
impl EventSet {
    pub(crate) fn open(events: &[Event]) -> Self {
        Self(events.iter().map(|event| event.name()).collect())
    }

    #[allow(clippy::unnecessary_wraps, clippy::unused_self)]
    pub(crate) fn enable(&mut self) -> Result<(), CountersError> {
        Ok(())
    }

    #[allow(clippy::unnecessary_wraps, clippy::unused_self)]
    pub(crate) fn disable(&mut self) -> Result<(), CountersError> {
        Ok(())
    }

    #[allow(clippy::unnecessary_wraps)]
    pub(crate) fn read(&mut self) -> Result<Read, CountersError> {
        let missing = self.0.iter().map(|&name| (name.to_owned(), Missing::NotOnThisSystem));
        Ok(Read {
            missing: missing.collect(),
            ..Read::default()
        })
    }
}
