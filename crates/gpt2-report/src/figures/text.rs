//! The width of text, names that must fit into a width, and glyphs for bitmaps.
//!
//! The font is part of the program: what a figure looks like does not depend on the fonts of the machine.

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use std::sync::LazyLock;

/// The size of text, in pixels an em.
pub(crate) const TEXT_SIZE: f64 = 12.0;

static FONT: LazyLock<FontRef<'static>> = LazyLock::new(|| {
    FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT).expect("the font in the program is damaged")
});

/// A browser shows an SVG in its own sans-serif font. DejaVu Sans, the widest that is common, is this much wider.
const WIDEST_FONT: f64 = 1.18;

/// The font's scale for so many pixels an em.
fn scale(px: f64) -> PxScale {
    let units_per_em = FONT.units_per_em().unwrap_or(1000.0);
    PxScale::from(px as f32 * FONT.height_unscaled() / units_per_em)
}

/// The width that `text` takes at most, in pixels, with `px` pixels an em.
pub(crate) fn width(text: &str, px: f64) -> f64 {
    advance(text, px) * WIDEST_FONT
}

/// The width of `text` in the font of bitmaps.
pub(crate) fn advance(text: &str, px: f64) -> f64 {
    let font = FONT.as_scaled(scale(px));
    text.chars().map(|c| f64::from(font.h_advance(font.glyph_id(c)))).sum()
}

/// `text`, with characters in its middle replaced by an ellipsis until it is no wider than `max` pixels: names of
/// configurations differ at both ends.
pub(crate) fn shortened(text: &str, px: f64, max: f64) -> String {
    if width(text, px) <= max {
        return text.to_owned();
    }
    let chars: Vec<char> = text.chars().collect();
    (1..chars.len())
        .rev()
        .map(|kept| {
            let (head, tail) = (kept.div_ceil(2), kept / 2);
            let ends = chars[..head].iter().chain(&['…']).chain(&chars[chars.len() - tail..]);
            ends.collect::<String>()
        })
        .find(|short| width(short, px) <= max)
        .unwrap_or_else(|| "…".to_owned())
}

/// Each pixel that `text` covers, relative to the start of its baseline, with the share of it that is covered.
pub(crate) fn rasterise(text: &str, px: f64, mut pixel: impl FnMut(i32, i32, f32)) {
    let scale = scale(px);
    let font = FONT.as_scaled(scale);
    let mut x = 0.0;
    for c in text.chars() {
        let id = font.glyph_id(c);
        let glyph = id.with_scale_and_position(scale, point(x, 0.0));
        x += font.h_advance(id);
        let Some(outline) = FONT.outline_glyph(glyph) else {
            continue;
        };
        let corner = outline.px_bounds().min;
        outline.draw(|dx, dy, covered| {
            pixel(corner.x as i32 + dx as i32, corner.y as i32 + dy as i32, covered);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(shortened("short", 12.0, 500.0), "short");
        let name = "kernels-bf16-recompute-attention-b32-t1024-accumulate8";
        let short = shortened(name, 12.0, 160.0);
        assert!(width(&short, 12.0) <= 160.0 && width(&short, 12.0) > 140.0, "{short}");
        assert!(
            short.starts_with("kernels-") && short.ends_with("late8") && short.contains('…'),
            "{short}"
        );
        assert_eq!(shortened("ööööööööööö", 12.0, 20.0).matches('…').count(), 1);
        assert_eq!(shortened("name", 12.0, 0.0), "…");
    }

    #[test]
    fn every_character_of_a_figure_has_a_glyph() {
        for c in "AZaz09 –…×µ·²/%()[]{}|_,;:'\"<>=+-é".chars() {
            assert_ne!(FONT.glyph_id(c).0, 0, "{c}");
        }
    }

    #[test]
    fn glyphs_stand_on_the_baseline() {
        let (mut covered, mut lowest, mut right) = (0.0, i32::MIN, 0);
        rasterise("HH", 40.0, |x, y, share| {
            covered += share;
            if share > 0.5 {
                (lowest, right) = (lowest.max(y), right.max(x));
            }
        });
        assert!(covered > 100.0 && (-2..=0).contains(&lowest), "{covered} {lowest}");
        assert!(f64::from(right) < advance("HH", 40.0) && f64::from(right) > advance("H", 40.0));
    }
}
