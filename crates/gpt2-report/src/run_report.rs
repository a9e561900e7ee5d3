//! The report of one or several runs.

use crate::error::ReportError;
use crate::figures::run_figures;
use crate::page::runs_page_with;
use crate::run_records::{RunFigures, RunRecords};
use crate::study_files::{create_dir, write, write_figures};
use crate::tables;
use std::path::Path;

/// Writes `report.md`, `index.html` and `figures/` of one or several runs into `out`, which is created where it is missing.
///
/// # Errors
/// [`ReportError::NoRuns`], [`ReportError::Draw`] and [`ReportError::Io`].
pub fn run_report(out: &Path, runs: &[RunRecords]) -> Result<(), ReportError> {
    if runs.is_empty() {
        return Err(ReportError::NoRuns);
    }
    let runs = with_unique_names(runs);
    let figures = run_figures(&runs);
    let table: Vec<RunFigures> = runs.iter().map(RunFigures::new).collect();
    create_dir(out)?;
    write_figures(out, &figures)?;
    write(&out.join("report.md"), tables::report_md(&table, &figures).as_bytes())?;
    write(
        &out.join("index.html"),
        runs_page_with(&runs, None, &figures)?.as_bytes(),
    )
}

/// The runs, those that have the same name with their parent directory's before it.
fn with_unique_names(runs: &[RunRecords]) -> Vec<RunRecords> {
    let has_twin = |run: &RunRecords| runs.iter().filter(|other| other.name == run.name).count() > 1;
    runs.iter()
        .map(|run| {
            let parent = run.dir.parent().and_then(Path::file_name).filter(|_| has_twin(run));
            let name = match parent {
                Some(parent) => format!("{}/{}", parent.to_string_lossy(), run.name),
                None => run.name.clone(),
            };
            RunRecords { name, ..run.clone() }
        })
        .collect()
}
