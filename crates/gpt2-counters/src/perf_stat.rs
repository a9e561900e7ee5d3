//! The output of `perf stat -x,` and `perf stat -j` (perf-stat(1), "CSV FORMAT" and "JSON FORMAT"), as one measurement.

use crate::counts::{Counter, Counts, Source};
use crate::error::CountersError;
use crate::missing::Missing;
use serde::Deserialize;
use std::path::Path;

/// A line: an event's count.
struct Line {
    value: String,
    unit: String,
    event: String,
    /// Percent of the time in which it was counted.
    percent: Option<f64>,
}

/// A line of `perf stat -j`. Versions differ in what else they tell.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct JsonLine {
    counter_value: String,
    #[serde(default)]
    unit: String,
    event: String,
    pcnt_running: Option<f64>,
}

/// Whether the first line is one of `perf stat -j`.
pub(crate) fn is_json(text: &str) -> bool {
    text.lines()
        .next()
        .is_some_and(|line| serde_json::from_str::<JsonLine>(line).is_ok())
}

/// Reads what `path` holds.
///
/// # Errors
/// [`CountersError::PerfStat`] for a line that is neither form, and [`CountersError::NoDuration`].
pub(crate) fn parse(text: &str, path: &Path) -> Result<Counts, CountersError> {
    let mut counts = Counts::default();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let failed = |reason: String| CountersError::PerfStat {
            path: path.to_owned(),
            line: index + 1,
            reason,
        };
        // Lines without an event hold a further metric of the one above.
        if let Some(line) = read_line(line).map_err(failed)? {
            add(&mut counts, &line).map_err(failed)?;
        }
    }
    if counts.elapsed_sec > 0.0 {
        Ok(counts)
    } else {
        Err(CountersError::NoDuration { path: path.to_owned() })
    }
}

fn read_line(line: &str) -> Result<Option<Line>, String> {
    if line.starts_with('{') {
        let JsonLine {
            counter_value,
            unit,
            event,
            pcnt_running,
        } = serde_json::from_str(line).map_err(|error| error.to_string())?;
        return Ok(Some(Line {
            value: counter_value,
            unit,
            event,
            percent: pcnt_running,
        }));
    }
    // value, unit, event, nanoseconds counted, percent of the time, and a metric with its unit.
    let fields: Vec<_> = line.split(',').map(str::trim).collect();
    let [value, unit, event, rest @ ..] = fields.as_slice() else {
        return Err(format!("{} fields, expected at least 3", fields.len()));
    };
    if value.is_empty() && event.is_empty() {
        return Ok(None);
    }
    Ok(Some(Line {
        value: (*value).to_owned(),
        unit: (*unit).to_owned(),
        event: (*event).to_owned(),
        percent: rest.get(1).and_then(|percent| percent.parse().ok()),
    }))
}

fn add(counts: &mut Counts, line: &Line) -> Result<(), String> {
    let name = plain_name(&line.event);
    let missing = match line.value.as_str() {
        "<not supported>" => Some(Missing::NoPmu),
        "<not counted>" => Some(Missing::NeverScheduled),
        _ => None,
    };
    let known = known_name(&name).map_or(name.clone(), ToOwned::to_owned);
    if let Some(missing) = missing {
        counts.missing.insert(known, missing);
        return Ok(());
    }
    let value: f64 = line
        .value
        .parse()
        .map_err(|_| format!("the count of `{}` is `{}`, expected a number", line.event, line.value))?;
    // The tool's own events count nanoseconds.
    match name.as_str() {
        "duration_time" => counts.elapsed_sec = value / 1e9,
        "user_time" => counts.user_sec = Some(value / 1e9),
        "system_time" => counts.system_sec = Some(value / 1e9),
        _ => {
            // Without a unit, the clock is the event's raw count.
            let is_raw_clock = known == Counter::TaskClock.name() && line.unit != "msec";
            let source = Source::PerfEvents {
                user_only: is_user_only(&line.event),
                running: line.percent.unwrap_or(100.0) / 100.0,
            };
            counts.sources.insert(known.clone(), source);
            counts
                .events
                .insert(known, if is_raw_clock { value / 1e6 } else { value });
        }
    }
    Ok(())
}

/// An event without modifiers and the name of its PMU, in small letters: `cpu_core/topdown-retiring/u` is
/// `topdown-retiring`.
fn plain_name(event: &str) -> String {
    let event = event.to_lowercase();
    let without_pmu = match event.split('/').collect::<Vec<_>>().as_slice() {
        [_, name, _] => (*name).to_owned(),
        _ => event,
    };
    match without_pmu.split_once(':') {
        Some((name, _)) => name.to_owned(),
        None => without_pmu,
    }
}

/// Whether the modifiers of an event leave the kernel out.
fn is_user_only(event: &str) -> bool {
    let modifiers = event.rsplit([':', '/']).next().unwrap_or_default();
    modifiers != event && modifiers.contains('u') && !modifiers.contains('k')
}

fn known_name(event: &str) -> Option<&'static str> {
    let counter = match event {
        "task-clock" => Counter::TaskClock,
        "context-switches" | "cs" => Counter::ContextSwitches,
        "cpu-migrations" | "migrations" => Counter::CpuMigrations,
        "page-faults" | "faults" => Counter::PageFaults,
        "cycles" | "cpu-cycles" => Counter::Cycles,
        "instructions" => Counter::Instructions,
        "branches" | "branch-instructions" => Counter::Branches,
        "branch-misses" => Counter::BranchMisses,
        _ => return None,
    };
    Some(counter.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counts::tests::published;

    const CSV: &str = "\
# started on Fri Nov 27 10:00:00 2026

708147.03,msec,task-clock,708147030000,100.00,1.000,CPUs utilized
13372,,context-switches,708147030000,100.00,18.883,/sec
297,,cpu-migrations,708147030000,100.00,0.419,/sec
873210,,page-faults,708147030000,100.00,1.233,K/sec
2828715460760,,cycles:u,708147030000,75.00,3.995,GHz
3450675515172,,instructions,708147030000,100.00,1.22,insn per cycle
,,,,,0.30,stalled cycles per insn
459440125539,,branches,708147030000,100.00,648.792,M/sec
3699080215,,branch-misses,708147030000,100.00,0.81,of all branches
<not supported>,,cpu/topdown-retiring/,0,100.00,,
<not counted>,,ref-cycles,0,0.00,,
708374812244,ns,duration_time,708374812244,100.00,,
706835405000,ns,user_time,706835405000,100.00,,
1274672000,ns,system_time,1274672000,100.00,,
";

    fn read(text: &str) -> Result<Counts, String> {
        parse(text, Path::new("stat.csv")).map_err(|error| error.to_string())
    }

    #[test]
    fn both_forms_give_the_same_counts() {
        let counts = read(CSV).unwrap();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9 * b;
        assert_eq!(counts.events, published().events);
        assert!(close(counts.elapsed_sec, 708.374_812_244));
        assert!(close(counts.user_sec.unwrap(), 706.835_405) && close(counts.system_sec.unwrap(), 1.274_672));
        assert_eq!(counts.missing["topdown-retiring"], Missing::NoPmu);
        assert_eq!(counts.missing["ref-cycles"], Missing::NeverScheduled);
        assert_eq!(
            counts.sources["cycles"],
            Source::PerfEvents {
                user_only: true,
                running: 0.75
            }
        );

        let json: Vec<String> = CSV
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with(['#', ',']))
            .map(|line| {
                let fields: Vec<_> = line.split(',').collect();
                format!(
                    "{{\"counter-value\" : \"{}\", \"unit\" : \"{}\", \"event\" : \"{}\", \"event-runtime\" : {}, \
                     \"pcnt-running\" : {}}}",
                    fields[0], fields[1], fields[2], fields[3], fields[4]
                )
            })
            .collect();
        let json = json.join("\n");
        assert!(is_json(&json) && !is_json(CSV));
        assert_eq!(read(&json).unwrap(), counts);
    }

    #[test]
    fn names_lose_their_modifiers() {
        for (event, name) in [
            ("cycles:ukH", "cycles"),
            ("cpu_core/topdown-retiring/u", "topdown-retiring"),
            ("UOPS_ISSUED.ANY", "uops_issued.any"),
            ("slots", "slots"),
        ] {
            assert_eq!(plain_name(event), name);
        }
        assert!(is_user_only("cycles:u") && is_user_only("cpu/cycles/u"));
        assert!(!is_user_only("cycles:uk") && !is_user_only("cpu/slots/") && !is_user_only("uops"));
    }

    #[test]
    fn damage_is_told_with_its_line() {
        assert_eq!(
            read("1,,cycles\nabc,,branches,1,100\n").unwrap_err(),
            "stat.csv:2: not a line of `perf stat -x,` or `perf stat -j`: the count of `branches` is `abc`, expected a \
             number"
        );
        assert!(read("nothing\n").unwrap_err().contains("1 fields, expected at least 3"));
        assert_eq!(
            read("1,,cycles\n").unwrap_err(),
            "stat.csv: no `duration_time`; add `-e duration_time,user_time,system_time` to `perf stat`"
        );
    }
}
