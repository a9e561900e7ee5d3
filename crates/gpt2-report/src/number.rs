//! Numbers as tables and figures show them.

use gpt2_base::units::grouped;

/// What is shown where there is no number.
pub(crate) const NONE: &str = "–";

/// From here on digits in groups are harder to read than a power of ten.
const LARGEST_IN_FULL: f64 = 1e15;

/// How many decimals a column of `values` needs: three or four significant digits in the largest, two in the smallest.
pub(crate) fn decimals(values: impl IntoIterator<Item = f64>) -> usize {
    let sizes: Vec<f64> = values
        .into_iter()
        .filter(|value| value.is_finite() && *value != 0.0)
        .map(f64::abs)
        .collect();
    if sizes.iter().all(|size| size.fract() == 0.0) {
        return 0;
    }
    let places = |size: f64, significant: i32| (significant - 1 - size.log10().floor() as i32).max(0);
    let largest = sizes.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let smallest = sizes.iter().copied().fold(largest, f64::min);
    let significant = if largest < 10.0 { 3 } else { 4 };
    places(largest, significant).min(6).max(places(smallest, 2).min(4)) as usize
}

/// `value` with so many decimals, digits before the point in groups of three; [`NONE`] where it is not finite.
pub(crate) fn fixed(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    if value.abs() >= LARGEST_IN_FULL {
        return format!("{value:.2e}");
    }
    let digits = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    // A value that rounds to zero has no sign.
    let is_zero = digits.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    let sign = if value < 0.0 && !is_zero { "-" } else { "" };
    let whole = whole.parse().map_or_else(|_| whole.to_owned(), grouped);
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

/// `value` with three significant digits, larger whole numbers in full: for words next to each other.
pub(crate) fn label(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && size < 1e-4 {
        return format!("{value:.1e}");
    }
    let decimals = match size {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.1.. => 3,
        0.0 => 0,
        _ => 4,
    };
    fixed(value, decimals)
}

/// [`label`] without zeros at the end: for ticks.
pub(crate) fn short(value: f64) -> String {
    let text = label(value);
    if text.contains('.') && !text.contains('e') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_follow_the_sizes_of_a_column() {
        assert_eq!(decimals([1.0, 20.0, 0.0]), 0);
        assert_eq!(decimals([12_345.6, 54_321.0]), 0);
        assert_eq!(decimals([1.5, 123.4]), 1);
        assert_eq!(decimals([0.012, 123.4]), 3);
        assert_eq!(decimals([1e-9, 123.4]), 4);
        assert_eq!(decimals([0.3, 0.25]), 3);
        assert_eq!(decimals([0.000_123]), 6);
        assert_eq!(decimals([]), 0);
        assert_eq!(decimals([f64::NAN, f64::INFINITY]), 0);
    }

    #[test]
    fn fixed_numbers_are_grouped() {
        assert_eq!(fixed(1_234_567.891, 2), "1,234,567.89");
        assert_eq!(fixed(-1234.5, 1), "-1,234.5");
        assert_eq!(fixed(-0.001, 2), "0.00");
        assert_eq!(fixed(0.5, 0), "0");
        assert_eq!(fixed(999.96, 1), "1,000.0");
        assert_eq!(fixed(1e300, 2), "1.00e300");
        assert_eq!(fixed(f64::NAN, 2), NONE);
        assert_eq!(fixed(f64::NEG_INFINITY, 2), NONE);
    }

    #[test]
    fn short_numbers_have_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (12_345.6, "12,346"),
            (123.45, "123"),
            (12.345, "12.3"),
            (1.0, "1"),
            (1.5, "1.5"),
            (0.1234, "0.123"),
            (0.001_23, "0.0012"),
            (0.000_012, "1.2e-5"),
            (f64::NAN, NONE),
        ] {
            assert_eq!(short(value), text);
        }
        assert_eq!([54.0, 1.0, 0.5, 0.0].map(label), ["54.0", "1.00", "0.500", "0"]);
    }
}
