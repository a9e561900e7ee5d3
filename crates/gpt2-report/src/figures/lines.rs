//! Line charts of a study's rows: against the batch, the threads or the devices, and their losses.

use super::Figure;
use super::axis::Axis;
use super::bars::measured;
use super::chart::{Chart, LegendEntry, LegendSymbol, Mark, Marker, Panel, Stroke, WIDTH, series_style};
use super::downsample::downsampled;
use super::names;
use super::theme::PlotColor;
use gpt2_records::{Row, Status, Study};

const GIB: f64 = 1_073_741_824.0;

/// About the length of a plot in a figure of so many panels, in pixels.
fn plot_px(panels: u32) -> f64 {
    f64::from(WIDTH / panels) - 100.0
}

/// Rows that differ in one axis alone.
struct Series<'a> {
    name: String,
    /// The axis's value and the row, in the order of the values.
    rows: Vec<(f64, &'a Row)>,
}

/// The rows with a number on `axis`, in series of those that agree in everything else.
fn series<'a>(study: &'a Study, axis: &str) -> Vec<Series<'a>> {
    let others: Vec<&String> = study.axes.iter().filter(|other| *other != axis).collect();
    let with_value = study
        .rows
        .iter()
        .filter(|row| row.status != Status::Skipped)
        .filter_map(|row| {
            let value: f64 = row.axes.get(axis)?.parse().ok()?;
            (value.is_finite() && value > 0.0).then_some((value, row))
        });
    let key = |row: &'a Row| -> Key<'a> {
        let settings = others.iter().map(|axis| row.axes.get(*axis).map(String::as_str));
        (row.peer.as_deref(), settings.collect())
    };
    let mut found: Vec<Vec<(f64, &Row)>> = Vec::new();
    for (value, row) in with_value {
        match found.iter_mut().find(|rows| key(rows[0].1) == key(row)) {
            Some(rows) => rows.push((value, row)),
            None => found.push(vec![(value, row)]),
        }
    }
    let firsts: Vec<&Row> = found.iter().map(|rows| rows[0].1).collect();
    let names = names::differing_settings(study, &firsts, Some(axis));
    for rows in &mut found {
        rows.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    }
    names
        .into_iter()
        .zip(found)
        .map(|(name, rows)| Series { name, rows })
        .collect()
}

/// What rows of a series have in common: the program and the settings.
type Key<'a> = (Option<&'a str>, Vec<Option<&'a str>>);

/// The name of the study's axis among `names`.
fn axis_of<'a>(study: &'a Study, names: &[&str]) -> Option<&'a str> {
    study.axes.iter().map(String::as_str).find(|axis| names.contains(axis))
}

/// The marks of a line through `points`, and its entry in the legend.
fn line(number: usize, name: &str, points: &[(f64, f64)]) -> ([Mark; 2], LegendEntry) {
    let (stroke, marker) = series_style(number);
    let marks = [
        Mark::Line {
            points: points.to_vec(),
            stroke,
        },
        Mark::Points {
            points: points.to_vec(),
            marker,
            color: stroke.color,
        },
    ];
    let entry = LegendEntry {
        text: name.to_owned(),
        symbol: LegendSymbol::Line(stroke, Some(marker)),
    };
    (marks, entry)
}

pub(super) fn throughput_against_batch(study: &Study) -> Option<Figure> {
    let value = |row: &Row| row.figures.as_ref().map(|figures| figures.tokens_per_sec);
    let chart = against_batch(
        study,
        "Throughput against batch",
        "throughput (tokens/s)",
        value,
        |_| Some(0.0),
    )?;
    Some(Figure::new(
        "throughput_against_batch",
        "Tokens a second of the median step. A cross at the bottom is a configuration that ran out of memory.",
        chart,
    ))
}

pub(super) fn memory_against_batch(study: &Study) -> Option<Figure> {
    let gib = |bytes: u64| bytes as f64 / GIB;
    let value = |row: &Row| row.figures.as_ref().map(|figures| gib(figures.peak_memory_bytes));
    let predicted = |row: &Row| row.predicted_memory_bytes.map(gib);
    let chart = against_batch(study, "Memory against batch", "peak memory (GiB)", value, predicted)?;
    Some(Figure::new(
        "memory_against_batch",
        "Largest size of the device's memory pool, on a CPU of the process. A cross is a configuration that ran out of \
         memory, at what it was expected to need.",
        chart,
    ))
}

fn against_batch(
    study: &Study,
    title: &str,
    y_title: &str,
    value: impl Fn(&Row) -> Option<f64>,
    value_out_of_memory: impl Fn(&Row) -> Option<f64>,
) -> Option<Chart> {
    let axis = axis_of(study, &["batch"])?;
    let series = series(study, axis);
    let (mut marks, mut legend) = (Vec::new(), Vec::new());
    let mut values = Vec::new();
    let mut crosses = Vec::new();
    for (number, series) in series.iter().enumerate() {
        let points: Vec<(f64, f64)> = series
            .rows
            .iter()
            .filter_map(|(batch, row)| Some((*batch, value(row).filter(|v| v.is_finite())?)))
            .collect();
        let of_memory = series.rows.iter().filter(|(_, row)| row.status == Status::OutOfMemory);
        let failed: Vec<(f64, f64)> = of_memory
            .filter_map(|(batch, row)| Some((*batch, value_out_of_memory(row)?)))
            .collect();
        values.extend(points.iter().chain(&failed).copied());
        if !failed.is_empty() {
            crosses.push(Mark::Points {
                points: failed,
                marker: Marker::Cross,
                color: series_style(number).0.color,
            });
        }
        if points.is_empty() {
            continue;
        }
        let (line, entry) = line(number, &series.name, &points);
        marks.extend(line);
        legend.push(entry);
    }
    if legend.is_empty() {
        return None;
    }
    if !crosses.is_empty() {
        legend.push(LegendEntry {
            text: "out of memory".to_owned(),
            symbol: LegendSymbol::Marker(Marker::Cross, PlotColor::Foreground),
        });
        marks.extend(crosses);
    }
    let panel = Panel {
        x: Axis::at_values("batch (sequences)", values.iter().map(|(batch, _)| *batch), plot_px(1)),
        y: Axis::from_zero(y_title, values.iter().map(|(_, value)| *value), 6),
        marks,
    };
    Some(Chart {
        title: title.to_owned(),
        panels: vec![panel],
        legend,
    })
}

/// Tokens a second and parallel efficiency of each variant, against its threads.
pub(super) fn thread_scaling(study: &Study) -> Option<Figure> {
    let axis = axis_of(study, &["threads"])?;
    let chart = scaling(study, axis, "Thread scaling", "CPU threads", Rate::TokensPerSec)?;
    Some(Figure::new(
        "thread_scaling",
        "Left: tokens a second of the median step. Right: tokens a second and thread, over those of the same variant with the \
         fewest threads.",
        chart,
    ))
}

/// Speed-up and parallel efficiency of each variant, against its devices.
pub(super) fn device_scaling(study: &Study) -> Option<Figure> {
    let axis = axis_of(study, &["devices", "ranks", "gpus", "world_size"])?;
    let chart = scaling(study, axis, "Scaling", axis, Rate::Speedup)?;
    Some(Figure::new(
        "scaling",
        "Left: tokens a second over those of the same variant on the fewest devices; the dashed line is as many times faster \
         as there are devices. Right: the same over the ratio of devices.",
        chart,
    ))
}

/// What the left panel of a scaling figure shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rate {
    TokensPerSec,
    Speedup,
}

fn scaling(study: &Study, axis: &str, title: &str, x_title: &str, rate: Rate) -> Option<Chart> {
    let (mut left, mut right, mut legend) = (Vec::new(), Vec::new(), Vec::new());
    let (mut counts, mut rates, mut efficiencies) = (Vec::new(), Vec::new(), vec![100.0]);
    for (number, series) in series(study, axis).iter().enumerate() {
        let measured: Vec<(f64, f64)> = series
            .rows
            .iter()
            .filter_map(|(count, row)| Some((*count, row.figures.as_ref()?.tokens_per_sec)))
            .filter(|(_, rate)| rate.is_finite() && *rate > 0.0)
            .collect();
        let Some(&(fewest, first_rate)) = measured.first() else {
            continue;
        };
        let shown: Vec<(f64, f64)> = measured
            .iter()
            .map(|&(count, tokens_per_sec)| match rate {
                Rate::TokensPerSec => (count, tokens_per_sec),
                Rate::Speedup => (count, tokens_per_sec / first_rate),
            })
            .collect();
        let efficiency: Vec<(f64, f64)> = measured
            .iter()
            .map(|&(count, rate)| (count, 100.0 * (rate / first_rate) / (count / fewest)))
            .collect();
        counts.extend(measured.iter().map(|(count, _)| *count));
        rates.extend(shown.iter().map(|(_, rate)| *rate));
        efficiencies.extend(efficiency.iter().map(|(_, share)| *share));
        let (line_left, entry) = line(number, &series.name, &shown);
        let (line_right, _) = line(number, &series.name, &efficiency);
        left.extend(line_left);
        right.extend(line_right);
        legend.push(entry);
    }
    if legend.is_empty() {
        return None;
    }
    let ideal = Stroke {
        color: PlotColor::Muted,
        width: 1,
        dash: Some((4, 3)),
    };
    let x = || Axis::at_values(x_title, counts.iter().copied(), plot_px(2));
    let (first, last) = (x().start(), x().end());
    right.insert(
        0,
        Mark::Line {
            points: vec![(first, 100.0), (last, 100.0)],
            stroke: ideal,
        },
    );
    if rate == Rate::Speedup {
        let fewest = counts.iter().copied().fold(f64::INFINITY, f64::min);
        let mut stops = counts.clone();
        stops.sort_by(f64::total_cmp);
        stops.dedup();
        let points: Vec<(f64, f64)> = stops.iter().map(|count| (*count, count / fewest)).collect();
        rates.extend(points.iter().map(|(_, speedup)| *speedup));
        left.insert(0, Mark::Line { points, stroke: ideal });
        legend.push(LegendEntry {
            text: "ideal".to_owned(),
            symbol: LegendSymbol::Line(ideal, None),
        });
    }
    let y_title = match rate {
        Rate::TokensPerSec => "throughput (tokens/s)",
        Rate::Speedup => "speed-up (×)",
    };
    Some(Chart {
        title: title.to_owned(),
        panels: vec![
            Panel {
                x: x(),
                y: Axis::from_zero(y_title, rates, 6),
                marks: left,
            },
            Panel {
                x: x(),
                y: Axis::from_zero("parallel efficiency (%)", efficiencies, 6),
                marks: right,
            },
        ],
        legend,
    })
}

/// Losses of one run: of each step, and where they were taken on the validation tokens.
pub(super) struct LossCurve {
    pub(super) name: String,
    pub(super) train: Vec<(f64, f64)>,
    pub(super) val: Vec<(f64, f64)>,
}

/// Training losses as thin lines, validation losses as marks on them.
pub(super) fn losses(curves: &[LossCurve]) -> Option<Figure> {
    let (mut marks, mut legend) = (Vec::new(), Vec::new());
    let points = || {
        curves
            .iter()
            .flat_map(|curve| curve.train.iter().chain(&curve.val))
            .copied()
    };
    if !points().any(|(step, loss)| step.is_finite() && loss.is_finite()) {
        return None;
    }
    for (number, curve) in curves.iter().enumerate() {
        let (wide, marker) = series_style(number);
        let thin = Stroke { width: 1, ..wide };
        // Where there is a line of training losses, the validation losses need none.
        let (line, stroke) = if curve.train.is_empty() {
            (&curve.val, wide)
        } else {
            (&curve.train, thin)
        };
        marks.push(Mark::Line {
            points: downsampled(line),
            stroke,
        });
        marks.push(Mark::Points {
            points: downsampled(&curve.val),
            marker,
            color: wide.color,
        });
        legend.push(LegendEntry {
            text: curve.name.clone(),
            symbol: LegendSymbol::Line(stroke, (!curve.val.is_empty()).then_some(marker)),
        });
    }
    let panel = Panel {
        x: Axis::around("optimizer step", points().map(|(step, _)| step), 7),
        y: Axis::around("loss (nats a token)", points().map(|(_, loss)| loss), 6),
        marks,
    };
    let chart = Chart {
        title: "Loss".to_owned(),
        panels: vec![panel],
        legend,
    };
    Some(Figure::new(
        "loss",
        "Thin lines: training loss of each step, where there are many the mean of neighbours. Marks: validation loss.",
        chart,
    ))
}

/// The losses of a study's rows.
pub(super) fn losses_of_rows(study: &Study) -> Option<Figure> {
    let curves: Vec<LossCurve> = measured(study)
        .into_iter()
        .filter(|(_, figures)| !figures.losses.is_empty() || !figures.val_losses.is_empty())
        .map(|(row, figures)| LossCurve {
            name: row.name.clone(),
            train: figures
                .losses
                .iter()
                .zip(1..)
                .map(|(&loss, step)| (f64::from(step), loss))
                .collect(),
            val: figures
                .val_losses
                .iter()
                .map(|&(step, loss)| (step as f64, loss))
                .collect(),
        })
        .collect();
    losses(&curves)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::made_up;
    use gpt2_records::{Figures, StudyKind};

    fn points(marks: &[Mark]) -> Vec<&[(f64, f64)]> {
        let points = marks.iter().filter_map(|mark| match mark {
            Mark::Points { points, .. } => Some(points.as_slice()),
            _ => None,
        });
        points.collect()
    }

    #[test]
    fn rows_that_differ_in_the_axis_alone_are_a_series() {
        let study = made_up::sweep();
        let series = series(&study, "batch");
        let names: Vec<&str> = series.iter().map(|series| series.name.as_str()).collect();
        assert_eq!(names[0], "gpt2, f32, recompute none");
        assert_eq!(
            names[6..],
            ["PyTorch, bf16, compile none", "PyTorch, bf16, compile default"]
        );
        let batches: Vec<f64> = series[0].rows.iter().map(|(batch, _)| *batch).collect();
        assert_eq!(batches, [4.0, 8.0, 16.0, 32.0]);
        // The skipped row is in none.
        assert_eq!(
            series.iter().map(|series| series.rows.len()).sum::<usize>(),
            study.rows.len() - 1
        );
    }

    #[test]
    fn what_ran_out_of_memory_is_a_cross_where_it_was_expected() {
        let study = made_up::sweep();
        let figure = memory_against_batch(&study).unwrap();
        let crosses = figure.chart.panels[0].marks.iter().find_map(|mark| match mark {
            Mark::Points {
                points,
                marker: Marker::Cross,
                ..
            } => Some(points.clone()),
            _ => None,
        });
        let predicted = study.rows[3].predicted_memory_bytes.unwrap() as f64 / GIB;
        assert_eq!(crosses, Some(vec![(32.0, predicted)]));
    }

    /// Tokens a second on 1, 2 and 4 GPUs, of a published study of fixed work.
    #[test]
    fn efficiency_is_of_the_same_variant() {
        let mut study = made_up::empty(StudyKind::Scaling);
        study.axes = vec!["devices".to_owned()];
        let template = made_up::fixed_work().rows.remove(0);
        let rates = [("1", 29_600.0), ("2", 57_289.0), ("4", 100_791.0)];
        study.rows = rates
            .into_iter()
            .map(|(devices, tokens_per_sec)| Row {
                axes: [("devices".to_owned(), devices.to_owned())].into(),
                figures: Some(Figures {
                    tokens_per_sec,
                    ..Figures::default()
                }),
                ..template.clone()
            })
            .collect();
        let chart = device_scaling(&study).unwrap().chart;
        let rounded = |panel: usize| -> Vec<f64> {
            let points = points(&chart.panels[panel].marks)[0].iter();
            points.map(|(_, value)| (value * 100.0).round() / 100.0).collect()
        };
        assert_eq!(rounded(0), [1.0, 1.94, 3.41]);
        let shares: Vec<f64> = rounded(1).iter().map(|share| share.round()).collect();
        assert_eq!(shares, [100.0, 97.0, 85.0]);
    }

    #[test]
    fn validation_losses_are_marks_on_the_training_line() {
        let curve = |train: Vec<(f64, f64)>| LossCurve {
            name: "run".to_owned(),
            train,
            val: vec![(0.0, 9.0), (10.0, 8.0)],
        };
        let first_line = |figure: Option<Figure>| match figure.unwrap().chart.panels.remove(0).marks.remove(0) {
            Mark::Line { points, stroke } => (points, stroke.width),
            other => panic!("{other:?}"),
        };
        assert_eq!(first_line(losses(&[curve(vec![(1.0, 8.9)])])), (vec![(1.0, 8.9)], 1));
        assert_eq!(
            first_line(losses(&[curve(Vec::new())])),
            (vec![(0.0, 9.0), (10.0, 8.0)], 2)
        );
        assert_eq!(losses(&[]), None);
    }
}
