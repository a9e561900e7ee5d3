//! Where the labels of points go, so that they do not lie on each other.

use super::text::{self, TEXT_SIZE};

/// A rectangle in pixels: left, top, right, bottom.
pub(super) type PixelBox = (i32, i32, i32, i32);

/// Where a line from a point to the frame of its text ends. None where the frame is so near that it needs no line.
pub(super) fn leader_line(point: (i32, i32), (left, top, right, bottom): PixelBox) -> Option<(i32, i32)> {
    let end = (point.0.clamp(left, right), point.1.clamp(top, bottom));
    let distance = (end.0 - point.0).abs().max((end.1 - point.1).abs());
    (distance > 12).then_some(end)
}

/// A frame for each text near its point, over no other text and no point: the nearest place of rings around the point, where
/// possible one whose leader line crosses no text. Where all are taken, the last.
pub(super) fn place_labels(points: &[(i32, i32)], texts: &[&str]) -> Vec<PixelBox> {
    const POINT: i32 = 5;
    let of_points = points
        .iter()
        .map(|&(x, y)| (x - POINT, y - POINT, x + POINT, y + POINT));
    let mut taken: Vec<PixelBox> = of_points.collect();
    let mut frames: Vec<PixelBox> = Vec::with_capacity(points.len());
    for (&(x, y), text) in points.iter().zip(texts) {
        let half_width = text::width(text, TEXT_SIZE) / 2.0 + 1.0;
        let half_height = TEXT_SIZE / 2.0;
        let places = (0..12).flat_map(|ring| {
            (0..16).map(move |step| {
                let angle = f64::from(step) * std::f64::consts::TAU / 16.0;
                let distance = 7.0 + 7.0 * f64::from(ring);
                let center_x = f64::from(x) + angle.cos() * (distance + half_width);
                let center_y = f64::from(y) - angle.sin() * (distance + half_height);
                (
                    (center_x - half_width).floor() as i32,
                    (center_y - half_height).floor() as i32,
                    (center_x + half_width).ceil() as i32,
                    (center_y + half_height).ceil() as i32,
                )
            })
        });
        let is_free = |place: &PixelBox| !taken.iter().any(|other| overlap(*other, *place));
        let crosses = |place: &PixelBox| {
            leader_line((x, y), *place).is_some_and(|end| {
                let on_line = |i: i32| (x + (end.0 - x) * i / 8, y + (end.1 - y) * i / 8);
                let at = |(x, y): (i32, i32)| frames.iter().any(|frame| overlap(*frame, (x - 1, y - 1, x + 1, y + 1)));
                (0..=8).map(on_line).any(at)
            })
        };
        let free: Vec<PixelBox> = places.clone().filter(is_free).collect();
        let place = free.iter().copied().find(|place| !crosses(place));
        let place = place
            .or(free.first().copied())
            .or(places.last())
            .unwrap_or((x, y, x, y));
        taken.push(place);
        frames.push(place);
    }
    frames
}

fn overlap(a: PixelBox, b: PixelBox) -> bool {
    a.0 < b.2 && b.0 < a.2 && a.1 < b.3 && b.1 < a.3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_crowded_points_do_not_lie_on_each_other() {
        let points: Vec<(i32, i32)> = (0..30).map(|i| (300 + i % 6 * 3, 150 + i / 6 * 2)).collect();
        let texts: Vec<String> = (1..=30).map(|i| i.to_string()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let frames = place_labels(&points, &texts);
        for (i, a) in frames.iter().enumerate() {
            assert!(frames[..i].iter().all(|b| !overlap(*a, *b)), "{i} {a:?}");
        }
    }
}
