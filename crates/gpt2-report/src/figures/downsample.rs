//! Long lines with few enough points to be drawn.

/// The most points of a line: about one for each pixel, and a page stays small.
const MOST_POINTS: usize = 600;

/// Neighbours averaged until there are few enough points. A value that is not finite makes its group so, and breaks the line.
pub(super) fn downsampled(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(MOST_POINTS).max(1);
    points
        .chunks(group)
        .map(|chunk| {
            let count = chunk.len() as f64;
            let (x, y) = chunk
                .iter()
                .fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
            (x / count, y / count)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_averaged() {
        let points: Vec<(f64, f64)> = (0..1200).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let thin = downsampled(&points);
        assert_eq!(thin.len(), 600);
        assert_eq!(thin[0], (0.5, 0.5));
        assert_eq!(downsampled(&points[..600]), points[..600]);
        assert_eq!(downsampled(&[]), []);
    }
}
