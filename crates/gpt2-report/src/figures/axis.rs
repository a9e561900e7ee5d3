//! An axis: a range, ticks with their words, a title with the unit.

use crate::number;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use std::ops::Range;

/// One axis of a panel. plotters asks it for pixels and ticks.
///
/// plotters' own axes choose ticks by count; these choose them by what can be read: round numbers, powers of ten, the values
/// that were measured, or names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    /// Its title, with the unit.
    pub(crate) title: String,
    /// Where it is marked, and with what.
    pub(crate) ticks: Vec<(f64, String)>,
    range: (f64, f64),
    scale: Scale,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    Log,
    /// One row for each name, the first at the top.
    Categories,
}

impl Axis {
    /// From 0 to a little more than the largest of `values`, with about `ticks` ticks.
    pub(crate) fn from_zero(title: &str, values: impl IntoIterator<Item = f64>, ticks: usize) -> Self {
        let largest = values.into_iter().filter(|v| v.is_finite()).fold(0.0, f64::max);
        let largest = if largest > 0.0 { largest * 1.06 } else { 1.0 };
        Self::linear(title, (0.0, largest), ticks)
    }

    /// Around all of `values`.
    pub(crate) fn around(title: &str, values: impl IntoIterator<Item = f64>, ticks: usize) -> Self {
        let (low, high) = extent(values).unwrap_or((0.0, 1.0));
        let margin = if high > low {
            (high - low) * 0.04
        } else {
            low.abs().max(1.0) * 0.1
        };
        // What is never negative does not go below zero for the sake of a margin.
        let bottom = if low >= 0.0 {
            (low - margin).max(0.0)
        } else {
            low - margin
        };
        Self::linear(title, (bottom, high + margin), ticks)
    }

    pub(crate) fn linear(title: &str, range: (f64, f64), ticks: usize) -> Self {
        let step = round_step((range.1 - range.0) / ticks.max(1) as f64);
        let decimals = (0..9).find(|&d| is_whole(step * 10_f64.powi(d))).unwrap_or(9) as usize;
        let first = (range.0 / step).ceil() as i64;
        let last = (range.1 / step).floor() as i64;
        let ticks = (first..=last)
            .take(100)
            .map(|i| i as f64 * step)
            .map(|tick| {
                let text = if tick != 0.0 && step < 1e-6 {
                    format!("{tick:.1e}")
                } else {
                    number::fixed(tick, decimals)
                };
                (tick, text)
            })
            .collect();
        Self {
            title: title.to_owned(),
            ticks,
            range,
            scale: Scale::Linear,
        }
    }

    /// Around all of `values` that are positive, by powers of ten.
    pub(crate) fn log(title: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = extent(values.into_iter().filter(|v| *v > 0.0)).unwrap_or((1.0, 10.0));
        let range = (low / 1.6, high * 1.6);
        let decades = (range.1 / range.0).log10();
        let factors: &[f64] = if decades < 2.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        // At most some ten ticks, however wide the range is.
        let every = (decades / 10.0).ceil().max(1.0) as i32;
        let exponents = range.0.log10().floor() as i32..=range.1.log10().ceil() as i32;
        let ticks = exponents
            .filter(|exponent| exponent.rem_euclid(every) == 0)
            .flat_map(|exponent| factors.iter().map(move |factor| factor * 10_f64.powi(exponent)))
            .filter(|tick| (range.0..=range.1).contains(tick))
            .map(|tick| (tick, number::short(tick)))
            .collect();
        Self {
            title: title.to_owned(),
            ticks,
            range,
            scale: Scale::Log,
        }
    }

    /// Positive values such as batch sizes, as many pixels apart as they are times larger, marked where they are. `px` is the
    /// axis's length, so that marks do not touch.
    pub(crate) fn at_values(title: &str, values: impl IntoIterator<Item = f64>, px: f64) -> Self {
        let mut stops: Vec<f64> = values.into_iter().filter(|v| v.is_finite() && *v > 0.0).collect();
        stops.sort_by(f64::total_cmp);
        stops.dedup();
        let (low, high) = extent(stops.iter().copied()).unwrap_or((1.0, 2.0));
        let range = (low / 1.3, high * 1.3);
        let mut axis = Self {
            title: title.to_owned(),
            ticks: Vec::new(),
            range,
            scale: Scale::Log,
        };
        let mut last = f64::NEG_INFINITY;
        for stop in stops {
            let at = axis.position(stop) * px;
            let text = number::short(stop);
            if at - last >= 12.0 + 8.0 * text.len() as f64 {
                last = at;
                axis.ticks.push((stop, text));
            }
        }
        axis
    }

    /// A row for each name, as high as one unit of the axis, from the top down.
    pub(crate) fn categories(names: impl IntoIterator<Item = String>) -> Self {
        let ticks: Vec<(f64, String)> = names
            .into_iter()
            .enumerate()
            .map(|(row, name)| (row as f64 + 0.5, name))
            .collect();
        Self {
            title: String::new(),
            range: (0.0, ticks.len().max(1) as f64),
            ticks,
            scale: Scale::Categories,
        }
    }

    /// From zero, `px` pixels long, with room to the right of each value for text of so many pixels.
    pub(crate) fn from_zero_with_labels(title: &str, values: impl IntoIterator<Item = (f64, f64)>, px: f64) -> Self {
        let end = values
            .into_iter()
            .filter(|(value, _)| value.is_finite())
            .map(|(value, text_px)| value * 1.02 / (1.0 - text_px / px).max(0.2))
            .fold(0.0, f64::max);
        let ticks = (px / 55.0).clamp(1.0, 7.0);
        Self::linear(title, (0.0, if end > 0.0 { end } else { 1.0 }), ticks as usize)
    }

    pub(crate) fn is_categorical(&self) -> bool {
        self.scale == Scale::Categories
    }

    pub(crate) fn start(&self) -> f64 {
        self.range.0
    }

    pub(crate) fn end(&self) -> f64 {
        self.range.1
    }

    /// Where `value` is, from 0 to 1. What lies outside is drawn at the end.
    fn position(&self, value: f64) -> f64 {
        let (low, high) = self.range;
        let share = match self.scale {
            Scale::Linear => (value - low) / (high - low),
            Scale::Log => (value.max(low) / low).ln() / (high / low).ln(),
            Scale::Categories => 1.0 - (value - low) / (high - low),
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (f64::from(to - from) * self.position(*value)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // No light lines between the ticks.
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        self.ticks.iter().map(|(tick, _)| *tick).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.0..self.range.1
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|(tick, _)| tick.total_cmp(value).is_eq());
        tick.map_or_else(String::new, |(_, text)| text.clone())
    }
}

/// The smallest and the largest finite value.
pub(crate) fn extent(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values
        .into_iter()
        .filter(|value| value.is_finite())
        .fold(None, |found, value| match found {
            None => Some((value, value)),
            Some((low, high)) => Some((f64::min(low, value), f64::max(high, value))),
        })
}

/// The next of 1, 2, 2.5 and 5 times a power of ten.
fn round_step(at_least: f64) -> f64 {
    if !(at_least.is_finite() && at_least > 0.0) {
        return 1.0;
    }
    let power = 10_f64.powf(at_least.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= at_least * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

fn is_whole(value: f64) -> bool {
    (value - value.round()).abs() < 1e-6 * value.abs().max(1e-3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(
            words(&Axis::linear("", (0.0, 10.0), 5)),
            ["0", "2", "4", "6", "8", "10"]
        );
        assert_eq!(words(&Axis::linear("", (0.0, 0.7), 3)), ["0.00", "0.25", "0.50"]);
        assert_eq!(
            words(&Axis::linear("", (0.0, 230_000.0), 3)),
            ["0", "100,000", "200,000"]
        );
        assert_eq!(words(&Axis::around("", [3.0, 11.0], 5)), ["4", "6", "8", "10"]);
    }

    #[test]
    fn log_axes_have_powers_of_ten() {
        assert_eq!(words(&Axis::log("", [0.05, 80.0])), ["0.1", "1", "10", "100"]);
        assert_eq!(words(&Axis::log("", [3.0, 20.0])), ["2", "5", "10", "20"]);
        assert!(Axis::log("", [1e-200, 1e200]).ticks.len() < 20);
    }

    #[test]
    fn stops_are_marked_where_they_are() {
        let axis = Axis::at_values("", [8.0, 1.0, 2.0, 4.0, 4.0, f64::NAN, 0.0], 500.0);
        assert_eq!(words(&axis), ["1", "2", "4", "8"]);
        let pixels: Vec<i32> = axis.ticks.iter().map(|(v, _)| axis.map(v, (0, 500))).collect();
        assert_eq!(pixels[1] - pixels[0], pixels[3] - pixels[2]);
        // 31 and 32 are too near each other on a short axis.
        assert_eq!(words(&Axis::at_values("", [1.0, 31.0, 32.0], 100.0)), ["1", "31"]);
    }

    #[test]
    fn rows_go_from_the_top_down() {
        let axis = Axis::categories(["a".to_owned(), "b".to_owned()]);
        // A vertical axis is given its lower end first.
        assert_eq!([0.0, 0.5, 1.5, 2.0].map(|v| axis.map(&v, (100, 0))), [0, 25, 75, 100]);
        assert_eq!(axis.format_ext(&1.5), "b");
    }

    #[test]
    fn any_numbers_make_an_axis() {
        let odd = [
            &[][..],
            &[f64::NAN],
            &[0.0],
            &[-1.0, -1.0],
            &[f64::INFINITY, 1.0],
            &[1e308, -1e308],
            &[1e-320],
        ];
        for values in odd {
            let of = || values.iter().copied();
            let axes = [
                Axis::from_zero("", of(), 5),
                Axis::around("", of(), 5),
                Axis::log("", of()),
                Axis::at_values("", of(), 300.0),
            ];
            for axis in axes {
                for value in of().chain([0.0, f64::NAN, f64::INFINITY]) {
                    assert!((0..=300).contains(&axis.map(&value, (0, 300))), "{axis:?} {value}");
                }
                assert!(axis.ticks.len() <= 100);
            }
        }
    }

    #[test]
    fn there_is_room_for_text_after_a_bar() {
        let axis = Axis::from_zero_with_labels("", [(100.0, 60.0), (90.0, 120.0), (f64::NAN, 10.0)], 300.0);
        assert!(axis.map(&100.0, (0, 300)) <= 240 && axis.map(&90.0, (0, 300)) <= 180);
        assert!(Axis::from_zero_with_labels("", [(f64::NAN, 10.0)], 300.0).end() > 0.0);
    }
}
