//! `results.csv`: a row for each configuration, numbers in full.

use super::columns::METRICS;
use super::study::counters;
use gpt2_records::{Row, Study};

/// The rows of a study as `results.csv` holds them: name, peer, axes, status and reason, what was measured with the unit in
/// each name, then every counter. What was not measured, or is not finite, is an empty field.
pub fn results_csv(study: &Study) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let counters = counters(study);
    let head = ["name", "peer"]
        .into_iter()
        .chain(study.axes.iter().map(String::as_str))
        .chain(["status", "reason"])
        .chain(METRICS.iter().map(|metric| metric.key))
        .chain(counters.iter().copied());
    let rows = study
        .rows
        .iter()
        .map(|row| fields(row, &study.axes, counters.iter().copied()));
    writer
        .write_record(head)
        .and_then(|()| rows.into_iter().try_for_each(|row| writer.write_record(row)))
        .unwrap_or_else(|error| unreachable!("a row of another length: {error}"));
    writer
        .into_inner()
        .unwrap_or_else(|error| unreachable!("writing to memory failed: {error}"))
}

fn fields<'a>(row: &Row, axes: &[String], counters: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut fields = vec![row.name.clone(), row.peer.clone().unwrap_or_default()];
    fields.extend(axes.iter().map(|axis| row.axes.get(axis).cloned().unwrap_or_default()));
    fields.push(row.status.words().to_owned());
    fields.push(row.reason.clone().unwrap_or_default());
    fields.extend(METRICS.iter().map(|metric| number((metric.value)(row), metric.csv_per)));
    fields.extend(counters.map(|name| {
        let value = row.figures.as_ref().and_then(|figures| figures.counters.get(name));
        number(value.copied(), 1.0)
    }));
    fields
}

fn number(value: Option<f64>, per: f64) -> String {
    value
        .map(|value| value / per)
        .filter(|value| value.is_finite())
        .map_or_else(String::new, |value| value.to_string())
}
