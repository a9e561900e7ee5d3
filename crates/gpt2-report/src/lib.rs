//! Tables, figures and pages of runs and studies, made from their records alone: neither the trainer nor a backend is needed.
//!
//! A number in a table or a figure is one of the [`gpt2_records::Study`] or the run that it was made from. Nothing here
//! measures, and nothing is kept between two calls.
//!
//! ```no_run
//! use std::path::Path;
//!
//! # fn main() -> Result<(), gpt2_report::ReportError> {
//! let dir = Path::new("studies/sweep");
//! let study = gpt2_report::read_study(dir)?;
//! for figure in gpt2_report::figures::study_figures(&study) {
//!     println!("{}: {}", figure.name(), figure.title());
//! }
//! gpt2_report::write_study(dir, &study)?;
//! # Ok(())
//! # }
//! ```

mod error;
pub mod figures;
mod number;
mod page;
mod run_records;
mod run_report;
pub mod scaling;
mod study_files;
pub mod tables;
pub mod verify;
pub mod watch;

pub use error::ReportError;
pub use page::{runs_page, study_page};
pub use run_records::{RunFigures, RunRecords};
pub use run_report::run_report;
pub use study_files::{read_study, write_study};

#[cfg(test)]
#[allow(dead_code)]
#[path = "../tests/it/made_up.rs"]
mod made_up;
