//! Counters of this process, as its operating system keeps them.

use crate::counts::{Counter, Counts, Source};
use crate::error::CountersError;
use crate::event_set::{Event, EventSet, Read};
use crate::source::CounterSource;
use crate::top_down::RawEvent;
use crate::usage::Usage;
use std::time::Instant;

/// Counters of this process and all its threads: those that it has when this is made, and all that start later.
///
/// On Linux these are the kernel's performance events, with user and system time from getrusage(2). A software counter
/// that the kernel refuses is taken from getrusage where that has it; [`Counts::sources`] and [`Counts::notes`] say so.
/// Other systems have getrusage, or wall time alone.
pub struct PerfEvents {
    events: EventSet,
    running: Option<Running>,
}

struct Running {
    usage: Option<Usage>,
    began: Instant,
}

impl PerfEvents {
    /// Opens every [`Counter`] that the kernel allows.
    pub fn new() -> Self {
        Self::with_raw_events(&[])
    }

    /// Opens a processor's own events too, such as [`top_down::events`](crate::top_down::events) of this one.
    pub fn with_raw_events(raw: &[RawEvent]) -> Self {
        let known = Counter::ALL.map(Event::Counter);
        let raw = raw.iter().copied().map(Event::Raw);
        Self {
            events: EventSet::open(&known.into_iter().chain(raw).collect::<Vec<_>>()),
            running: None,
        }
    }
}

impl Default for PerfEvents {
    fn default() -> Self {
        Self::new()
    }
}

impl CounterSource for PerfEvents {
    fn describe(&self) -> String {
        "this process and its threads".to_owned()
    }

    fn start(&mut self) -> Result<(), CountersError> {
        if self.running.is_some() {
            return Err(CountersError::AlreadyStarted);
        }
        self.events.enable()?;
        self.running = Some(Running {
            usage: Usage::now(),
            began: Instant::now(),
        });
        Ok(())
    }

    fn stop(&mut self) -> Result<Counts, CountersError> {
        let Running { usage, began } = self.running.take().ok_or(CountersError::NotStarted)?;
        let elapsed_sec = began.elapsed().as_secs_f64();
        self.events.disable()?;
        let usage = usage.zip(Usage::now()).map(|(before, now)| now.since(before));
        let mut read = self.events.read()?;
        if let Some(usage) = usage {
            fill_from_usage(&mut read, usage);
        }
        Ok(Counts {
            elapsed_sec,
            user_sec: usage.map(|usage| usage.user_sec),
            system_sec: usage.map(|usage| usage.system_sec),
            events: read.events,
            sources: read.sources,
            missing: read.missing,
        })
    }
}

/// Puts the process's account in the place of software counters that are missing.
fn fill_from_usage(read: &mut Read, usage: Usage) {
    let known = [
        (Counter::TaskClock, (usage.user_sec + usage.system_sec) * 1e3),
        (Counter::ContextSwitches, usage.context_switches),
        (Counter::PageFaults, usage.page_faults),
    ];
    for (counter, count) in known {
        if let Some(because) = read.missing.remove(counter.name()) {
            let name = counter.name().to_owned();
            read.sources.insert(name.clone(), Source::Rusage { because });
            read.events.insert(name, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count;
    use crate::missing::Missing;
    use std::hint::black_box;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    /// Keeps a processor busy for 50 ms, and touches `pages` pages of memory.
    fn work(pages: usize) -> u64 {
        let memory = vec![1_u8; pages * 4096];
        let began = Instant::now();
        let mut sum = 0_u64;
        while began.elapsed() < Duration::from_millis(50) {
            for i in 0..10_000_u64 {
                sum = black_box(sum.wrapping_mul(31).wrapping_add(i));
            }
        }
        sum + u64::from(black_box(&memory)[memory.len() / 2])
    }

    #[test]
    fn start_and_stop_come_in_pairs() {
        let mut counters = PerfEvents::new();
        assert!(matches!(counters.stop(), Err(CountersError::NotStarted)));
        counters.start().unwrap();
        assert!(matches!(counters.start(), Err(CountersError::AlreadyStarted)));
        counters.stop().unwrap();
        counters.start().unwrap();
        counters.stop().unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn software_counters_count_on_this_machine() {
        let (_, counts) = count(&mut PerfEvents::new(), || work(2000)).unwrap();
        println!("{:#?}\n{:#?}", counts.named(), counts.notes());
        assert!(counts.elapsed_sec >= 0.05);
        assert!(counts.get(Counter::TaskClock).unwrap() > 10.0);
        assert!(counts.get(Counter::PageFaults).unwrap() > 0.0);
        assert!(counts.user_sec.unwrap() + counts.system_sec.unwrap() > 0.01);
        // What is not counted has its reason.
        for counter in Counter::ALL {
            let name = counter.name();
            let (counted, missing) = (counts.events.contains_key(name), counts.missing.contains_key(name));
            assert!(counted != missing, "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn threads_are_counted_whenever_they_start() {
        let worker = || {
            let (go, wait) = channel::<()>();
            let thread = thread::spawn(move || {
                wait.recv().unwrap();
                work(1)
            });
            (go, thread)
        };
        // Before the counters are opened, before they are started, and after.
        let before = worker();
        let mut counters = PerfEvents::new();
        let between = worker();
        counters.start().unwrap();
        let workers = [before, between, worker()];
        for (go, thread) in workers {
            go.send(()).unwrap();
            // This thread sleeps meanwhile.
            thread.join().unwrap();
            let counts = counters.stop().unwrap();
            let clock = counts.get(Counter::TaskClock).unwrap();
            // The machine may be busy with other work.
            assert!(clock > 5.0, "{clock} ms");
            assert!(
                counts
                    .get(Counter::ContextSwitches)
                    .is_none_or(|switches| switches >= 1.0)
            );
            counters.start().unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_happens_while_stopped_is_not_counted() {
        let mut counters = PerfEvents::new();
        counters.start().unwrap();
        counters.stop().unwrap();
        work(1);
        let ((), counts) = count(&mut counters, || ()).unwrap();
        assert!(counts.get(Counter::TaskClock).unwrap() < 40.0, "{counts:?}");
    }

    #[test]
    fn refused_software_counters_are_replaced_openly() {
        let mut read = Read::default();
        for counter in Counter::ALL {
            read.missing.insert(counter.name().to_owned(), Missing::Seccomp);
        }
        let usage = Usage {
            user_sec: 2.0,
            system_sec: 0.5,
            context_switches: 7.0,
            page_faults: 9.0,
        };
        fill_from_usage(&mut read, usage);
        let counts = read.events.iter().map(|(name, &count)| (name.as_str(), count));
        assert_eq!(
            counts.collect::<Vec<_>>(),
            [
                ("context_switches", 7.0),
                ("page_faults", 9.0),
                ("task_clock_ms", 2500.0)
            ]
        );
        let source = Source::Rusage {
            because: Missing::Seccomp,
        };
        assert_eq!(read.sources["page_faults"], source);
        // Nothing but performance events counts migrations and cycles.
        assert!(read.missing.contains_key("cpu_migrations") && read.missing.contains_key("cycles"));
        assert_eq!(read.missing.len(), 5);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_event_that_no_processor_has_is_missing_with_a_reason() {
        let nothing = RawEvent {
            name: "no.such.event",
            config: u64::MAX,
        };
        let ((), counts) = count(&mut PerfEvents::with_raw_events(&[nothing]), || ()).unwrap();
        assert!(!counts.events.contains_key("no.such.event"));
        assert!(counts.missing.contains_key("no.such.event"), "{:?}", counts.missing);
    }
}
