//! Tables of a profile: layer kinds, operations, ceilings, top-down metrics.

use super::columns::PERCENT;
use super::{Cell, Column, Heading, Source, Table, pointer_key};
use gpt2_records::{KindTime, OperationTime, Profile, TopDown, TopDownSlots};

const GIGA: f64 = 1e9;
const TERA: f64 = 1e12;

/// The tables of a profile, in the order in which they are read.
pub fn profile_tables(profile: &Profile) -> Vec<Table> {
    let mut tables = vec![steps(profile), kinds(&profile.kinds), operations(&profile.operations)];
    tables.extend(profile.top_down.as_ref().map(top_down));
    tables.retain(|table| !table.rows.is_empty());
    tables
}

/// The steps that were timed, and what the device reaches at most.
fn steps(profile: &Profile) -> Table {
    let pairs = [
        ("Profiled steps", profile.trials as f64, "/profile/trials", "", 1.0),
        (
            "Step without profiling, median",
            profile.unprofiled_step_ms.p50,
            "/profile/unprofiled_step_ms/p50",
            "ms",
            1.0,
        ),
        (
            "Step with profiling, median",
            profile.profiled_step_ms.p50,
            "/profile/profiled_step_ms/p50",
            "ms",
            1.0,
        ),
        ("MFU, of the product below", profile.mfu, "/profile/mfu", "%", PERCENT),
        (
            "Products, at most",
            profile.ceilings.product_flops,
            "/profile/ceilings/product_flops",
            "TFLOP/s",
            TERA,
        ),
        (
            "Side of those matrices",
            profile.ceilings.product_side as f64,
            "/profile/ceilings/product_side",
            "",
            1.0,
        ),
        (
            "Memory, at most",
            profile.ceilings.bytes_per_sec,
            "/profile/ceilings/bytes_per_sec",
            "GB/s",
            GIGA,
        ),
    ];
    // One row, so that each number has the decimals that it needs.
    let columns = pairs
        .into_iter()
        .map(|(title, value, pointer, unit, per)| {
            let cell = Cell::at(Some(value), pointer.to_owned(), per);
            Column::new(Heading::number(title, unit), [cell])
        })
        .collect();
    Table::new("Steps and ceilings", columns)
}

fn kinds(kinds: &[KindTime]) -> Table {
    let numbers = |field: &'static str, per: f64, value: fn(&KindTime) -> f64| {
        kinds
            .iter()
            .enumerate()
            .map(move |(i, kind)| Cell::at(Some(value(kind)), format!("/profile/kinds/{i}/{field}"), per))
    };
    Table::new(
        "Time by layer kind",
        vec![
            Column::new(Heading::text("Kind"), kinds.iter().map(|k| Cell::Text(k.kind.clone()))),
            Column::new(
                Heading::number("Forward", "ms"),
                numbers("forward_ms", 1.0, |k| k.forward_ms),
            ),
            Column::new(
                Heading::number("Backward", "ms"),
                numbers("backward_ms", 1.0, |k| k.backward_ms),
            ),
            Column::new(Heading::number("Both, std", "ms"), numbers("std_ms", 1.0, |k| k.std_ms)),
            Column::new(
                Heading::number("Share of the step", "%"),
                numbers("share", PERCENT, |k| k.share),
            )
            .with_decimals(Some(1)),
        ],
    )
}

fn operations(operations: &[OperationTime]) -> Table {
    // The longest first; the pointers keep the places in the JSON.
    let mut sorted: Vec<(usize, &OperationTime)> = operations.iter().enumerate().collect();
    sorted.sort_by(|(_, a), (_, b)| b.ms.total_cmp(&a.ms));
    let at = |i: usize, field: &str| format!("/profile/operations/{i}/{field}");
    let text = |value: fn(&OperationTime) -> &String| {
        sorted
            .iter()
            .map(move |(_, o)| Cell::Text(value(o).clone()))
            .collect::<Vec<_>>()
    };
    let number = |field: &'static str, per: f64, value: fn(&OperationTime) -> f64| {
        sorted
            .iter()
            .map(|&(i, o)| Cell::at(Some(value(o)), at(i, field), per))
            .collect::<Vec<_>>()
    };
    // A rate's unit holds a second, the JSON a millisecond.
    let rate = |field: &'static str, per: f64, value: fn(&OperationTime) -> f64| {
        sorted
            .iter()
            .map(|&(i, o)| {
                let source = Source::Ratio(at(i, field), at(i, "ms"));
                Cell::number(rate_of(value(o), o.ms), source, per / 1e3)
            })
            .collect::<Vec<_>>()
    };
    Table::new(
        "Time by operation",
        vec![
            Column::new(Heading::text("Operation"), text(|o| &o.name)),
            Column::new(Heading::text("Kind"), text(|o| &o.kind)),
            Column::new(Heading::text("Pass"), text(|o| &o.pass)),
            Column::new(Heading::number("Count", ""), number("count", 1.0, |o| o.count)),
            Column::new(Heading::number("Time", "ms"), number("ms", 1.0, |o| o.ms)),
            Column::new(Heading::number("Std", "ms"), number("std_ms", 1.0, |o| o.std_ms)),
            Column::new(Heading::number("Work", "GFLOP"), number("flop", GIGA, |o| o.flop)),
            Column::new(Heading::number("Rate", "TFLOP/s"), rate("flop", TERA, |o| o.flop)),
            Column::new(Heading::number("Traffic", "GB/s"), rate("bytes", GIGA, |o| o.bytes)),
            Column::new(Heading::text("Bound by"), text(|o| &o.bound_by)),
            Column::new(
                Heading::number("Of that ceiling", "%"),
                number("of_ceiling", PERCENT, |o| o.of_ceiling),
            )
            .with_decimals(Some(0)),
        ],
    )
}

/// Work a millisecond. None where there is no work or no time.
fn rate_of(work: f64, ms: f64) -> Option<f64> {
    (work > 0.0 && ms > 0.0).then(|| work / ms)
}

/// The mean of a field over a kind's trials.
pub(crate) fn mean(trials: &[TopDownSlots], value: fn(&TopDownSlots) -> f64) -> f64 {
    trials.iter().map(value).sum::<f64>() / trials.len() as f64
}

/// A field of [`TopDownSlots`]: its name in the JSON and its value.
pub(crate) type SlotField = (&'static str, fn(&TopDownSlots) -> f64);

fn top_down(top_down: &TopDown) -> Table {
    let number = |(field, value): SlotField, per: f64| {
        top_down
            .kinds
            .iter()
            .map(|(kind, trials)| {
                let array = format!("/profile/top_down/kinds/{}", pointer_key(kind));
                Cell::number(Some(mean(trials, value)), Source::Mean { array, field }, per)
            })
            .collect::<Vec<_>>()
    };
    let share = |title: &str, field: SlotField| {
        Column::new(Heading::number(title, "%"), number(field, PERCENT)).with_decimals(Some(1))
    };
    let kinds = top_down.kinds.keys().map(|kind| Cell::Text(kind.clone()));
    let trials = top_down
        .kinds
        .values()
        .map(|trials| Cell::Text(trials.len().to_string()));
    let title = match &top_down.recorded {
        Some(recording) => format!("Top-down metrics, means over trials (recorded: {recording})"),
        None => "Top-down metrics, means over trials".to_owned(),
    };
    Table::new(
        title,
        vec![
            Column::new(Heading::text("Kind"), kinds),
            Column::new(Heading::text("Trials"), trials),
            Column::new(Heading::number("CPI", "cycles"), number(("cpi", |s| s.cpi), 1.0)).with_decimals(Some(2)),
            share("Retiring", ("retiring", |s| s.retiring)),
            share("Bad speculation", ("bad_speculation", |s| s.bad_speculation)),
            share("Front end", ("front_end", |s| s.front_end)),
            share("Back end", ("back_end", |s| s.back_end)),
            share("Memory", ("memory", |s| s.memory)),
            share("Core", ("core", |s| s.core)),
        ],
    )
}
