//! Tables that every study has: facts, settings, results, leader board, conclusions.

use super::columns::{METRICS, Metric, metric_named};
use super::{Cell, Column, Heading, Source, Table, pointer_key};
use crate::run_records::host_facts;
use gpt2_records::{Row, Status, Study, StudyKind};
use std::collections::BTreeSet;

/// What the leader board shows of a row, by the names of `results.csv`.
const LEADER_BOARD: [&str; 9] = [
    "tokens_per_sec",
    "speedup",
    "efficiency",
    "step_p50_ms",
    "jitter_relative",
    "settling_cost_sec",
    "break_even_steps",
    "peak_mib",
    "tokens_per_sec_per_mib",
];

/// The study's name for people, from its kind.
pub(crate) fn kind_title(kind: StudyKind) -> &'static str {
    match kind {
        StudyKind::Threads => "CPU threads",
        StudyKind::Sweep => "Sweep",
        StudyKind::FixedWork => "Fixed work",
        StudyKind::Profile => "Profile",
        StudyKind::Scaling => "Scaling",
    }
}

/// By whom, where, when and with what a study was made: names and values.
pub fn facts(study: &Study) -> Vec<(&'static str, String)> {
    let made = &study.made;
    let mut facts = host_facts(&made.host);
    if !made.devices.is_empty() {
        facts.push(("Devices", made.devices.join("; ")));
    }
    if let Some(backend) = backends(study) {
        facts.push(("Backend", backend));
    }
    let commit = made.git_commit.as_deref().unwrap_or("not known");
    facts.push((
        "Versions",
        format!(
            "gpt2 {}, Burn {}, commit {commit}",
            made.gpt2_version, made.burn_version
        ),
    ));
    let programs: BTreeSet<&str> = study
        .rows
        .iter()
        .filter(|row| row.peer.is_some())
        .filter_map(|row| row.figures.as_ref().map(|figures| figures.program.as_str()))
        .collect();
    if !programs.is_empty() {
        facts.push(("Peers", programs.into_iter().collect::<Vec<_>>().join("; ")));
    }
    facts.push(("Begun", made.timestamp_utc.clone()));
    facts.push(("Command", made.command_line.clone()));
    facts
}

/// Where the study ran, from its settings or from the axis.
fn backends(study: &Study) -> Option<String> {
    if let Some(backend) = study.settings.get("backend") {
        return Some(backend.clone());
    }
    let of_rows: BTreeSet<&str> = study
        .rows
        .iter()
        .filter_map(|row| row.axes.get("backend").map(String::as_str))
        .collect();
    (!of_rows.is_empty()).then(|| of_rows.into_iter().collect::<Vec<_>>().join(", "))
}

/// What all rows have in common.
pub fn settings_table(study: &Study) -> Table {
    let text = |text: &String| Cell::Text(text.clone());
    Table::new(
        "Settings",
        vec![
            Column::new(Heading::text("Setting"), study.settings.keys().map(text)),
            Column::new(Heading::text("Value"), study.settings.values().map(text)),
        ],
    )
}

/// All rows with all that was measured.
pub fn results_table(study: &Study) -> Table {
    let rows: Vec<(usize, &Row)> = study.rows.iter().enumerate().collect();
    let mut columns = name_columns(study, &rows);
    columns.push(Column::new(
        Heading::text("Status"),
        rows.iter().map(|(_, row)| Cell::Text(row.status.words().to_owned())),
    ));
    columns.push(Column::new(
        Heading::text("Reason"),
        rows.iter().map(|(_, row)| Cell::some_text(row.reason.as_deref())),
    ));
    columns.extend(METRICS.iter().map(|metric| metric_column(metric, &rows)));
    columns.extend(counters(study).into_iter().map(|name| {
        let cells = rows.iter().map(|(index, row)| {
            let value = row.figures.as_ref().and_then(|figures| figures.counters.get(name));
            let pointer = format!("/rows/{index}/figures/counters/{}", pointer_key(name));
            Cell::at(value.copied(), pointer, 1.0)
        });
        Column::new(Heading::number(name, ""), cells)
    }));
    Table::new("Results", columns)
}

/// The rows that were measured, the fastest first, against the baseline.
pub fn leader_board(study: &Study) -> Table {
    let rows = ranked(study);
    let title = match study.baseline() {
        Some(baseline) => format!("Leader board, against {}", baseline.name),
        None => "Leader board".to_owned(),
    };
    let place = |place: usize| Cell::Text(place.to_string());
    let mut columns = vec![Column::new(Heading::text("Place"), (1..=rows.len()).map(place))];
    columns.extend(name_columns(study, &rows).into_iter().take(1));
    columns.extend(LEADER_BOARD.iter().map(|key| metric_column(metric_named(key), &rows)));
    Table::new(title, columns)
}

/// Which configuration for which goal.
pub fn conclusions_table(study: &Study) -> Table {
    let all = &study.conclusions;
    Table::new(
        "Which for which goal",
        vec![
            Column::new(Heading::text("Goal"), all.iter().map(|c| Cell::Text(c.goal.clone()))),
            Column::new(
                Heading::text("Configuration"),
                all.iter()
                    .map(|c| Cell::Text(c.row.clone().unwrap_or_else(|| "none".to_owned()))),
            ),
            Column::new(
                Heading::text("Because"),
                all.iter().map(|c| Cell::Text(c.because.clone())),
            ),
        ],
    )
}

/// The rows with figures and their places in the study, the one with the most tokens a second first.
pub(crate) fn ranked(study: &Study) -> Vec<(usize, &Row)> {
    let rate = |row: &Row| row.figures.as_ref().map_or(f64::NAN, |figures| figures.tokens_per_sec);
    let mut rows: Vec<(usize, &Row)> = study
        .rows
        .iter()
        .enumerate()
        .filter(|(_, row)| row.status == Status::Done && rate(row).is_finite())
        .collect();
    rows.sort_by(|(_, a), (_, b)| rate(b).total_cmp(&rate(a)));
    rows
}

/// Every counter that any row has.
pub(super) fn counters(study: &Study) -> BTreeSet<&str> {
    study
        .rows
        .iter()
        .filter_map(|row| row.figures.as_ref())
        .flat_map(|figures| figures.counters.keys().map(String::as_str))
        .collect()
}

fn name_columns(study: &Study, rows: &[(usize, &Row)]) -> Vec<Column> {
    let name = |row: &Row| {
        let mark = if study.baseline.as_ref() == Some(&row.name) {
            " (baseline)"
        } else {
            ""
        };
        Cell::Text(format!("{}{mark}", row.name))
    };
    let mut columns = vec![
        Column::new(Heading::text("Name"), rows.iter().map(|(_, row)| name(row))),
        Column::new(
            Heading::text("Peer"),
            rows.iter().map(|(_, row)| Cell::some_text(row.peer.as_deref())),
        ),
    ];
    columns.extend(study.axes.iter().map(|axis| {
        let cells = rows
            .iter()
            .map(|(_, row)| Cell::some_text(row.axes.get(axis).map(String::as_str)));
        Column::new(Heading::text(axis.clone()), cells)
    }));
    columns
}

fn metric_column(metric: &Metric, rows: &[(usize, &Row)]) -> Column {
    let cells = rows.iter().map(|(index, row)| {
        let source = Source::At(format!("/rows/{index}{}", metric.pointer));
        Cell::number((metric.value)(row), source, metric.per)
    });
    Column::new(Heading::number(metric.title, metric.unit), cells).with_decimals(metric.decimals)
}
