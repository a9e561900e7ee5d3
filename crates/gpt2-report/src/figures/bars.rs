//! Bar charts of a study's rows: warm-up, speed-up, jitter.

use super::Figure;
use super::axis::Axis;
use super::chart::{Chart, LegendEntry, LegendSymbol, Mark, Marker, Panel, Stroke};
use super::text;
use super::text::TEXT_SIZE;
use super::theme::PlotColor;
use crate::number::{fixed, label};
use crate::tables::ranked;
use gpt2_records::{Figures, Row, Status, StepTimes, Study};
use std::fmt::Write;

const OURS: PlotColor = PlotColor::Series(0);
const PEER: PlotColor = PlotColor::Series(3);

/// Bars with words at their ends.
pub(super) struct Bars<'a> {
    /// The title of the values' axis, with the unit.
    pub(super) title: &'a str,
    /// For each row its parts, from the axis on, with their colours; and the words after the last.
    pub(super) rows: Vec<(Vec<(f64, PlotColor)>, String)>,
}

impl Bars<'_> {
    /// A panel of `px` pixels for the bars, in the rows of `names`.
    pub(super) fn panel(self, names: &[String], px: f64) -> Panel {
        let total = |parts: &[(f64, PlotColor)]| {
            parts
                .iter()
                .map(|(value, _)| value)
                .filter(|v| v.is_finite())
                .sum::<f64>()
        };
        let totals: Vec<f64> = self.rows.iter().map(|(parts, _)| total(parts)).collect();
        let words = self.rows.iter().map(|(_, words)| text::width(words, TEXT_SIZE) + 10.0);
        let x = Axis::from_zero_with_labels(self.title, totals.iter().copied().zip(words), px);
        let mut marks = Vec::new();
        for (row, (parts, words)) in self.rows.into_iter().enumerate() {
            let mut from = 0.0;
            for (value, color) in parts.into_iter().filter(|(value, _)| *value > 0.0 && value.is_finite()) {
                let to = from + value;
                marks.push(Mark::Bar { row, from, to, color });
                from = to;
            }
            if !words.is_empty() {
                let at = (from, row as f64 + 0.5);
                marks.push(Mark::Text { at, text: words });
            }
        }
        Panel {
            x,
            y: Axis::categories(names.iter().cloned()),
            marks,
        }
    }
}

/// What warm-up costs, and the step that it leads to.
pub(super) fn warmup(study: &Study) -> Option<Figure> {
    let rows = measured(study);
    if rows.is_empty() {
        return None;
    }
    let names = names(study, &rows);
    let px = Chart::row_plot_width(&names, 2);
    let cost = rows.iter().map(|(row, figures)| match figures.settling_cost_sec {
        Some(cost) if cost.is_finite() => (vec![(cost, color(row))], label(cost)),
        _ if figures.all_step_ms.is_empty() => (Vec::new(), "not known".to_owned()),
        _ => (Vec::new(), "does not settle".to_owned()),
    });
    let cost = Bars {
        title: "warm-up: what settling costs (s)",
        rows: cost.collect(),
    };
    let steps: Vec<f64> = rows.iter().map(|(_, figures)| figures.step_ms.p50).collect();
    // The numbers stand in a column to the right of the line, which would run through them.
    let slowest = steps.iter().copied().filter(|ms| ms.is_finite()).fold(0.0, f64::max);
    let words = steps
        .iter()
        .map(|ms| text::width(&label(*ms), TEXT_SIZE))
        .fold(0.0, f64::max);
    let mut x = Axis::from_zero_with_labels("median step once settled (ms)", [(slowest, words + 12.0)], px);
    x.ticks.retain(|(tick, _)| *tick <= slowest);
    let points: Vec<(f64, f64)> = steps
        .iter()
        .zip(0..)
        .map(|(&ms, row)| (ms, f64::from(row) + 0.5))
        .collect();
    let line = Stroke {
        color: PlotColor::Series(1),
        width: 2,
        dash: None,
    };
    let mut marks = vec![
        Mark::Line {
            points: points.clone(),
            stroke: line,
        },
        Mark::Points {
            points: points.clone(),
            marker: Marker::Circle,
            color: line.color,
        },
    ];
    marks.extend(points.iter().map(|&(ms, row)| Mark::Text {
        at: (slowest, row),
        text: label(ms),
    }));
    let chart = Chart {
        title: "Warm-up and step time".to_owned(),
        panels: vec![
            cost.panel(&names, px),
            Panel {
                x,
                y: Axis::categories(names.iter().cloned()),
                marks,
            },
        ],
        legend: peers_legend(&rows),
    };
    Some(Figure::new(
        "warmup_and_step_time",
        "Bars: seconds that the steps before the first settled one took beyond as many settled ones. Line: the median of the \
         timed steps. A step has settled when three in a row take at most 1.1 times the median of the later half.",
        chart,
    ))
}

/// Tokens a second against the baseline's, or where there is none as they are; the fastest first.
pub(super) fn speedup(study: &Study) -> Option<Figure> {
    let rows: Vec<(&Row, &Figures)> = ranked(study)
        .into_iter()
        .filter_map(|(_, row)| Some((row, row.figures.as_ref()?)))
        .collect();
    if rows.is_empty() {
        return None;
    }
    let baseline = study
        .baseline()
        .filter(|_| rows.iter().any(|(row, _)| speedup_of(row).is_some()));
    let names = names(study, &rows);
    let px = Chart::row_plot_width(&names, 1);
    let bar = |(row, figures): &(&Row, &Figures)| {
        let (value, words) = if baseline.is_some() {
            let value = speedup_of(row).unwrap_or(f64::NAN);
            (
                value,
                format!("{} × ({} tokens/s)", fixed(value, 2), label(figures.tokens_per_sec)),
            )
        } else {
            (figures.tokens_per_sec, label(figures.tokens_per_sec))
        };
        (vec![(value, color(row))], words)
    };
    let axis = if baseline.is_some() {
        "speed-up (× the baseline's tokens/s)"
    } else {
        "throughput (tokens/s)"
    };
    let bars = Bars {
        title: axis,
        rows: rows.iter().map(bar).collect(),
    };
    let mut panel = bars.panel(&names, px);
    let mut caption = "Tokens a second of the median step, the fastest first.".to_owned();
    if let Some(baseline) = baseline {
        let stroke = Stroke {
            color: PlotColor::Foreground,
            width: 1,
            dash: Some((4, 3)),
        };
        let points = vec![(1.0, 0.0), (1.0, names.len() as f64)];
        // Words of slower rows stand to the right of the line, which would run through them.
        for mark in &mut panel.marks {
            if let Mark::Text { at, .. } = mark {
                at.0 = at.0.max(1.0);
            }
        }
        panel.marks.insert(0, Mark::Line { points, stroke });
        let _ = write!(caption, " The dashed line is the baseline, {}.", baseline.name);
    }
    let chart = Chart {
        title: if baseline.is_some() {
            "Leader board: speed-up"
        } else {
            "Leader board: throughput"
        }
        .to_owned(),
        panels: vec![panel],
        legend: peers_legend(&rows),
    };
    Some(Figure::new("speedup", caption, chart))
}

/// How much the steps of each row differ among themselves.
pub(super) fn jitter(study: &Study) -> Option<Figure> {
    let mut rows = measured(study);
    rows.retain(|(_, figures)| figures.step_ms.std.is_finite() && figures.step_ms.count > 1);
    if rows.is_empty() {
        return None;
    }
    let names = names(study, &rows);
    let px = Chart::row_plot_width(&names, 1);
    let bar = |(row, figures): &(&Row, &Figures)| {
        let (std, mean) = (figures.step_ms.std, figures.step_ms.mean);
        let relative = row.derived.map_or(std / mean, |derived| derived.jitter_relative);
        let words = if relative.is_finite() {
            format!("{} ms, {} %", label(std), fixed(100.0 * relative, 1))
        } else {
            format!("{} ms", label(std))
        };
        (vec![(std, color(row))], words)
    };
    let bars = Bars {
        title: "standard deviation of a run's own steps (ms)",
        rows: rows.iter().map(bar).collect(),
    };
    let chart = Chart {
        title: "Jitter".to_owned(),
        panels: vec![bars.panel(&names, px)],
        legend: peers_legend(&rows),
    };
    Some(Figure::new(
        "jitter",
        "Bars: standard deviation of the timed steps of each run. Words: the same, and over the run's mean step.",
        chart,
    ))
}

/// Where the time of a step goes on the slowest rank of each row.
pub(super) fn breakdown(study: &Study) -> Option<Figure> {
    const PARTS: [(&str, PlotColor); 5] = [
        ("waiting for data", PlotColor::Series(2)),
        ("host to device", PlotColor::Series(4)),
        ("computing", PlotColor::Series(0)),
        ("waiting for the slowest", PlotColor::Series(3)),
        ("communication", PlotColor::Series(1)),
    ];
    let mut rows = measured(study);
    rows.retain(|(_, figures)| figures.breakdown.is_some());
    let slowest = |figures: &Figures| {
        let breakdown = figures.breakdown.as_ref()?;
        let rank = breakdown.ranks.iter().find(|rank| rank.rank == breakdown.slowest)?;
        Some(rank.times)
    };
    let times: Vec<StepTimes> = rows.iter().filter_map(|(_, figures)| slowest(figures)).collect();
    if times.is_empty() || times.len() < rows.len() {
        return None;
    }
    let names = names(study, &rows);
    let px = Chart::row_plot_width(&names, 1);
    let bar = |times: &StepTimes| {
        let parts = times.parts().into_iter().zip(PARTS);
        let parts: Vec<_> = parts.map(|((_, ms), (_, color))| (ms, color)).collect();
        let words = format!("{} + {} ms", label(times.compute_ms), label(times.communication_ms));
        (parts, words)
    };
    let bars = Bars {
        title: "time of a step (ms)",
        rows: times.iter().map(bar).collect(),
    };
    let entry = |(text, color): (&str, PlotColor)| LegendEntry {
        text: text.to_owned(),
        symbol: LegendSymbol::Bar(color),
    };
    let chart = Chart {
        title: "Where a step's time goes, on the slowest rank".to_owned(),
        panels: vec![bars.panel(&names, px)],
        legend: PARTS.map(entry).into(),
    };
    Some(Figure::new(
        "breakdown",
        "Means over the timed steps. Words: computing and communication.",
        chart,
    ))
}

fn speedup_of(row: &Row) -> Option<f64> {
    row.derived?.speedup.filter(|speedup| speedup.is_finite())
}

/// The rows with figures, in the order of the study.
pub(super) fn measured(study: &Study) -> Vec<(&Row, &Figures)> {
    study
        .rows
        .iter()
        .filter(|row| row.status == Status::Done)
        .filter_map(|row| Some((row, row.figures.as_ref()?)))
        .collect()
}

fn names(study: &Study, rows: &[(&Row, &Figures)]) -> Vec<String> {
    let rows: Vec<&Row> = rows.iter().map(|(row, _)| *row).collect();
    super::names::bar_labels(study, &rows)
}

fn color(row: &Row) -> PlotColor {
    if row.peer.is_some() { PEER } else { OURS }
}

/// What the colours mean, where there are two.
fn peers_legend(rows: &[(&Row, &Figures)]) -> Vec<LegendEntry> {
    if rows.iter().all(|(row, _)| row.peer.is_none()) {
        return Vec::new();
    }
    let entry = |text: &str, color: PlotColor| LegendEntry {
        text: text.to_owned(),
        symbol: LegendSymbol::Bar(color),
    };
    vec![entry("gpt2", OURS), entry("another program", PEER)]
}
