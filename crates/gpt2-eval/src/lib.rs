//! Evaluation of a GPT-2: loss on prepared data, multiple choice (HellaSwag), the last word of a text (LAMBADA), and
//! the files that hold such examples.
//!
//! [`Evaluation`] runs [`Task`]s on the chosen backend; [`formats`] reads and writes the files. Nothing here prints.
//!
//! ```no_run
//! use gpt2_backend::{BackendChoice, Chosen};
//! use gpt2_eval::{Evaluation, Precision, Silent, Task, TaskWork, formats};
//! use std::path::Path;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let examples = formats::llmc::read(Path::new("hellaswag_val.bin"))?;
//! let evaluation = Evaluation {
//!     weights: Path::new("models/gpt2"),
//!     precision: Precision::F32,
//!     batch: 32,
//! };
//! let task = Task {
//!     name: "hellaswag".to_owned(),
//!     work: TaskWork::MultipleChoice(examples),
//! };
//! let chosen = Chosen::decide(BackendChoice::Auto, 0)?;
//! let results = evaluation.run(&[task], &chosen, &mut Silent)?;
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]

mod batches;
mod error;
mod evaluation;
pub mod formats;
mod progress;
mod task_file;
pub mod tasks;

pub use error::EvalError;
pub use evaluation::{Evaluation, Results, Summary, Task, TaskResults, TaskWork, evaluate};
pub use gpt2_model::Precision;
pub use progress::{Progress, Silent};
pub use task_file::TaskFile;
