//! Bytes, counts, operations and times as people read them. Reports and records hold plain numbers; only messages use these.

/// Bytes in binary units: `512 B`, `1.5 MiB`, `80.0 GiB`.
pub fn bytes(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// Floating-point operations in decimal units: `44.3 MFLOP`, `1.2 PFLOP`.
pub fn flops(flops: f64) -> String {
    scaled(
        flops,
        1000.0,
        &["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"],
    )
}

/// A count in full, its digits in groups of three: `124,439,808`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Seconds as `m:ss` or `h:mm:ss`.
pub fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

fn scaled(value: f64, base: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    // Rounding to one decimal must not print a full unit as `1024.0 MiB`.
    while (value * 10.0).round() >= base * 10.0 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 || value.fract() != 0.0);
    format!("{value:.decimals$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_hours_only_when_there_are_any() {
        assert_eq!(clock(0.4), "0:00");
        assert_eq!(clock(61.5), "1:02");
        assert_eq!(clock(3725.0), "1:02:05");
        assert_eq!(clock(-3.0), "0:00");
    }

    #[test]
    fn units_change_where_they_should() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes((1 << 30) - 1), "1.0 GiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
        assert_eq!(flops(400.0), "400 FLOP");
        assert_eq!(flops(44_347_392.0), "44.3 MFLOP");
        assert_eq!(flops(0.5), "0.5 FLOP");
    }

    #[test]
    fn digits_are_grouped_from_the_right() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (124_439_808, "124,439,808")] {
            assert_eq!(grouped(n), text);
        }
    }
}
