//! Figures of a profile: layer kinds, roofline, attention against feed-forward, top-down metrics.

use super::Figure;
use super::axis::{Axis, extent};
use super::bars::Bars;
use super::chart::{Chart, LegendEntry, LegendSymbol, Mark, Marker, Panel, Stroke};
use super::theme::PlotColor;
use crate::number::{fixed, label};
use crate::tables::{SlotField, mean};
use gpt2_records::{KindTime, OperationTime, Profile, TopDown};
use std::fmt::Write;

const FORWARD: PlotColor = PlotColor::Series(0);
const BACKWARD: PlotColor = PlotColor::Series(3);

/// All of them, as far as there are numbers.
pub(super) fn figures(profile: &Profile) -> Vec<Figure> {
    let top_down = profile.top_down.as_ref().and_then(top_down);
    [
        kinds(profile),
        roofline(profile),
        attention_against_feed_forward(profile),
        top_down,
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn bar(text: &str, color: PlotColor) -> LegendEntry {
    LegendEntry {
        text: text.to_owned(),
        symbol: LegendSymbol::Bar(color),
    }
}

fn kinds(profile: &Profile) -> Option<Figure> {
    if profile.kinds.is_empty() {
        return None;
    }
    let names: Vec<String> = profile.kinds.iter().map(|kind| kind.kind.clone()).collect();
    let px = Chart::row_plot_width(&names, 1);
    let row = |kind: &KindTime| {
        let total = kind.forward_ms + kind.backward_ms;
        let words = format!("{} ms, {} %", label(total), fixed(100.0 * kind.share, 1));
        (vec![(kind.forward_ms, FORWARD), (kind.backward_ms, BACKWARD)], words)
    };
    let bars = Bars {
        title: "time in a step (ms)",
        rows: profile.kinds.iter().map(row).collect(),
    };
    let chart = Chart {
        title: "Time by layer kind".to_owned(),
        panels: vec![bars.panel(&names, px)],
        legend: vec![bar("forward, or not divided", FORWARD), bar("backward", BACKWARD)],
    };
    Some(Figure::new(
        "layer_kinds",
        "Medians over the profiled steps. Words: both together, and their share of a step that was not profiled.",
        chart,
    ))
}

/// FLOP a byte, and FLOP/s in units of TFLOP/s. None where there is no work, no traffic or no time.
fn roofline_point(operation: &OperationTime) -> Option<(f64, f64)> {
    let intensity = operation.flop / operation.bytes;
    let rate = operation.flop / (operation.ms / 1e3) / 1e12;
    let is_drawn = |value: f64| value.is_finite() && value > 0.0;
    (is_drawn(intensity) && is_drawn(rate)).then_some((intensity, rate))
}

fn roofline(profile: &Profile) -> Option<Figure> {
    let peak = profile.ceilings.product_flops / 1e12;
    let bandwidth = profile.ceilings.bytes_per_sec / 1e12;
    let is_known = |value: f64| value.is_finite() && value > 0.0;
    let mut drawn: Vec<(&OperationTime, (f64, f64))> = profile
        .operations
        .iter()
        .filter_map(|operation| Some((operation, roofline_point(operation)?)))
        .collect();
    if !(is_known(peak) && is_known(bandwidth)) || drawn.is_empty() {
        return None;
    }
    drawn.sort_by(|(a, _), (b, _)| b.ms.total_cmp(&a.ms));
    let corner = peak / bandwidth;
    let (low, high) = extent(drawn.iter().map(|(_, (intensity, _))| *intensity).chain([corner]))?;
    let x = Axis::log("work (FLOP for each byte read or written)", [low, high]);
    // The roof, from the one side of the plot to the other.
    let roof = vec![(x.start(), bandwidth * x.start()), (corner, peak), (x.end(), peak)];
    let roof_stroke = Stroke {
        color: PlotColor::Foreground,
        width: 2,
        dash: None,
    };
    let mut kinds: Vec<&str> = drawn.iter().map(|(operation, _)| operation.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut marks = vec![Mark::Line {
        points: roof,
        stroke: roof_stroke,
    }];
    let color = |kind: &str| PlotColor::Series(kinds.iter().position(|other| *other == kind).unwrap_or_default());
    for (operation, point) in &drawn {
        marks.push(Mark::Points {
            points: vec![*point],
            marker: marker(&operation.pass),
            color: color(&operation.kind),
        });
    }
    let labels = drawn
        .iter()
        .zip(1..)
        .map(|((_, point), number)| (*point, format!("{number}")));
    marks.push(Mark::Labels(labels.collect()));
    let mut legend = vec![LegendEntry {
        text: format!("ceilings: {} TFLOP/s, {} GB/s", label(peak), label(bandwidth * 1e3)),
        symbol: LegendSymbol::Line(roof_stroke, None),
    }];
    legend.extend(drawn.iter().zip(1..).map(|((operation, _), number)| LegendEntry {
        text: format!("{number} {}, {}", operation.name, operation.pass),
        symbol: LegendSymbol::Marker(marker(&operation.pass), color(&operation.kind)),
    }));
    let without = profile.operations.len() - drawn.len();
    let mut caption = "Each operation at its work for each byte and at its rate, under the two ceilings measured at the start. \
                       The nearer to the line, the less is left to gain. Numbers: by time, the longest first. Colours: layer \
                       kinds."
        .to_owned();
    if without > 0 {
        let _ = write!(
            caption,
            " Not drawn: {without} without floating-point operations or without a time."
        );
    }
    let rates = drawn
        .iter()
        .map(|(_, (_, rate))| *rate)
        .chain([peak, bandwidth * x.start()]);
    let chart = Chart {
        title: "Roofline".to_owned(),
        panels: vec![Panel {
            x,
            y: Axis::log("rate (TFLOP/s)", rates),
            marks,
        }],
        legend,
    };
    Some(Figure::new("roofline", caption, chart))
}

fn marker(pass: &str) -> Marker {
    match pass {
        "forward" => Marker::Circle,
        "backward" => Marker::TriangleDown,
        _ => Marker::Square,
    }
}

fn attention_against_feed_forward(profile: &Profile) -> Option<Figure> {
    const KINDS: [&str; 2] = ["attention", "feed-forward"];
    let times: Vec<&KindTime> = KINDS
        .iter()
        .filter_map(|name| profile.kinds.iter().find(|kind| kind.kind == *name))
        .collect();
    if times.len() < KINDS.len() {
        return None;
    }
    let names: Vec<String> = KINDS.iter().map(|&name| name.to_owned()).collect();
    let sum = |kind: &str, pass: &str, value: fn(&OperationTime) -> f64| -> f64 {
        let operations = profile.operations.iter();
        operations.filter(|o| o.kind == kind && o.pass == pass).map(value).sum()
    };
    let both =
        |kind: &str, value: fn(&OperationTime) -> f64| sum(kind, "forward", value) + sum(kind, "backward", value);
    let time = times.iter().map(|kind| {
        let parts = vec![(kind.forward_ms, FORWARD), (kind.backward_ms, BACKWARD)];
        (parts, label(kind.forward_ms + kind.backward_ms))
    });
    let work = KINDS.iter().map(|kind| {
        let of = |pass| sum(kind, pass, |o| o.flop) / 1e9;
        (
            vec![(of("forward"), FORWARD), (of("backward"), BACKWARD)],
            label(of("forward") + of("backward")),
        )
    });
    let rate = |value: fn(&OperationTime) -> f64, per: f64| {
        KINDS
            .iter()
            .map(|kind| {
                let rate = both(kind, value) / (both(kind, |o| o.ms) / 1e3) / per;
                (
                    vec![(rate, PlotColor::Series(5))],
                    if rate.is_finite() { label(rate) } else { String::new() },
                )
            })
            .collect::<Vec<_>>()
    };
    let panels = [
        ("time (ms)", time.collect::<Vec<_>>()),
        ("work (GFLOP)", work.collect()),
        ("rate (TFLOP/s)", rate(|o| o.flop, 1e12)),
        ("traffic (GB/s)", rate(|o| o.bytes, 1e9)),
    ];
    // Where no operation is known, only the times are.
    let panels: Vec<_> = panels
        .into_iter()
        .filter(|(_, rows)| {
            rows.iter()
                .any(|(parts, _)| parts.iter().any(|(value, _)| *value > 0.0))
        })
        .collect();
    if panels.is_empty() {
        return None;
    }
    let px = Chart::row_plot_width(&names, panels.len());
    let panels = panels
        .into_iter()
        .map(|(title, rows)| Bars { title, rows }.panel(&names, px));
    let chart = Chart {
        title: "Attention against feed-forward".to_owned(),
        panels: panels.collect(),
        legend: vec![
            bar("forward", FORWARD),
            bar("backward", BACKWARD),
            bar("both", PlotColor::Series(5)),
        ],
    };
    Some(Figure::new(
        "attention_against_feed_forward",
        "Of a step. Work and traffic are those of the operations of each kind; rates are over the operations' time.",
        chart,
    ))
}

fn top_down(top_down: &TopDown) -> Option<Figure> {
    const PARTS: [(&str, SlotField, PlotColor); 5] = [
        ("retiring", ("retiring", |s| s.retiring), PlotColor::Series(0)),
        (
            "bad speculation",
            ("bad_speculation", |s| s.bad_speculation),
            PlotColor::Series(1),
        ),
        ("front end", ("front_end", |s| s.front_end), PlotColor::Series(2)),
        ("back end: memory", ("memory", |s| s.memory), PlotColor::Series(3)),
        ("back end: core", ("core", |s| s.core), PlotColor::Series(4)),
    ];
    let kinds: Vec<_> = top_down.kinds.iter().filter(|(_, trials)| !trials.is_empty()).collect();
    if kinds.is_empty() {
        return None;
    }
    let names: Vec<String> = kinds.iter().map(|(kind, _)| (*kind).clone()).collect();
    let px = Chart::row_plot_width(&names, 1);
    let rows = kinds.iter().map(|(_, trials)| {
        let parts = PARTS
            .iter()
            .map(|(_, (_, value), color)| (100.0 * mean(trials, *value), *color));
        (parts.collect(), format!("CPI {}", fixed(mean(trials, |s| s.cpi), 2)))
    });
    let bars = Bars {
        title: "share of the pipeline's slots (%)",
        rows: rows.collect(),
    };
    let (title, caption) = match &top_down.recorded {
        Some(recording) => (
            "Top-down averages (recorded)",
            format!(
                "Means over trials, of a recording and not of this machine: {recording}. Words: cycles an instruction."
            ),
        ),
        None => (
            "Top-down averages",
            "Means over trials. Words: cycles an instruction.".to_owned(),
        ),
    };
    let chart = Chart {
        title: title.to_owned(),
        panels: vec![bars.panel(&names, px)],
        legend: PARTS.iter().map(|(text, _, color)| bar(text, *color)).collect(),
    };
    Some(Figure::new("top_down", caption, chart))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(flop: f64, bytes: f64, ms: f64) -> OperationTime {
        OperationTime {
            flop,
            bytes,
            ms,
            ..OperationTime::default()
        }
    }

    #[test]
    fn operations_have_a_place_under_the_roof() {
        // 2 GFLOP in 4 ms over 8 MB.
        let (intensity, rate) = roofline_point(&operation(2e9, 8e6, 4.0)).unwrap();
        assert!((intensity - 250.0).abs() < 1e-9 && (rate - 0.5).abs() < 1e-12);
        for nowhere in [
            operation(0.0, 8e6, 4.0),
            operation(2e9, 0.0, 4.0),
            operation(2e9, 8e6, 0.0),
        ] {
            assert_eq!(roofline_point(&nowhere), None);
        }
        assert_eq!(roofline_point(&operation(f64::NAN, 8e6, 4.0)), None);
    }

    #[test]
    fn a_profile_without_ceilings_has_no_roof() {
        let profile = Profile {
            operations: vec![operation(2e9, 8e6, 4.0)],
            ..Profile::default()
        };
        assert_eq!(roofline(&profile), None);
    }
}
