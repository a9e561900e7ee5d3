//! Charts as SVG, whose colours a page can replace.

use super::chart::Chart;
use super::theme::ROLES;
use crate::error::ReportError;
use maud::Escaper;
use plotters::prelude::{IntoDrawingArea, SVGBackend};
use std::fmt::Write;

/// The chart as an SVG document. `name` is for messages.
pub(super) fn svg(chart: &Chart, name: &str) -> Result<String, ReportError> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, chart.size()).into_drawing_area();
    chart.draw(&area).map_err(|error| ReportError::Draw {
        figure: name.to_owned(),
        reason: error.to_string(),
    })?;
    drop(area);
    Ok(with_title(&with_variables(&text), &chart.title))
}

/// Adds a style with the CSS variable to each colour. The attribute stays for programs that know no variables, and the
/// variable falls back on it where no page sets it.
fn with_variables(svg: &str) -> String {
    let mut svg = svg
        .replace(" opacity=\"1\"", "")
        .replace("dy=\"0.5ex\"", "dy=\"0.35em\"");
    for role in &ROLES {
        for property in ["fill", "stroke"] {
            // As plotters writes colours. Text cannot hold this: its quotes are escaped.
            let color = format!(" {property}=\"#{:06X}\"", role.light);
            let variable = format!(
                " {property}=\"#{0:06x}\" style=\"{property}:var({1},#{0:06x})\"",
                role.light, role.variable
            );
            svg = svg.replace(&color, &variable);
        }
    }
    svg
}

/// Names the image, for those who cannot see it.
fn with_title(svg: &str, title: &str) -> String {
    let Some(end) = svg.find('>') else {
        return svg.to_owned();
    };
    let mut named = String::with_capacity(svg.len() + title.len() + 40);
    named.push_str(&svg[..end]);
    named.push_str(" role=\"img\"><title>");
    let _ = Escaper::new(&mut named).write_str(title);
    named.push_str("</title>");
    named.push_str(&svg[end + 1..]);
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_become_variables_that_fall_back() {
        let svg = "<rect opacity=\"1\" fill=\"#FFFFFF\" stroke=\"none\"/><line opacity=\"0.5\" stroke=\"#222225\"/>";
        assert_eq!(
            with_variables(svg),
            "<rect fill=\"#ffffff\" style=\"fill:var(--bg,#ffffff)\" stroke=\"none\"/>\
             <line opacity=\"0.5\" stroke=\"#222225\" style=\"stroke:var(--fg,#222225)\"/>"
        );
    }

    #[test]
    fn titles_are_escaped() {
        let svg = with_title("<svg width=\"1\">\n</svg>", "a < b & c");
        assert_eq!(
            svg,
            "<svg width=\"1\" role=\"img\"><title>a &lt; b &amp; c</title>\n</svg>"
        );
    }
}
