//! Figures of studies and runs, as SVG and PNG.
//!
//! What a figure shows is computed when it is made; it is drawn when it is asked for. Figures whose numbers are missing are
//! left out.

mod axis;
mod bars;
mod chart;
mod downsample;
mod labels;
mod lines;
mod names;
mod profile;
mod raster;
mod runs;
mod svg;
mod text;
pub(crate) mod theme;

use crate::error::ReportError;
use crate::run_records::RunRecords;
use chart::Chart;
use gpt2_records::{Study, StudyKind};

/// A figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    name: &'static str,
    caption: String,
    chart: Chart,
}

impl Figure {
    fn new(name: &'static str, caption: impl Into<String>, chart: Chart) -> Self {
        Self {
            name,
            caption: caption.into(),
            chart,
        }
    }

    /// The name of its files, without their endings.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it shows, in a few words.
    pub fn title(&self) -> &str {
        &self.chart.title
    }

    /// How it is to be read.
    pub fn caption(&self) -> &str {
        &self.caption
    }

    /// As an SVG document. Its colours are CSS variables (`--fg`, `--bg`, `--s0` and so on) that fall back on those of light
    /// mode.
    ///
    /// # Errors
    /// [`ReportError::Draw`].
    pub fn svg(&self) -> Result<String, ReportError> {
        svg::svg(&self.chart, self.name)
    }

    /// As a PNG file, in light mode.
    ///
    /// # Errors
    /// [`ReportError::Draw`].
    pub fn png(&self) -> Result<Vec<u8>, ReportError> {
        raster::png(&self.chart, self.name)
    }
}

/// The figures of a study, by its kind.
pub fn study_figures(study: &Study) -> Vec<Figure> {
    let of_kind = match study.kind {
        StudyKind::Sweep => vec![
            lines::throughput_against_batch(study),
            lines::memory_against_batch(study),
            bars::warmup(study),
            bars::speedup(study),
            bars::jitter(study),
        ],
        StudyKind::Threads => vec![
            lines::thread_scaling(study),
            bars::speedup(study),
            bars::jitter(study),
            lines::losses_of_rows(study),
        ],
        StudyKind::FixedWork => vec![
            bars::speedup(study),
            bars::warmup(study),
            bars::jitter(study),
            lines::losses_of_rows(study),
        ],
        StudyKind::Scaling => vec![
            lines::device_scaling(study),
            bars::breakdown(study),
            bars::jitter(study),
            lines::losses_of_rows(study),
        ],
        StudyKind::Profile => Vec::new(),
    };
    let mut figures: Vec<Figure> = of_kind.into_iter().flatten().collect();
    if let Some(profile) = &study.profile {
        figures.extend(profile::figures(profile));
    }
    figures
}

/// The figures of one or several runs.
pub fn run_figures(runs: &[RunRecords]) -> Vec<Figure> {
    [runs::losses(runs), runs::throughput(runs), runs::memory(runs)]
        .into_iter()
        .flatten()
        .collect()
}
