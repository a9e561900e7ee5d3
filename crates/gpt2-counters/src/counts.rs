//! What was counted, where each count comes from, and what is missing.

use crate::formulas;
use crate::missing::Missing;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The counters that every source is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// Milliseconds of processor time, over all threads.
    TaskClock,
    /// Times that a thread was taken from its processor, or gave it up.
    ContextSwitches,
    /// Times that a thread went on on another processor.
    CpuMigrations,
    /// Accesses to pages that had to be mapped first.
    PageFaults,
    /// Cycles of the processors.
    Cycles,
    /// Retired instructions.
    Instructions,
    /// Retired branches.
    Branches,
    /// Of those, mispredicted ones.
    BranchMisses,
}

impl Counter {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::TaskClock,
        Self::ContextSwitches,
        Self::CpuMigrations,
        Self::PageFaults,
        Self::Cycles,
        Self::Instructions,
        Self::Branches,
        Self::BranchMisses,
    ];

    /// The name that its count has in [`Counts::events`] and [`Counts::named`].
    pub fn name(self) -> &'static str {
        match self {
            Self::TaskClock => "task_clock_ms",
            Self::ContextSwitches => "context_switches",
            Self::CpuMigrations => "cpu_migrations",
            Self::PageFaults => "page_faults",
            Self::Cycles => "cycles",
            Self::Instructions => "instructions",
            Self::Branches => "branches",
            Self::BranchMisses => "branch_misses",
        }
    }
}

/// Where a count comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Source {
    /// The kernel's performance events.
    PerfEvents {
        /// Whether the kernel's own part is not in the count.
        user_only: bool,
        /// Share of the time in which it was counted; the count is scaled to the whole time. 1 unless events shared a
        /// hardware counter.
        running: f64,
    },
    /// The kernel's account of the process, getrusage(2).
    Rusage {
        /// Why not a performance event.
        because: Missing,
    },
}

/// What was counted around a piece of work.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Wall time.
    pub elapsed_sec: f64,
    /// Processor time in user space, over all threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_sec: Option<f64>,
    /// Processor time in the kernel, over all threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_sec: Option<f64>,
    /// Raw counts by name: those of [`Counter`], and a processor's own events in `perf`'s spelling, in small letters.
    #[serde(default)]
    pub events: BTreeMap<String, f64>,
    /// Where counts come from, by name; nothing for those of a recording that does not say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, Source>,
    /// What was asked for and cannot be counted, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub missing: BTreeMap<String, Missing>,
}

impl Counts {
    /// The raw count of a counter, if there is one.
    pub fn get(&self, counter: Counter) -> Option<f64> {
        self.events.get(counter.name()).copied()
    }

    /// Adds the counts of another piece of work. What is not in both is in neither.
    pub fn add(&mut self, other: &Self) {
        self.elapsed_sec += other.elapsed_sec;
        self.user_sec = self.user_sec.zip(other.user_sec).map(|(a, b)| a + b);
        self.system_sec = self.system_sec.zip(other.system_sec).map(|(a, b)| a + b);
        self.events.retain(|name, count| {
            let more = other.events.get(name);
            *count += more.unwrap_or(&0.0);
            more.is_some()
        });
        self.sources.retain(|name, _| self.events.contains_key(name));
        for (name, missing) in &other.missing {
            self.missing.entry(name.clone()).or_insert_with(|| missing.clone());
        }
    }

    /// Counts and what follows from them, by names that do not change, with the unit. What is missing is left out.
    pub fn named(&self) -> BTreeMap<String, f64> {
        let clock = self.get(Counter::TaskClock);
        let rate = |counter| formulas::per_second(self.get(counter)?, clock?);
        let derived = [
            ("elapsed_sec", Some(self.elapsed_sec)),
            ("user_sec", self.user_sec),
            ("system_sec", self.system_sec),
            (
                "cpus_used",
                clock.and_then(|clock| formulas::cpus_used(clock, self.elapsed_sec)),
            ),
            ("context_switches_per_sec", rate(Counter::ContextSwitches)),
            ("cpu_migrations_per_sec", rate(Counter::CpuMigrations)),
            ("page_faults_per_sec", rate(Counter::PageFaults)),
            ("branches_per_sec", rate(Counter::Branches)),
            ("ghz", self.both(Counter::Cycles, Counter::TaskClock, formulas::ghz)),
            ("ipc", self.both(Counter::Instructions, Counter::Cycles, formulas::ipc)),
            (
                "branch_miss_share",
                self.both(Counter::BranchMisses, Counter::Branches, formulas::branch_miss_share),
            ),
        ];
        let derived = derived
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        self.events
            .iter()
            .map(|(name, &count)| (name.clone(), count))
            .chain(derived)
            .collect()
    }

    fn both(&self, a: Counter, b: Counter, formula: fn(f64, f64) -> Option<f64>) -> Option<f64> {
        formula(self.get(a)?, self.get(b)?)
    }

    /// What a reader of the counts must know, a line each: what is missing and why, what comes from elsewhere than the
    /// performance events, what leaves the kernel out, and what was scaled.
    pub fn notes(&self) -> Vec<String> {
        let missing = self.missing.iter().map(|(name, missing)| (name, missing.to_string()));
        let mut notes = grouped(missing, |names, why| format!("not counted: {names}: {why}"));
        let from = |pick: fn(&Source) -> Option<String>| {
            self.sources
                .iter()
                .filter_map(move |(name, source)| Some((name, pick(source)?)))
        };
        let rusage = from(|source| match source {
            Source::Rusage { because } => Some(because.to_string()),
            Source::PerfEvents { .. } => None,
        });
        notes.extend(grouped(rusage, |names, why| {
            format!("from getrusage instead of performance events: {names}: {why}")
        }));
        let user_only = from(|source| matches!(source, Source::PerfEvents { user_only: true, .. }).then(String::new));
        notes.extend(grouped(user_only, |names, _| {
            format!("without the kernel's part, which this user may not count: {names}")
        }));
        let scaled = from(|source| match source {
            Source::PerfEvents { running, .. } if *running < 0.9995 => Some(format!("{:.0}", running * 100.0)),
            _ => None,
        });
        notes.extend(grouped(scaled, |names, percent| {
            format!("counted {percent} % of the time and scaled: {names}")
        }));
        notes
    }
}

/// A line for each text, with the names that have it.
fn grouped<'a>(items: impl Iterator<Item = (&'a String, String)>, line: impl Fn(&str, &str) -> String) -> Vec<String> {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for (name, text) in items {
        match groups.iter_mut().find(|(known, _)| *known == text) {
            Some((_, names)) => names.push(name),
            None => groups.push((text, vec![name])),
        }
    }
    groups
        .iter()
        .map(|(text, names)| line(&names.join(", "), text))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `perf stat` of GPT-2 trained on one thread, from a published report.
    pub(crate) fn published() -> Counts {
        Counts {
            elapsed_sec: 708.374_812_244,
            user_sec: Some(706.835_405),
            system_sec: Some(1.274_672),
            events: [
                (Counter::TaskClock, 708_147.03),
                (Counter::ContextSwitches, 13_372.0),
                (Counter::CpuMigrations, 297.0),
                (Counter::PageFaults, 873_210.0),
                (Counter::Cycles, 2_828_715_460_760.0),
                (Counter::Instructions, 3_450_675_515_172.0),
                (Counter::Branches, 459_440_125_539.0),
                (Counter::BranchMisses, 3_699_080_215.0),
            ]
            .map(|(counter, count)| (counter.name().to_owned(), count))
            .into(),
            ..Counts::default()
        }
    }

    #[test]
    fn what_follows_is_what_the_report_prints() {
        let named = published().named();
        for (name, decimals, expected) in [
            ("cpus_used", 3, "1.000"),
            ("context_switches_per_sec", 3, "18.883"),
            ("cpu_migrations_per_sec", 3, "0.419"),
            ("ghz", 3, "3.995"),
            ("ipc", 2, "1.22"),
        ] {
            assert_eq!(format!("{:.decimals$}", named[name]), expected, "{name}");
        }
        assert_eq!(format!("{:.3}", named["page_faults_per_sec"] / 1e3), "1.233");
        assert_eq!(format!("{:.3}", named["branches_per_sec"] / 1e6), "648.792");
        // The report prints 0.81 %.
        assert_eq!(format!("{:.2}", named["branch_miss_share"] * 100.0), "0.81");
        assert_eq!(
            format!("{} {}", named["user_sec"], named["system_sec"]),
            "706.835405 1.274672"
        );
    }

    #[test]
    fn the_names_do_not_change() {
        let names: Vec<_> = published().named().into_keys().collect();
        assert_eq!(
            names,
            [
                "branch_miss_share",
                "branch_misses",
                "branches",
                "branches_per_sec",
                "context_switches",
                "context_switches_per_sec",
                "cpu_migrations",
                "cpu_migrations_per_sec",
                "cpus_used",
                "cycles",
                "elapsed_sec",
                "ghz",
                "instructions",
                "ipc",
                "page_faults",
                "page_faults_per_sec",
                "system_sec",
                "task_clock_ms",
                "user_sec",
            ]
        );
    }

    #[test]
    fn what_is_missing_is_left_out_with_what_follows_from_it() {
        let mut counts = published();
        counts.events.remove("cycles");
        let named = counts.named();
        assert!(!named.contains_key("ipc") && !named.contains_key("ghz") && named.contains_key("branches_per_sec"));
        assert_eq!(
            Counts::default().named(),
            BTreeMap::from([("elapsed_sec".to_owned(), 0.0)])
        );
    }

    #[test]
    fn a_sum_has_what_both_have() {
        let mut sum = published();
        let mut other = published();
        other.events.remove("cycles");
        other.system_sec = None;
        other.missing.insert("cycles".to_owned(), Missing::NeverScheduled);
        sum.add(&other);
        assert_eq!(sum.get(Counter::ContextSwitches), Some(2.0 * 13_372.0));
        assert_eq!((sum.get(Counter::Cycles), sum.system_sec), (None, None));
        assert_eq!(sum.user_sec, Some(2.0 * 706.835_405));
        assert_eq!(sum.missing["cycles"], Missing::NeverScheduled);
    }

    #[test]
    fn counters_with_the_same_reason_share_a_line() {
        let perf = |user_only, running| Source::PerfEvents { user_only, running };
        let counts = Counts {
            sources: [
                ("branches", perf(true, 0.43)),
                ("cycles", perf(true, 0.43)),
                ("page_faults", perf(false, 1.0)),
                (
                    "task_clock_ms",
                    Source::Rusage {
                        because: Missing::Seccomp,
                    },
                ),
            ]
            .map(|(name, source)| (name.to_owned(), source))
            .into(),
            missing: [("instructions", Missing::NoPmu), ("slots", Missing::NoPmu)]
                .map(|(name, missing)| (name.to_owned(), missing))
                .into(),
            ..Counts::default()
        };
        let notes = counts.notes();
        let starts = [
            "not counted: instructions, slots: this machine offers no such hardware counter",
            "from getrusage instead of performance events: task_clock_ms: the system call perf_event_open is refused",
            "without the kernel's part, which this user may not count: branches, cycles",
            "counted 43 % of the time and scaled: branches, cycles",
        ];
        assert_eq!(notes.len(), starts.len(), "{notes:?}");
        for (note, start) in notes.iter().zip(starts) {
            assert!(note.starts_with(start), "{note}");
        }
        assert_eq!(published().notes(), Vec::<String>::new());
    }
}
