//! Words for rows in figures: their names, or where those are too long, the settings in which they differ.

use super::chart::NAMES_WIDTH;
use super::text;
use super::text::TEXT_SIZE;
use gpt2_records::{Row, Study};
use std::collections::BTreeSet;

/// Axes whose values say what they are.
const PLAIN: [&str; 6] = ["backend", "device", "model", "precision", "program", "variant"];

/// A label for each row of a bar chart.
pub(super) fn bar_labels(study: &Study, rows: &[&Row]) -> Vec<String> {
    let names: Vec<String> = rows.iter().map(|row| row.name.clone()).collect();
    let marked = |labels: Vec<String>| -> Vec<String> {
        let mark = |(label, row): (String, &&Row)| {
            let is_baseline = study.baseline.as_ref() == Some(&row.name);
            if is_baseline {
                format!("{label} (baseline)")
            } else {
                label
            }
        };
        labels.into_iter().zip(rows).map(mark).collect()
    };
    if marked(names.clone())
        .iter()
        .all(|name| text::width(name, TEXT_SIZE) <= NAMES_WIDTH)
    {
        return marked(names);
    }
    // Names that lose their middle may lose what tells them apart.
    let settings = differing_settings(study, rows, None);
    let are_unique = settings.iter().collect::<BTreeSet<_>>().len() == rows.len();
    marked(if are_unique { settings } else { names })
}

/// For each row the settings in which any two of `rows` differ, `without` one axis.
pub(super) fn differing_settings(study: &Study, rows: &[&Row], without: Option<&str>) -> Vec<String> {
    let value = |row: &Row, axis: &String| row.axes.get(axis).cloned();
    let differing: Vec<&String> = study
        .axes
        .iter()
        .filter(|axis| Some(axis.as_str()) != without)
        .filter(|axis| rows.iter().map(|row| value(row, axis)).collect::<BTreeSet<_>>().len() > 1)
        .collect();
    let programs: BTreeSet<Option<&str>> = rows.iter().map(|row| row.peer.as_deref()).collect();
    let of_row = |row: &&Row| {
        let program = (programs.len() > 1).then(|| row.peer.clone().unwrap_or_else(|| "gpt2".to_owned()));
        let settings = differing.iter().filter_map(|axis| {
            let value = value(row, axis)?;
            Some(if PLAIN.contains(&axis.as_str()) {
                value
            } else {
                format!("{axis} {value}")
            })
        });
        let parts: Vec<String> = program.into_iter().chain(settings).collect();
        if parts.is_empty() {
            "all rows".to_owned()
        } else {
            parts.join(", ")
        }
    };
    rows.iter().map(of_row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up;

    #[test]
    fn short_names_stay() {
        let study = made_up::fixed_work();
        let rows: Vec<&Row> = study.rows.iter().collect();
        assert_eq!(bar_labels(&study, &rows), ["gpt2", "pytorch (baseline)"]);
    }

    #[test]
    fn long_names_give_way_to_what_differs() {
        let study = made_up::sweep();
        let rows: Vec<&Row> = study.rows.iter().collect();
        let labels = bar_labels(&study, &rows);
        assert_eq!(labels[0], "gpt2, f32, recompute none, batch 4 (baseline)");
        assert_eq!(labels[29], "PyTorch, bf16, compile default, batch 16");
        // Of one precision and one program, neither is news.
        assert_eq!(differing_settings(&study, &rows[..2], None), ["batch 4", "batch 8"]);
        assert_eq!(
            differing_settings(&study, &rows[..2], Some("batch")),
            ["all rows", "all rows"]
        );
    }

    #[test]
    fn rows_that_differ_in_nothing_keep_their_names() {
        let mut study = made_up::sweep();
        study.axes.clear();
        let rows: Vec<&Row> = study.rows.iter().collect();
        assert_eq!(bar_labels(&study, &rows)[1], study.rows[1].name);
    }
}
