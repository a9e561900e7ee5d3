//! A chart as values: panels side by side, marks on them, a legend below. It is drawn on any backend of plotters.
//!
//! The legend is ours: plotters puts its own inside the plot, over the marks.

use super::axis::Axis;
use super::labels::{leader_line, place_labels};
use super::text::{self, TEXT_SIZE};
use super::theme::PlotColor;
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// The width of every figure, in pixels of the SVG.
pub(crate) const WIDTH: u32 = 760;

const TITLE_SIZE: f64 = 15.0;

/// plotters' size of a font is that of its box, which it takes to be 1.24 em.
const FONT_BOX: f64 = 1.24;

/// The height of a row of a bar chart.
const ROW_HEIGHT: u32 = 24;
/// The height of the plots of charts without rows.
const PLOT_HEIGHT: u32 = 300;
const PADDING: u32 = 12;
const TITLE_HEIGHT: u32 = 38;
/// Below a plot: its ticks and its title.
const X_LABELS_HEIGHT: u32 = 44;
const LEGEND_LINE: u32 = 20;
/// What stands before a legend's words, with the space after it.
const SYMBOL_WIDTH: u32 = 34;
/// The most that the names of rows take.
pub(super) const NAMES_WIDTH: f64 = 300.0;
/// Between the plots of two panels, for half of their outer ticks' words.
const GAP: u32 = 26;

/// A figure's content.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// Side by side. Those with rows share the rows of the first.
    pub(crate) panels: Vec<Panel>,
    pub(crate) legend: Vec<LegendEntry>,
}

/// A plot with its axes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Panel {
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) marks: Vec<Mark>,
}

/// What is drawn in a panel, in the axes' units. What is not finite is left out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Mark {
    /// A horizontal bar in a row.
    Bar {
        row: usize,
        from: f64,
        to: f64,
        color: PlotColor,
    },
    /// A line through points, broken where one is not finite.
    Line { points: Vec<(f64, f64)>, stroke: Stroke },
    /// Points.
    Points {
        points: Vec<(f64, f64)>,
        marker: Marker,
        color: PlotColor,
    },
    /// Words to the right of a point.
    Text { at: (f64, f64), text: String },
    /// Words next to points, moved so that they do not lie on each other.
    Labels(Vec<((f64, f64), String)>),
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stroke {
    pub(crate) color: PlotColor,
    pub(crate) width: u32,
    /// Pixels of dashes and of the gaps between them; none for a whole line.
    pub(crate) dash: Option<(i32, i32)>,
}

/// The marker of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    TriangleDown,
    Cross,
}

/// A line of the legend.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LegendEntry {
    pub(crate) text: String,
    pub(crate) symbol: LegendSymbol,
}

/// What stands before a legend's words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum LegendSymbol {
    /// A bar's colour.
    Bar(PlotColor),
    /// A line, with the marker of its points.
    Line(Stroke, Option<Marker>),
    /// A point alone.
    Marker(Marker, PlotColor),
}

/// The look of the series with this number: colours repeat after six, with other dashes and shapes.
pub(crate) fn series_style(number: usize) -> (Stroke, Marker) {
    const DASHES: [Option<(i32, i32)>; 5] = [None, Some((8, 4)), Some((2, 3)), Some((14, 4)), Some((5, 7))];
    const MARKERS: [Marker; 5] = [
        Marker::Circle,
        Marker::Square,
        Marker::Triangle,
        Marker::Diamond,
        Marker::TriangleDown,
    ];
    let stroke = Stroke {
        color: PlotColor::Series(number),
        width: 2,
        dash: DASHES[number / super::theme::SERIES % DASHES.len()],
    };
    (stroke, MARKERS[number % MARKERS.len()])
}

type Area<'a, DB> = DrawingArea<DB, Shift>;
type DrawError<DB> = DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>;

impl Chart {
    /// The figure's width and height.
    pub(crate) fn size(&self) -> (u32, u32) {
        (
            WIDTH,
            TITLE_HEIGHT + self.plot_height() + X_LABELS_HEIGHT + self.legend_height() + PADDING,
        )
    }

    fn plot_height(&self) -> u32 {
        match self.panels.first() {
            Some(panel) if panel.y.is_categorical() => (panel.y.ticks.len().max(1) as u32) * ROW_HEIGHT,
            _ => PLOT_HEIGHT,
        }
    }

    /// How many columns the legend has, and how wide each is.
    fn legend_columns(&self) -> (usize, u32) {
        let room = WIDTH - 2 * PADDING;
        let widest = self
            .legend
            .iter()
            .map(|entry| text::width(&entry.text, TEXT_SIZE).ceil() as u32 + SYMBOL_WIDTH + 24)
            .max()
            .unwrap_or(room);
        let columns = (room / widest.max(1)).clamp(1, 6) as usize;
        (columns, room / columns as u32)
    }

    fn legend_height(&self) -> u32 {
        if self.legend.is_empty() {
            return 0;
        }
        let (columns, _) = self.legend_columns();
        8 + LEGEND_LINE * self.legend.len().div_ceil(columns) as u32
    }

    /// Draws everything. `area` is as large as [`Chart::size`].
    pub(crate) fn draw<DB: DrawingBackend>(&self, area: &Area<'_, DB>) -> Result<(), DrawError<DB>> {
        area.fill(&PlotColor::Background.rgb())?;
        let title = text::shortened(&self.title, TITLE_SIZE, f64::from(WIDTH - 2 * PADDING));
        let style = style(TITLE_SIZE, PlotColor::Foreground, HPos::Left, VPos::Center);
        area.draw_text(&title, &style, (PADDING as i32, TITLE_HEIGHT as i32 / 2 - 2))?;
        let (_, below_title) = area.split_vertically(TITLE_HEIGHT);
        let (plots, legend) = below_title.split_vertically(self.plot_height() + X_LABELS_HEIGHT);
        self.draw_panels(area, &plots)?;
        self.draw_legend(&legend)?;
        area.present()
    }

    /// Pixels to the left of each panel's plot.
    fn left_of(&self, index: usize) -> u32 {
        let axis = &self.panels[index].y;
        if axis.is_categorical() {
            return if index == 0 { self.names_width() as u32 + 12 } else { 0 };
        }
        let widest = axis
            .ticks
            .iter()
            .map(|(_, tick)| text::width(tick, TEXT_SIZE))
            .fold(0.0, f64::max);
        widest.ceil() as u32 + 14 + if axis.title.is_empty() { 0 } else { 22 }
    }

    fn names_width(&self) -> f64 {
        let names = self.panels.first().into_iter().flat_map(|panel| &panel.y.ticks);
        names
            .map(|(_, name)| text::width(name, TEXT_SIZE))
            .fold(0.0, f64::max)
            .min(NAMES_WIDTH)
    }

    /// `figure` is the whole figure, whose pixels are the backend's; `area` is the part for the panels.
    fn draw_panels<DB: DrawingBackend>(&self, figure: &Area<'_, DB>, area: &Area<'_, DB>) -> Result<(), DrawError<DB>> {
        let lefts: Vec<u32> = (0..self.panels.len()).map(|index| self.left_of(index)).collect();
        let plot_width = Self::plot_width(&lefts);
        let mut rest = area.clone();
        for (index, (panel, left)) in self.panels.iter().zip(&lefts).enumerate() {
            let margin = if index == 0 { PADDING } else { 0 };
            let (this, right) = rest.split_horizontally(margin + left + plot_width + GAP);
            rest = right;
            self.draw_panel(figure, &this, panel, (margin, *left))?;
        }
        Ok(())
    }

    fn plot_width(lefts: &[u32]) -> u32 {
        let count = lefts.len().max(1) as u32;
        (WIDTH - PADDING).saturating_sub(lefts.iter().sum::<u32>() + count * GAP) / count
    }

    /// The width of each panel's plot, before the panels have their marks. `names` are those of the rows, if there are any.
    pub(crate) fn row_plot_width(names: &[String], panels: usize) -> f64 {
        let panel = Panel {
            x: Axis::from_zero("", [], 1),
            y: Axis::categories(names.iter().cloned()),
            marks: Vec::new(),
        };
        let chart = Self {
            title: String::new(),
            panels: vec![panel; panels],
            legend: Vec::new(),
        };
        let lefts: Vec<u32> = (0..panels).map(|index| chart.left_of(index)).collect();
        f64::from(Self::plot_width(&lefts))
    }

    fn draw_panel<DB: DrawingBackend>(
        &self,
        figure: &Area<'_, DB>,
        area: &Area<'_, DB>,
        panel: &Panel,
        (margin, left): (u32, u32),
    ) -> Result<(), DrawError<DB>> {
        let mut y = panel.y.clone();
        if y.is_categorical() {
            for (_, name) in &mut y.ticks {
                *name = if left == 0 {
                    String::new()
                } else {
                    text::shortened(name, TEXT_SIZE, self.names_width())
                };
            }
        }
        let mut chart = ChartBuilder::on(area)
            .margin_left(margin)
            .margin_right(GAP)
            .set_label_area_size(LabelAreaPosition::Left, left)
            .set_label_area_size(LabelAreaPosition::Bottom, X_LABELS_HEIGHT)
            .build_cartesian_2d(panel.x.clone(), y)?;
        let mut mesh = chart.configure_mesh();
        mesh.label_style(style(TEXT_SIZE, PlotColor::Foreground, HPos::Center, VPos::Top))
            .axis_desc_style(style(TEXT_SIZE, PlotColor::Muted, HPos::Center, VPos::Top))
            .bold_line_style(PlotColor::Grid.rgb())
            .light_line_style(TRANSPARENT)
            .axis_style(PlotColor::Muted.rgb())
            .set_all_tick_mark_size(4)
            .x_desc(panel.x.title.clone());
        if panel.y.is_categorical() {
            mesh.disable_y_mesh();
        } else {
            mesh.y_desc(panel.y.title.clone());
        }
        mesh.draw()?;
        let plot = chart.plotting_area();
        let pixel = |point: (f64, f64)| plot.map_coordinate(&point);
        panel.marks.iter().try_for_each(|mark| draw_mark(figure, mark, &pixel))
    }

    fn draw_legend<DB: DrawingBackend>(&self, area: &Area<'_, DB>) -> Result<(), DrawError<DB>> {
        let (columns, width) = self.legend_columns();
        // Down the columns, so that neighbours in the list stay neighbours.
        let lines = self.legend.len().div_ceil(columns).max(1);
        for (index, entry) in self.legend.iter().enumerate() {
            let left = (PADDING + (index / lines) as u32 * width) as i32;
            let middle = (index % lines) as i32 * LEGEND_LINE as i32 + 8 + LEGEND_LINE as i32 / 2;
            let symbol_end = left + SYMBOL_WIDTH as i32 - 8;
            let center = (i32::midpoint(left, symbol_end), middle);
            let words_from = left + SYMBOL_WIDTH as i32;
            match entry.symbol {
                LegendSymbol::Bar(color) => area.draw(&Rectangle::new(
                    [(left + 6, middle - 6), (symbol_end, middle + 6)],
                    color.rgb().filled(),
                ))?,
                LegendSymbol::Line(stroke, marker) => {
                    draw_line(area, vec![(left, middle), (symbol_end, middle)], stroke)?;
                    if let Some(marker) = marker {
                        draw_marker(area, center, marker, stroke.color)?;
                    }
                }
                LegendSymbol::Marker(marker, color) => draw_marker(area, center, marker, color)?,
            }
            let room = f64::from(width) - f64::from(words_from - left) - 8.0;
            let words = text::shortened(&entry.text, TEXT_SIZE, room);
            let style = style(TEXT_SIZE, PlotColor::Foreground, HPos::Left, VPos::Center);
            area.draw_text(&words, &style, (words_from, middle))?;
        }
        Ok(())
    }
}

/// A text style, anchored to a point of the text.
fn style(px: f64, color: PlotColor, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    TextStyle {
        font: ("sans-serif", px * FONT_BOX).into_font(),
        color: color.rgb().to_backend_color(),
        pos: Pos::new(horizontal, vertical),
    }
}

fn draw_mark<DB: DrawingBackend>(
    area: &Area<'_, DB>,
    mark: &Mark,
    pixel: &impl Fn((f64, f64)) -> (i32, i32),
) -> Result<(), DrawError<DB>> {
    let is_finite = |point: &(f64, f64)| point.0.is_finite() && point.1.is_finite();
    match mark {
        Mark::Bar { row, from, to, color } if is_finite(&(*from, *to)) => {
            let (left, middle) = pixel((*from, *row as f64 + 0.5));
            let (right, _) = pixel((*to, 0.0));
            let half = ROW_HEIGHT as i32 / 2 - 4;
            // A gap of a pixel between the parts of a bar; a part of any length can be seen.
            let left = left + i32::from(*from > 0.0);
            let corners = [(left, middle - half), (right.max(left + 1), middle + half)];
            area.draw(&Rectangle::new(corners, color.rgb().filled()))
        }
        Mark::Line { points, stroke } => points
            .split(|point| !is_finite(point))
            .filter(|part| part.len() > 1)
            .try_for_each(|part| draw_line(area, part.iter().map(|&point| pixel(point)).collect(), *stroke)),
        Mark::Points { points, marker, color } => points
            .iter()
            .filter(|point| is_finite(point))
            .try_for_each(|&point| draw_marker(area, pixel(point), *marker, *color)),
        Mark::Text { at, text } if is_finite(at) => {
            let (x, y) = pixel(*at);
            let style = style(TEXT_SIZE, PlotColor::Foreground, HPos::Left, VPos::Center);
            area.draw_text(text, &style, (x + 6, y))
        }
        Mark::Labels(labels) => {
            let points: Vec<_> = labels.iter().filter(|(point, _)| is_finite(point)).collect();
            let pixels: Vec<(i32, i32)> = points.iter().map(|(point, _)| pixel(*point)).collect();
            let texts: Vec<&str> = points.iter().map(|(_, text)| text.as_str()).collect();
            draw_labels(area, &pixels, &texts)
        }
        Mark::Bar { .. } | Mark::Text { .. } => Ok(()),
    }
}

fn draw_line<DB: DrawingBackend>(
    area: &Area<'_, DB>,
    pixels: Vec<(i32, i32)>,
    stroke: Stroke,
) -> Result<(), DrawError<DB>> {
    let style = stroke.color.rgb().stroke_width(stroke.width);
    match stroke.dash {
        None => area.draw(&PathElement::new(pixels, style)),
        Some((dash, gap)) => area.draw(&DashedPathElement::new(pixels, dash, gap, style)),
    }
}

fn draw_marker<DB: DrawingBackend>(
    area: &Area<'_, DB>,
    (x, y): (i32, i32),
    marker: Marker,
    color: PlotColor,
) -> Result<(), DrawError<DB>> {
    let filled = color.rgb().filled();
    let polygon = |corners: &[(i32, i32)]| {
        let corners: Vec<(i32, i32)> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        area.draw(&Polygon::new(corners, filled))
    };
    match marker {
        Marker::Circle => area.draw(&Circle::new((x, y), 4, filled)),
        Marker::Square => polygon(&[(-4, -4), (4, -4), (4, 4), (-4, 4)]),
        Marker::Triangle => polygon(&[(-5, 4), (0, -5), (5, 4)]),
        Marker::Diamond => polygon(&[(0, -6), (5, 0), (0, 6), (-5, 0)]),
        Marker::TriangleDown => polygon(&[(-5, -4), (5, -4), (0, 5)]),
        Marker::Cross => {
            let stroke = color.rgb().stroke_width(2);
            area.draw(&PathElement::new(vec![(x - 5, y - 5), (x + 5, y + 5)], stroke))?;
            area.draw(&PathElement::new(vec![(x - 5, y + 5), (x + 5, y - 5)], stroke))
        }
    }
}

fn draw_labels<DB: DrawingBackend>(
    area: &Area<'_, DB>,
    points: &[(i32, i32)],
    texts: &[&str],
) -> Result<(), DrawError<DB>> {
    let centered = style(TEXT_SIZE, PlotColor::Foreground, HPos::Center, VPos::Center);
    for ((&point, text), (left, top, right, bottom)) in points.iter().zip(texts).zip(place_labels(points, texts)) {
        let (x, y) = (i32::midpoint(left, right), i32::midpoint(top, bottom));
        if let Some(end) = leader_line(point, (left, top, right, bottom)) {
            area.draw(&PathElement::new(vec![point, end], PlotColor::Muted.rgb()))?;
        }
        area.draw_text(text, &centered, (x, y))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_series_look_different() {
        let styles: Vec<_> = (0..30).map(series_style).collect();
        for (i, a) in styles.iter().enumerate() {
            for b in &styles[..i] {
                assert!(a.0.color.rgb() != b.0.color.rgb() || a.0.dash != b.0.dash);
            }
        }
        // The same colour comes with another marker, too.
        assert_ne!(styles[0].1, styles[6].1);
    }

    #[test]
    fn legends_grow_with_their_entries() {
        let entry = |i: usize| LegendEntry {
            text: format!("a rather long name of a configuration, number {i}, with many settings"),
            symbol: LegendSymbol::Bar(PlotColor::Series(i)),
        };
        let chart = |count: usize| Chart {
            title: String::new(),
            panels: Vec::new(),
            legend: (0..count).map(entry).collect(),
        };
        assert_eq!(chart(0).legend_height(), 0);
        assert_eq!(chart(30).legend_height() - chart(29).legend_height(), LEGEND_LINE);
    }
}
