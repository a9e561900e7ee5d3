//! The table of several runs.

use super::columns::{MIB, PERCENT};
use super::{Cell, Column, Heading, Table};
use crate::run_records::RunFigures;

/// A row for each run. The pointers are into an array `runs` of [`RunFigures`].
pub fn runs_table(runs: &[RunFigures]) -> Table {
    let text = |title: &str, value: fn(&RunFigures) -> Option<&str>| {
        Column::new(Heading::text(title), runs.iter().map(|run| Cell::some_text(value(run))))
    };
    let number = |title: &str, unit: &'static str, field: &str, per: f64, value: fn(&RunFigures) -> Option<f64>| {
        let cells = runs
            .iter()
            .enumerate()
            .map(|(i, run)| Cell::at(value(run), format!("/runs/{i}/{field}"), per));
        Column::new(Heading::number(title, unit), cells)
    };
    Table::new(
        "Runs",
        vec![
            text("Run", |r| Some(&r.name)),
            text("State", |r| Some(r.state)),
            text("Model", |r| r.model.as_deref()),
            text("Backend", |r| r.backend.as_deref()),
            text("Device", |r| r.device.as_deref()),
            text("Precision", |r| r.precision.as_deref()),
            number("Ranks", "", "ranks", 1.0, |r| r.ranks.map(|n| n as f64)),
            number("Batch", "sequences", "batch", 1.0, |r| r.batch.map(|n| n as f64)),
            number("Accumulation", "micro-steps", "grad_accum", 1.0, |r| {
                r.grad_accum.map(|n| n as f64)
            }),
            number("Length", "tokens", "seq", 1.0, |r| r.seq.map(|n| n as f64)),
            number("Steps", "", "steps", 1.0, |r| Some(r.steps as f64)),
            number("Tokens", "", "tokens", 1.0, |r| Some(r.tokens as f64)),
            number("Training loss", "nats", "train_loss", 1.0, |r| r.train_loss).with_decimals(Some(4)),
            number("Validation loss", "nats", "val_loss", 1.0, |r| r.val_loss).with_decimals(Some(4)),
            number("Best validation", "nats", "best_val_loss", 1.0, |r| r.best_val_loss).with_decimals(Some(4)),
            number("Throughput", "tokens/s", "tokens_per_sec", 1.0, |r| r.tokens_per_sec),
            number("Step, median", "ms", "step_p50_ms", 1.0, |r| r.step_p50_ms),
            number("Step, p95", "ms", "step_p95_ms", 1.0, |r| r.step_p95_ms),
            number("Peak memory", "MiB", "peak_memory_bytes", MIB, |r| {
                r.peak_memory_bytes.map(|b| b as f64)
            })
            .with_decimals(Some(0)),
            number("MFU", "%", "mfu", PERCENT, |r| r.mfu).with_decimals(Some(1)),
            number("Wall time", "s", "wall_sec", 1.0, |r| r.wall_sec).with_decimals(Some(0)),
        ],
    )
}
