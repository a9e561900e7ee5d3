//! Where the time of a step goes, rank by rank.

use super::columns::MIB;
use super::{Cell, Column, Heading, Table};
use crate::run_records::RunFigures;
use gpt2_records::{Breakdown, RankTimes, StepTimes, Study};

/// The rows of a study that trained on several ranks, and those that they are compared with; none where there are none.
pub fn study_breakdown(study: &Study) -> Option<Table> {
    let all: Vec<Of<'_>> = study
        .rows
        .iter()
        .enumerate()
        .filter_map(|(index, row)| {
            Some(Of {
                name: &row.name,
                breakdown: row.figures.as_ref()?.breakdown.as_ref()?,
                at: format!("/rows/{index}/figures/breakdown"),
            })
        })
        .collect();
    all.iter().any(|of| of.breakdown.ranks.len() > 1).then(|| table(&all))
}

/// Runs, as far as they tell. The pointers are into an array `runs` of [`RunFigures`].
pub fn runs_breakdown(runs: &[RunFigures]) -> Option<Table> {
    let all: Vec<Of<'_>> = runs
        .iter()
        .enumerate()
        .filter_map(|(index, run)| {
            Some(Of {
                name: &run.name,
                breakdown: run.breakdown.as_ref()?,
                at: format!("/runs/{index}/breakdown"),
            })
        })
        .collect();
    (!all.is_empty()).then(|| table(&all))
}

struct Of<'a> {
    name: &'a str,
    breakdown: &'a Breakdown,
    /// Where the breakdown is in the JSON.
    at: String,
}

/// A line of the table: a rank, or the mean of several.
struct Line<'a> {
    of: &'a Of<'a>,
    rank: Option<&'a RankTimes>,
    at: String,
}

impl Line<'_> {
    fn times(&self) -> &StepTimes {
        self.rank.map_or(&self.of.breakdown.mean, |rank| &rank.times)
    }

    fn words(&self) -> String {
        match self.rank {
            Some(rank) if self.of.breakdown.ranks.len() > 1 && rank.rank == self.of.breakdown.slowest => {
                format!("{} (slowest)", rank.rank)
            }
            Some(rank) => rank.rank.to_string(),
            None => "mean".to_owned(),
        }
    }
}

fn table(all: &[Of<'_>]) -> Table {
    let lines: Vec<Line<'_>> = all
        .iter()
        .flat_map(|of| {
            let ranks = of.breakdown.ranks.iter().enumerate().map(|(index, rank)| Line {
                of,
                rank: Some(rank),
                at: format!("{}/ranks/{index}", of.at),
            });
            let mean = (of.breakdown.ranks.len() > 1).then(|| Line {
                of,
                rank: None,
                at: format!("{}/mean", of.at),
            });
            ranks.chain(mean)
        })
        .collect();
    let ms = |title: &str, field: &str, value: fn(&StepTimes) -> f64| {
        let cells = lines
            .iter()
            .map(|line| Cell::at(Some(value(line.times())), format!("{}/{field}", line.at), 1.0));
        Column::new(Heading::number(title, "ms"), cells)
    };
    let overlapped = lines.iter().map(|line| {
        let at = format!("{}/overlapped_communication_ms", line.at);
        Cell::at(line.times().overlapped_communication_ms, at, 1.0)
    });
    let ratio = lines.iter().map(|line| {
        let is_slowest = line.rank.is_some_and(|rank| rank.rank == line.of.breakdown.slowest);
        let value = line.of.breakdown.compute_to_communication.filter(|_| is_slowest);
        Cell::at(value, format!("{}/compute_to_communication", line.of.at), 1.0)
    });
    let memory = lines.iter().map(|line| {
        let bytes = line.rank.and_then(|rank| rank.peak_memory_bytes);
        Cell::at(
            bytes.map(|bytes| bytes as f64),
            format!("{}/peak_memory_bytes", line.at),
            MIB,
        )
    });
    Table::new(
        "Where a step's time goes, by rank",
        vec![
            Column::new(
                Heading::text("Name"),
                lines.iter().map(|line| Cell::Text(line.of.name.to_owned())),
            ),
            Column::new(Heading::text("Rank"), lines.iter().map(|line| Cell::Text(line.words()))),
            ms("Step", "step_ms", |times| times.step_ms),
            ms("Data wait", "data_wait_ms", |times| times.data_wait_ms),
            ms("Host to device", "host_to_device_ms", |times| times.host_to_device_ms),
            ms("Compute", "compute_ms", |times| times.compute_ms),
            ms("Waiting for the slowest", "rank_wait_ms", |times| times.rank_wait_ms),
            ms("Communication", "communication_ms", |times| times.communication_ms),
            Column::new(Heading::number("Communication while computing", "ms"), overlapped),
            Column::new(Heading::number("Compute : communication", ""), ratio),
            Column::new(Heading::number("Peak memory", "MiB"), memory).with_decimals(Some(0)),
        ],
    )
}
