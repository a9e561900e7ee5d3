//! Figures of runs over their steps: loss, throughput, memory.

use super::Figure;
use super::axis::Axis;
use super::chart::{Chart, LegendEntry, LegendSymbol, Mark, Panel, Stroke, series_style};
use super::downsample::downsampled;
use super::lines::{LossCurve, losses as losses_of};
use crate::run_records::RunRecords;
use gpt2_records::StepRecord;

const GIB: f64 = 1_073_741_824.0;

/// A value of each step that has it.
fn points(run: &RunRecords, value: impl Fn(&StepRecord) -> Option<f64>) -> Vec<(f64, f64)> {
    run.records
        .iter()
        .filter_map(|record| Some((record.step as f64, value(record)?)))
        .collect()
}

/// Training and validation losses of all runs.
pub(super) fn losses(runs: &[RunRecords]) -> Option<Figure> {
    let curves: Vec<LossCurve> = runs
        .iter()
        .map(|run| LossCurve {
            name: run.name.clone(),
            train: points(run, |record| record.loss),
            val: points(run, |record| record.val_loss),
        })
        .filter(|curve| !curve.train.is_empty() || !curve.val.is_empty())
        .collect();
    losses_of(&curves)
}

/// Tokens a second of each step.
pub(super) fn throughput(runs: &[RunRecords]) -> Option<Figure> {
    let lines = runs
        .iter()
        .enumerate()
        .map(|(number, run)| {
            let (stroke, _) = series_style(number);
            (
                run.name.clone(),
                Stroke { width: 1, ..stroke },
                points(run, |record| record.tokens_per_sec),
            )
        })
        .collect();
    let chart = over_steps("Throughput", "throughput (tokens/s)", lines)?;
    Some(Figure::new(
        "throughput",
        "Tokens a second of each step, where there are many the mean of neighbours.",
        chart,
    ))
}

/// Memory after each step that has it.
pub(super) fn memory(runs: &[RunRecords]) -> Option<Figure> {
    type Memory = (&'static str, Option<(i32, i32)>, fn(&StepRecord) -> Option<u64>);
    const KINDS: [Memory; 3] = [
        ("device, used by tensors", None, |r| r.device_mem_bytes),
        ("device, held by the pool", Some((8, 4)), |r| r.device_reserved_bytes),
        ("process, resident", Some((2, 3)), |r| r.host_mem_bytes),
    ];
    let lines = runs
        .iter()
        .enumerate()
        .flat_map(|(number, run)| {
            KINDS.iter().map(move |(kind, dash, bytes)| {
                let (stroke, _) = series_style(number);
                let stroke = Stroke { dash: *dash, ..stroke };
                let values = points(run, |record| bytes(record).map(|bytes| bytes as f64 / GIB));
                (format!("{}: {kind}", run.name), stroke, values)
            })
        })
        .collect();
    let chart = over_steps("Memory", "memory (GiB)", lines)?;
    Some(Figure::new(
        "memory",
        "Memory after each step at which it was looked at.",
        chart,
    ))
}

/// A line with its name and its look.
type NamedLine = (String, Stroke, Vec<(f64, f64)>);

/// Lines over the steps, from zero up.
fn over_steps(title: &str, y_title: &str, lines: Vec<NamedLine>) -> Option<Chart> {
    let (mut marks, mut legend) = (Vec::new(), Vec::new());
    let mut all = Vec::new();
    for (name, stroke, points) in lines {
        let points = downsampled(&points);
        if !points.iter().any(|(_, value)| value.is_finite()) {
            continue;
        }
        all.extend(points.iter().copied());
        legend.push(LegendEntry {
            text: name,
            symbol: LegendSymbol::Line(stroke, None),
        });
        marks.push(Mark::Line { points, stroke });
    }
    if all.is_empty() {
        return None;
    }
    let panel = Panel {
        x: Axis::around("optimizer step", all.iter().map(|(step, _)| *step), 7),
        y: Axis::from_zero(y_title, all.iter().map(|(_, value)| *value), 6),
        marks,
    };
    Some(Chart {
        title: title.to_owned(),
        panels: vec![panel],
        legend,
    })
}
