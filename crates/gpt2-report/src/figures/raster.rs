//! Charts as PNG: plotters' bitmap backend, drawn four times as large and averaged to twice the size of the SVG.
//!
//! plotters' own text in bitmaps leaves out the bearing of glyphs and sits too high, so that text is drawn here.

use super::chart::Chart;
use super::text;
use crate::error::ReportError;
use plotters::prelude::{BitMapBackend, IntoDrawingArea};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind};

/// Pixels of the PNG for each of the SVG, for dense screens and for print.
const DENSITY: u32 = 2;
/// Drawn pixels for each of the PNG, in both directions.
const SAMPLES: u32 = 2;
const FACTOR: i32 = (DENSITY * SAMPLES) as i32;

/// The chart as a PNG file. `name` is for messages.
pub(super) fn png(chart: &Chart, name: &str) -> Result<Vec<u8>, ReportError> {
    let failed = |reason: String| ReportError::Draw {
        figure: name.to_owned(),
        reason,
    };
    let (width, height) = chart.size();
    let drawn = (width * FACTOR as u32, height * FACTOR as u32);
    let mut samples = vec![0; (drawn.0 * drawn.1 * 3) as usize];
    {
        let inner = BitMapBackend::with_buffer(&mut samples, drawn);
        let area = ScaledBackend { inner }.into_drawing_area();
        chart.draw(&area).map_err(|error| failed(error.to_string()))?;
    }
    let (width, height) = (width * DENSITY, height * DENSITY);
    let pixels = averaged(&samples, width as usize, height as usize);
    encoded(&pixels, width, height).map_err(|error| failed(error.to_string()))
}

/// The mean of the samples of each pixel.
fn averaged(samples: &[u8], width: usize, height: usize) -> Vec<u8> {
    const EACH: usize = SAMPLES as usize;
    let line = width * EACH * 3;
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                let sum: u32 = (0..EACH * EACH)
                    .map(|i| (y * EACH + i / EACH) * line + (x * EACH + i % EACH) * 3 + channel)
                    .map(|at| u32::from(samples[at]))
                    .sum();
                pixels.push((sum / (SAMPLES * SAMPLES)) as u8);
            }
        }
    }
    pixels
}

fn encoded(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(file)
}

/// A backend that draws everything `FACTOR` times as large.
struct ScaledBackend<'a> {
    inner: BitMapBackend<'a>,
}

/// A style with a line as wide as the scale asks for.
struct ScaledStyle {
    color: BackendColor,
    width: u32,
}

impl BackendStyle for ScaledStyle {
    fn color(&self) -> BackendColor {
        self.color
    }

    fn stroke_width(&self) -> u32 {
        self.width
    }
}

fn scaled_style<S: BackendStyle>(style: &S) -> ScaledStyle {
    ScaledStyle {
        color: style.color(),
        width: style.stroke_width() * FACTOR as u32,
    }
}

fn scaled((x, y): BackendCoord) -> BackendCoord {
    (x * FACTOR, y * FACTOR)
}

type Error<'a> = DrawingErrorKind<<BitMapBackend<'a> as DrawingBackend>::ErrorType>;

impl<'a> DrawingBackend for ScaledBackend<'a> {
    type ErrorType = <BitMapBackend<'a> as DrawingBackend>::ErrorType;

    fn get_size(&self) -> (u32, u32) {
        let (width, height) = self.inner.get_size();
        (width / FACTOR as u32, height / FACTOR as u32)
    }

    fn ensure_prepared(&mut self) -> Result<(), Error<'a>> {
        self.inner.ensure_prepared()
    }

    fn present(&mut self) -> Result<(), Error<'a>> {
        self.inner.present()
    }

    fn draw_pixel(&mut self, point: BackendCoord, color: BackendColor) -> Result<(), Error<'a>> {
        let (left, top) = scaled(point);
        self.inner
            .draw_rect((left, top), (left + FACTOR, top + FACTOR), &color, true)
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> Result<(), Error<'a>> {
        self.inner.draw_line(scaled(from), scaled(to), &scaled_style(style))
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        upper_left: BackendCoord,
        bottom_right: BackendCoord,
        style: &S,
        fill: bool,
    ) -> Result<(), Error<'a>> {
        self.inner
            .draw_rect(scaled(upper_left), scaled(bottom_right), &scaled_style(style), fill)
    }

    // Line by line: as one polygon, plotters fills the inside of a line that turns back on itself.
    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Result<(), Error<'a>> {
        let mut path = path.into_iter();
        let Some(mut from) = path.next() else {
            return Ok(());
        };
        for to in path {
            self.draw_line(from, to, style)?;
            // A round joint.
            if style.stroke_width() > 1 {
                let radius = style.stroke_width() * FACTOR as u32 / 2;
                self.inner.draw_circle(scaled(to), radius, &style.color(), true)?;
            }
            from = to;
        }
        Ok(())
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        center: BackendCoord,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> Result<(), Error<'a>> {
        self.inner
            .draw_circle(scaled(center), radius * FACTOR as u32, &scaled_style(style), fill)
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        corners: I,
        style: &S,
    ) -> Result<(), Error<'a>> {
        self.inner
            .fill_polygon(corners.into_iter().map(scaled), &scaled_style(style))
    }

    fn draw_text<TStyle: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &TStyle,
        pos: BackendCoord,
    ) -> Result<(), Error<'a>> {
        // As the SVG backend: a font of so many pixels an em, and the same distances to the baseline.
        let px = style.size() / 1.24 * f64::from(FACTOR);
        let width = text::advance(text, px);
        let left = match style.anchor().h_pos {
            HPos::Left => 0.0,
            HPos::Center => -width / 2.0,
            HPos::Right => -width,
        };
        let baseline = match style.anchor().v_pos {
            VPos::Top => 0.76 * px,
            VPos::Center => 0.35 * px,
            VPos::Bottom => -0.26 * px,
        };
        let (left, baseline) = (left.round() as i32, baseline.round() as i32);
        let (x, y) = scaled(pos);
        let color = style.color();
        let mut drawn = Ok(());
        text::rasterise(text, px, |dx, dy, covered| {
            let (dx, dy) = style.transform().transform(left + dx, baseline + dy);
            let pixel = self.inner.draw_pixel((x + dx, y + dy), color.mix(f64::from(covered)));
            if drawn.is_ok() {
                drawn = pixel;
            }
        });
        drawn
    }

    fn estimate_text_size<TStyle: BackendTextStyle>(
        &self,
        text: &str,
        style: &TStyle,
    ) -> Result<(u32, u32), Error<'a>> {
        let px = style.size() / 1.24;
        Ok((text::width(text, px).ceil() as u32, px.ceil() as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pixel_is_the_mean_of_its_samples() {
        // Two pixels in a line: one half black, one white.
        let samples = [
            [0; 3], [0; 3], [255; 3], [255; 3], [255; 3], [255; 3], [255; 3], [255; 3],
        ]
        .concat();
        assert_eq!(averaged(&samples, 2, 1), [127, 127, 127, 255, 255, 255]);
    }
}
