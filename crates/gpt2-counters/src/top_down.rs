//! Top-down metrics: the share of a processor's pipeline slots that kept work, threw it away, were left empty by the
//! front end, or waited for the back end (A. Yasin, "A Top-Down method for performance analysis and counters
//! architecture", ISPASS 2014).
//!
//! The formulas are those of the metric files of Linux's `perf` (`tools/perf/pmu-events/arch/x86`), which Intel and AMD
//! write. Events are named as there, in small letters.

use crate::counts::{Counter, Counts};
use crate::error::CountersError;
use crate::formulas::ratio;
use gpt2_records::TopDownSlots;

/// How far the shares of counts that belong together may lie outside of 0 to 1, and their sum from 1: events that share
/// hardware counters are estimated.
const TOLERANCE: f64 = 0.05;

/// Slots that Intel's cores before Ice Lake have in a cycle.
const INTEL_CLASSIC_WIDTH: f64 = 4.0;

/// Operations that Zen 4 dispatches in a cycle (`total_dispatch_slots` in `amdzen4/pipeline.json`; AMD, "Processor
/// Programming Reference for Family 19h Model 11h", "Pipeline Utilization").
const ZEN4_WIDTH: f64 = 6.0;

/// An event of one kind of processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawEvent {
    /// Its name in `perf`, in small letters.
    pub name: &'static str,
    /// What `perf_event_attr.config` holds for it, with the type `PERF_TYPE_RAW`.
    pub config: u64,
}

impl RawEvent {
    /// The layout of `/sys/bus/event_source/devices/cpu/format` on Intel's and AMD's processors: the event's low byte,
    /// its unit mask, the counter mask, and on AMD's from bit 32 the rest of the event's number.
    const fn new(name: &'static str, event: u64, umask: u64, cmask: u64) -> Self {
        Self {
            name,
            config: (event & 0xff) | (umask << 8) | (cmask << 24) | ((event >> 8) << 32),
        }
    }
}

/// What [`top_down`] needs on Intel's cores from Skylake to Cascade Lake, besides cycles and instructions
/// (`skylakex/pipeline.json` and `frontend.json`).
pub const INTEL_SKYLAKE_EVENTS: [RawEvent; 10] = [
    RawEvent::new("cpu_clk_unhalted.thread", 0x3c, 0x00, 0),
    RawEvent::new("idq_uops_not_delivered.core", 0x9c, 0x01, 0),
    RawEvent::new("uops_issued.any", 0x0e, 0x01, 0),
    RawEvent::new("uops_retired.retire_slots", 0xc2, 0x02, 0),
    RawEvent::new("int_misc.recovery_cycles", 0x0d, 0x01, 0),
    RawEvent::new("cycle_activity.stalls_mem_any", 0xa3, 0x14, 20),
    RawEvent::new("cycle_activity.stalls_total", 0xa3, 0x04, 4),
    RawEvent::new("exe_activity.1_ports_util", 0xa6, 0x02, 0),
    RawEvent::new("exe_activity.2_ports_util", 0xa6, 0x04, 0),
    RawEvent::new("exe_activity.bound_on_stores", 0xa6, 0x40, 0),
];

/// What [`top_down`] needs on AMD's Zen 4, besides instructions (`amdzen4/core.json` and `other.json`).
pub const AMD_ZEN4_EVENTS: [RawEvent; 8] = [
    RawEvent::new("ls_not_halted_cyc", 0x76, 0x00, 0),
    RawEvent::new("ex_ret_ops", 0xc1, 0x00, 0),
    RawEvent::new("de_src_op_disp.all", 0xaa, 0x07, 0),
    RawEvent::new("de_no_dispatch_per_slot.no_ops_from_frontend", 0x1a0, 0x01, 0),
    RawEvent::new("de_no_dispatch_per_slot.backend_stalls", 0x1a0, 0x1e, 0),
    RawEvent::new("de_no_dispatch_per_slot.smt_contention", 0x1a0, 0x60, 0),
    RawEvent::new("ex_no_retire.load_not_complete", 0xd6, 0xa2, 0),
    RawEvent::new("ex_no_retire.not_complete", 0xd6, 0x02, 0),
];

/// The events of the processor that `cpuinfo`, the text of `/proc/cpuinfo`, describes; nothing for one whose events are
/// not listed here.
///
/// Intel's cores since Ice Lake are such: their top-down events must be read as a group led by `slots`, and are taken
/// from a recording.
pub fn events(cpuinfo: &str) -> &'static [RawEvent] {
    let field = |name: &str| {
        let line = cpuinfo
            .lines()
            .find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
        Some(line.split_once(':')?.1.trim())
    };
    let number = |name| field(name).and_then(|text| text.parse::<u32>().ok());
    match (field("vendor_id"), number("cpu family"), number("model")) {
        // `tools/perf/pmu-events/arch/x86/mapfile.csv`
        (Some("GenuineIntel"), Some(6), Some(0x4e | 0x55 | 0x5e | 0x8e | 0x9e | 0xa5 | 0xa6)) => &INTEL_SKYLAKE_EVENTS,
        (Some("AuthenticAMD"), Some(0x19), Some(0x10..=0x1f | 0x60..=0x7f | 0xa0..=0xaf)) => &AMD_ZEN4_EVENTS,
        _ => &[],
    }
}

/// The top-down metrics of `counts`, by the method whose events are among them: [`intel_metrics`], [`intel_classic`] or
/// [`amd_zen4`].
///
/// # Errors
/// [`CountersError::NoTopDownEvents`], and those of the method.
pub fn top_down(counts: &Counts) -> Result<TopDownSlots, CountersError> {
    let has = |name: &str| counts.events.contains_key(name);
    if has("topdown-retiring") {
        intel_metrics(counts)
    } else if has("uops_issued.any") {
        intel_classic(counts)
    } else if has("ex_ret_ops") {
        amd_zen4(counts)
    } else {
        Err(CountersError::NoTopDownEvents)
    }
}

/// Intel's cores since Ice Lake, which count slots by category themselves (`sapphirerapids/spr-metrics.json`, metrics
/// `tma_retiring` to `tma_core_bound`; Linux, `tools/perf/Documentation/topdown.txt`).
///
/// Level 2 is `topdown-mem-bound`, which there is since Sapphire Rapids. Without it the memory's part of the back end
/// is that of [`intel_classic`] (`icelake/icl-metrics.json`).
///
/// # Errors
/// [`CountersError::TopDownEventMissing`], and [`CountersError::TopDownInconsistent`] where the categories do not add
/// up to `slots`.
pub fn intel_metrics(counts: &Counts) -> Result<TopDownSlots, CountersError> {
    let count = |event| required(counts, event);
    let [retiring, bad_speculation, front_end, back_end] = [
        count("topdown-retiring")?,
        count("topdown-bad-spec")?,
        count("topdown-fe-bound")?,
        count("topdown-be-bound")?,
    ];
    // tma_retiring = topdown-retiring / (topdown-fe-bound + topdown-bad-spec + topdown-retiring + topdown-be-bound):
    // the categories are counted in 1/255 of the slots, so that their own sum is the exact denominator.
    let slots = retiring + bad_speculation + front_end + back_end;
    check("sum of the categories over `slots`", slots / count("slots")?, 1.0)?;
    let share = |events: f64| events / slots;
    let memory = match counts.events.get("topdown-mem-bound") {
        // tma_memory_bound = topdown-mem-bound / (the same sum).
        Some(&memory) => share(memory),
        None => share(back_end) * memory_fraction(counts, share(retiring))?,
    };
    checked(TopDownSlots {
        cpi: cpi(counts, &["cycles", "cpu_clk_unhalted.thread"])?,
        retiring: share(retiring),
        bad_speculation: share(bad_speculation),
        front_end: share(front_end),
        back_end: share(back_end),
        memory,
        // tma_core_bound = max(0, tma_backend_bound - tma_memory_bound).
        core: share(back_end) - memory,
    })
}

/// Intel's cores before Ice Lake, from the micro-operations that entered and left the pipeline
/// (`skylakex/skx-metrics.json`, metrics `tma_frontend_bound` to `tma_core_bound`; Intel, "64 and IA-32 Architectures
/// Optimization Reference Manual", appendix B.1).
///
/// With hyper-threading on, both threads of a core share its slots: then `cpu_clk_unhalted.thread_any` and
/// `int_misc.recovery_cycles_any` must be among the counts, and halves of them are taken.
///
/// # Errors
/// [`CountersError::TopDownEventMissing`] and [`CountersError::TopDownInconsistent`].
pub fn intel_classic(counts: &Counts) -> Result<TopDownSlots, CountersError> {
    let count = |event| required(counts, event);
    let half = |event: &str| counts.events.get(event).map(|count| count / 2.0);
    // tma_info_core_core_clks
    let core_cycles = match half("cpu_clk_unhalted.thread_any") {
        Some(cycles) => cycles,
        None => count("cpu_clk_unhalted.thread")?,
    };
    let recovery_cycles = match half("int_misc.recovery_cycles_any") {
        Some(cycles) => cycles,
        None => count("int_misc.recovery_cycles")?,
    };
    let slots = INTEL_CLASSIC_WIDTH * core_cycles;
    let (issued, retired) = (count("uops_issued.any")?, count("uops_retired.retire_slots")?);
    let recovery = INTEL_CLASSIC_WIDTH * recovery_cycles;
    // tma_frontend_bound = IDQ_UOPS_NOT_DELIVERED.CORE / slots
    let front_end = count("idq_uops_not_delivered.core")? / slots;
    // tma_bad_speculation = (UOPS_ISSUED.ANY - UOPS_RETIRED.RETIRE_SLOTS + 4 * INT_MISC.RECOVERY_CYCLES) / slots
    let bad_speculation = (issued - retired + recovery) / slots;
    // tma_retiring = UOPS_RETIRED.RETIRE_SLOTS / slots
    let retiring = retired / slots;
    // tma_backend_bound = 1 - tma_frontend_bound - (UOPS_ISSUED.ANY + 4 * INT_MISC.RECOVERY_CYCLES) / slots
    let back_end = 1.0 - front_end - (issued + recovery) / slots;
    let memory = back_end * memory_fraction(counts, retiring)?;
    checked(TopDownSlots {
        cpi: cpi(counts, &["cycles", "cpu_clk_unhalted.thread"])?,
        retiring,
        bad_speculation,
        front_end,
        back_end,
        memory,
        core: back_end - memory,
    })
}

/// The memory's part of the back end's share on Intel's cores: stalls with a load or a full store buffer outstanding,
/// over all cycles in which few operations were executed.
///
/// `tma_memory_bound / tma_backend_bound` = (CYCLE_ACTIVITY.STALLS_MEM_ANY + EXE_ACTIVITY.BOUND_ON_STORES) /
/// (CYCLE_ACTIVITY.STALLS_TOTAL + (EXE_ACTIVITY.1_PORTS_UTIL + tma_retiring * EXE_ACTIVITY.2_PORTS_UTIL) +
/// EXE_ACTIVITY.BOUND_ON_STORES)
fn memory_fraction(counts: &Counts, retiring: f64) -> Result<f64, CountersError> {
    let count = |event| required(counts, event);
    let stores = count("exe_activity.bound_on_stores")?;
    let few_executed = count("exe_activity.1_ports_util")? + retiring * count("exe_activity.2_ports_util")?;
    let memory = count("cycle_activity.stalls_mem_any")? + stores;
    let all = count("cycle_activity.stalls_total")? + few_executed + stores;
    // Nothing stalled: there is nothing to divide.
    Ok(ratio(memory, all).unwrap_or(0.0))
}

/// AMD's Zen 4, from the operations dispatched and the slots that stayed empty (`amdzen4/pipeline.json`, metrics
/// `frontend_bound` to `backend_bound_cpu`; AMD, "Processor Programming Reference for Family 19h Model 11h", "Pipeline
/// Utilization").
///
/// Slots that were given to the other thread of the core (`smt_contention`) belong to none of the four categories: the
/// shares are of the slots that this thread could use.
///
/// # Errors
/// [`CountersError::TopDownEventMissing`] and [`CountersError::TopDownInconsistent`].
pub fn amd_zen4(counts: &Counts) -> Result<TopDownSlots, CountersError> {
    let count = |event| required(counts, event);
    // total_dispatch_slots = 6 * ls_not_halted_cyc
    let all_slots = ZEN4_WIDTH * count("ls_not_halted_cyc")?;
    let slots = all_slots - count("de_no_dispatch_per_slot.smt_contention")?;
    let retired = count("ex_ret_ops")?;
    // frontend_bound = de_no_dispatch_per_slot.no_ops_from_frontend / slots
    let front_end = count("de_no_dispatch_per_slot.no_ops_from_frontend")? / slots;
    // backend_bound = de_no_dispatch_per_slot.backend_stalls / slots
    let back_end = count("de_no_dispatch_per_slot.backend_stalls")? / slots;
    // bad_speculation = (de_src_op_disp.all - ex_ret_ops) / slots
    let bad_speculation = (count("de_src_op_disp.all")? - retired) / slots;
    // retiring = ex_ret_ops / slots
    let retiring = retired / slots;
    // backend_bound_memory = backend_bound * ex_no_retire.load_not_complete / ex_no_retire.not_complete
    let waiting_for_loads = ratio(
        count("ex_no_retire.load_not_complete")?,
        count("ex_no_retire.not_complete")?,
    );
    let memory = back_end * waiting_for_loads.unwrap_or(0.0);
    checked(TopDownSlots {
        cpi: cpi(counts, &["ls_not_halted_cyc", "cycles"])?,
        retiring,
        bad_speculation,
        front_end,
        back_end,
        memory,
        core: back_end - memory,
    })
}

fn required(counts: &Counts, event: &'static str) -> Result<f64, CountersError> {
    let count = counts.events.get(event).copied();
    count.ok_or(CountersError::TopDownEventMissing { event })
}

/// Cycles an instruction, with the first of `cycles` that was counted.
fn cpi(counts: &Counts, cycles: &[&'static str]) -> Result<f64, CountersError> {
    let counted = cycles.iter().find_map(|&event| counts.events.get(event));
    let cycles = counted.ok_or(CountersError::TopDownEventMissing { event: cycles[0] })?;
    let instructions = ["inst_retired.any", "ex_ret_instr"]
        .iter()
        .find_map(|&event| counts.events.get(event).copied())
        .or_else(|| counts.get(Counter::Instructions));
    let instructions = instructions.ok_or(CountersError::TopDownEventMissing {
        event: Counter::Instructions.name(),
    })?;
    ratio(*cycles, instructions).ok_or(CountersError::TopDownEventMissing {
        event: Counter::Instructions.name(),
    })
}

/// Shares as they are, if they can be of the same work; what estimates put a little outside of 0 to 1 is put onto its
/// edge.
fn checked(slots: TopDownSlots) -> Result<TopDownSlots, CountersError> {
    let TopDownSlots {
        cpi,
        retiring,
        bad_speculation,
        front_end,
        back_end,
        memory,
        core,
    } = slots;
    let share = |what, share: f64| {
        if share.is_finite() && (-TOLERANCE..=1.0 + TOLERANCE).contains(&share) {
            Ok(share.clamp(0.0, 1.0))
        } else {
            Err(CountersError::TopDownInconsistent {
                what,
                found: share,
                expected: "0 to 1",
            })
        }
    };
    let slots = TopDownSlots {
        cpi,
        retiring: share("retiring", retiring)?,
        bad_speculation: share("bad speculation", bad_speculation)?,
        front_end: share("front end", front_end)?,
        back_end: share("back end", back_end)?,
        memory: share("memory", memory)?,
        core: share("core", core)?,
    };
    check(
        "sum of the shares",
        retiring + bad_speculation + front_end + back_end,
        1.0,
    )?;
    Ok(slots)
}

fn check(what: &'static str, found: f64, expected: f64) -> Result<(), CountersError> {
    if (found - expected).abs() <= TOLERANCE {
        Ok(())
    } else {
        Err(CountersError::TopDownInconsistent {
            what,
            found,
            expected: "1, or nearly so",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recording;
    use std::path::Path;

    fn recorded(file: &str) -> Counts {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings").join(file);
        Recording::read(&path).unwrap().measurements.remove(0).counts
    }

    fn assert_slots(counts: &Counts, expected: TopDownSlots) {
        let found = top_down(counts).unwrap();
        let pairs = [
            ("cpi", found.cpi, expected.cpi),
            ("retiring", found.retiring, expected.retiring),
            ("bad speculation", found.bad_speculation, expected.bad_speculation),
            ("front end", found.front_end, expected.front_end),
            ("back end", found.back_end, expected.back_end),
            ("memory", found.memory, expected.memory),
            ("core", found.core, expected.core),
        ];
        for (name, found, expected) in pairs {
            assert!((found - expected).abs() < 1e-9, "{name}: {found}, expected {expected}");
        }
    }

    fn with(mut counts: Counts, event: &str, count: f64) -> Counts {
        counts.events.insert(event.to_owned(), count);
        counts
    }

    fn without(mut counts: Counts, event: &str) -> Counts {
        counts.events.remove(event).unwrap();
        counts
    }

    #[test]
    fn intel_counts_slots_by_category() {
        let counts = recorded("top-down-intel-metrics.json");
        let expected = TopDownSlots {
            cpi: 0.5,
            retiring: 0.35,
            bad_speculation: 0.05,
            front_end: 0.10,
            back_end: 0.50,
            memory: 0.30,
            core: 0.20,
        };
        assert_slots(&counts, expected);
        // Ice Lake has no level 2: 3 of 4 such cycles are the memory's.
        let mut ice_lake = without(counts, "topdown-mem-bound");
        for (event, count) in [
            ("cycle_activity.stalls_mem_any", 2.8e8),
            ("cycle_activity.stalls_total", 3.0e8),
            ("exe_activity.1_ports_util", 3.0e7),
            ("exe_activity.2_ports_util", 2.0e8),
            ("exe_activity.bound_on_stores", 2.0e7),
        ] {
            ice_lake = with(ice_lake, event, count);
        }
        // (2.8e8 + 2e7) / (3e8 + 3e7 + 0.35 * 2e8 + 2e7) = 3 / 4.2
        let memory = 0.5 * 3.0 / 4.2;
        assert_slots(
            &ice_lake,
            TopDownSlots {
                memory,
                core: 0.5 - memory,
                ..expected
            },
        );
    }

    #[test]
    fn intel_before_ice_lake_counts_micro_operations() {
        let counts = recorded("top-down-intel-skylake.json");
        // 4e9 slots; 5e8 not delivered, 1.8e9 issued, 1.6e9 retired, 2.5e7 cycles (1e8 slots) of recovery.
        let fraction = (2.8e8 + 2.0e7) / (3.0e8 + (4.0e7 + 0.4 * 1.0e8) + 2.0e7);
        let expected = TopDownSlots {
            cpi: 0.8,
            retiring: 0.4,
            bad_speculation: 0.075,
            front_end: 0.125,
            back_end: 0.4,
            memory: 0.4 * fraction,
            core: 0.4 * (1.0 - fraction),
        };
        assert_slots(&counts, expected);
        // Both threads of a core: its cycles are half of what the two see.
        let both = with(counts, "cpu_clk_unhalted.thread_any", 2.0e9);
        assert_slots(&with(both, "int_misc.recovery_cycles_any", 5.0e7), expected);
    }

    #[test]
    fn zen_4_counts_dispatch_slots() {
        let counts = recorded("top-down-amd-zen4.json");
        // 6e9 slots, 1e9 of them the other thread's; 2e9 retired of 2.25e9 dispatched, 5e8 empty by the front end and
        // 2.25e9 by the back end, 3 in 5 of whose cycles wait for loads.
        assert_slots(
            &counts,
            TopDownSlots {
                cpi: 0.5,
                retiring: 0.4,
                bad_speculation: 0.05,
                front_end: 0.1,
                back_end: 0.45,
                memory: 0.27,
                core: 0.18,
            },
        );
    }

    #[test]
    fn an_event_that_was_not_counted_is_named() {
        for (file, event) in [
            ("top-down-intel-metrics.json", "slots"),
            ("top-down-intel-skylake.json", "int_misc.recovery_cycles"),
            ("top-down-amd-zen4.json", "ex_no_retire.not_complete"),
            ("top-down-amd-zen4.json", "instructions"),
        ] {
            let error = top_down(&without(recorded(file), event)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("top-down metrics need `{event}`, which was not counted; count it with the others")
            );
        }
        assert!(matches!(
            top_down(&Counts::default()),
            Err(CountersError::NoTopDownEvents)
        ));
    }

    #[test]
    fn counts_of_different_work_are_refused() {
        for (file, event, count, what) in [
            (
                "top-down-intel-metrics.json",
                "slots",
                9.0e9,
                "sum of the categories over `slots`",
            ),
            (
                "top-down-intel-skylake.json",
                "uops_retired.retire_slots",
                3.0e9,
                "bad speculation",
            ),
            (
                "top-down-amd-zen4.json",
                "de_no_dispatch_per_slot.backend_stalls",
                1.0e9,
                "sum of the shares",
            ),
        ] {
            let error = top_down(&with(recorded(file), event, count)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("top-down metrics: {what} is ")), "{error}");
            assert!(error.ends_with("; count all events around the same work"), "{error}");
        }
    }

    #[test]
    fn a_processor_is_known_by_family_and_model() {
        let cpu = |vendor: &str, family: u32, model: u32| {
            events(&format!(
                "processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: x\n"
            ))
        };
        assert_eq!(cpu("GenuineIntel", 6, 85), INTEL_SKYLAKE_EVENTS);
        assert_eq!(cpu("AuthenticAMD", 25, 17), AMD_ZEN4_EVENTS);
        // Zen 3 and Sapphire Rapids
        assert_eq!(cpu("AuthenticAMD", 25, 1), []);
        assert_eq!(cpu("GenuineIntel", 6, 143), []);
        assert_eq!(events(""), []);
    }

    #[test]
    fn an_events_number_is_laid_out_as_the_kernel_reads_it() {
        let config = |events: &[RawEvent], name| events.iter().find(|event| event.name == name).unwrap().config;
        assert_eq!(
            config(&INTEL_SKYLAKE_EVENTS, "cycle_activity.stalls_mem_any"),
            0x1400_14a3
        );
        assert_eq!(
            config(&AMD_ZEN4_EVENTS, "de_no_dispatch_per_slot.smt_contention"),
            0x1_0000_60a0
        );
    }
}
