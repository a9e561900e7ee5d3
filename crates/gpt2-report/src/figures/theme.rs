//! Colours of figures and pages, for light and dark.
//!
//! Figures are drawn in the light colours. In an SVG each colour is also a CSS variable, which a page sets for its dark mode.

use plotters::style::RGBColor;
use std::fmt::Write;

/// What a colour is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlotColor {
    /// Behind everything.
    Background,
    /// Text.
    Foreground,
    /// Axes and second-rank text.
    Muted,
    /// Grid lines.
    Grid,
    /// A series, by its number; there are [`SERIES`] colours.
    Series(usize),
}

/// A colour in both modes, and its CSS variable.
pub(crate) struct Role {
    pub(crate) variable: &'static str,
    pub(crate) light: u32,
    pub(crate) dark: u32,
}

/// How many colours series have.
pub(crate) const SERIES: usize = 6;

const fn role(variable: &'static str, light: u32, dark: u32) -> Role {
    Role { variable, light, dark }
}

/// Neighbours differ by at least 7 in CIE lightness, so that greyscale and any colour blindness keep them apart, and each has
/// a contrast of at least 3 to the background (WCAG 2.2, 1.4.11).
pub(crate) static ROLES: [Role; 4 + SERIES] = [
    role("--bg", 0xff_ff_ff, 0x14_17_1c),
    role("--fg", 0x22_22_25, 0xe6_e7_ea),
    role("--muted", 0x5c_60_68, 0xa2_a8_b3),
    role("--grid", 0xdf_e1_e6, 0x33_38_42),
    role("--s0", 0x16_5f_ac, 0x65_a8_f0),
    role("--s1", 0xcc_48_18, 0xe0_70_3a),
    role("--s2", 0x0a_1c_52, 0xe4_f2_ff),
    role("--s3", 0xbf_8c_00, 0x80_63_00),
    role("--s4", 0x6b_0f_3e, 0xf8_c3_db),
    role("--s5", 0x0a_54_30, 0x72_ce_94),
];

impl PlotColor {
    fn role(self) -> &'static Role {
        match self {
            Self::Background => &ROLES[0],
            Self::Foreground => &ROLES[1],
            Self::Muted => &ROLES[2],
            Self::Grid => &ROLES[3],
            Self::Series(number) => &ROLES[4 + number % SERIES],
        }
    }

    /// As figures are drawn.
    pub(crate) fn rgb(self) -> RGBColor {
        let [_, red, green, blue] = self.role().light.to_be_bytes();
        RGBColor(red, green, blue)
    }
}

/// The declarations of a style sheet that give the variables their values for one mode.
pub(crate) fn variables(is_dark: bool) -> String {
    ROLES.iter().fold(String::new(), |mut css, role| {
        let color = if is_dark { role.dark } else { role.light };
        let _ = write!(css, "{}:#{color:06x};", role.variable);
        css
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance of an sRGB colour (WCAG 2.2).
    fn luminance(color: u32) -> f64 {
        let [_, red, green, blue] = color.to_be_bytes().map(|channel| {
            let channel = f64::from(channel) / 255.0;
            if channel <= 0.04045 {
                channel / 12.92
            } else {
                ((channel + 0.055) / 1.055).powf(2.4)
            }
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    /// CIE lightness: what is left of a colour in greyscale.
    fn lightness(color: u32) -> f64 {
        116.0 * luminance(color).cbrt() - 16.0
    }

    fn contrast(a: u32, b: u32) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn series_are_told_apart_in_greyscale() {
        for colors in [|role: &Role| role.light, |role: &Role| role.dark] {
            let mut found: Vec<f64> = ROLES[4..].iter().map(|role| lightness(colors(role))).collect();
            found.sort_by(f64::total_cmp);
            for pair in found.windows(2) {
                assert!(pair[1] - pair[0] >= 7.0, "{found:?}");
            }
        }
    }

    #[test]
    fn everything_stands_out_from_the_background() {
        for colors in [|role: &Role| role.light, |role: &Role| role.dark] {
            let background = colors(&ROLES[0]);
            for text in &ROLES[1..3] {
                assert!(contrast(colors(text), background) >= 4.5, "{}", text.variable);
            }
            for series in &ROLES[4..] {
                assert!(contrast(colors(series), background) >= 3.0, "{}", series.variable);
            }
        }
    }

    #[test]
    fn an_svg_can_tell_roles_by_their_light_colour() {
        let mut colors: Vec<u32> = ROLES.iter().map(|role| role.light).collect();
        colors.sort_unstable();
        colors.dedup();
        assert_eq!(colors.len(), ROLES.len());
    }

    #[test]
    fn style_sheets_name_every_variable() {
        let dark = variables(true);
        assert!(
            dark.contains("--bg:#14171c;") && dark.contains("--s5:#72ce94;"),
            "{dark}"
        );
        assert!(variables(false).contains("--fg:#222225;"));
    }
}
