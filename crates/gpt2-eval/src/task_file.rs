//! Files of tasks.

use crate::error::EvalError;
use crate::evaluation::{Task, TaskWork, check_vocabulary};
use crate::formats::{hellaswag, lambada, llmc};
use gpt2_model::Gpt2Config;
use std::path::{Path, PathBuf};

/// A file of examples, and what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskFile {
    /// Multiple choice: HellaSwag's JSONL, or llm.c's file of tokens (`.bin`).
    Hellaswag(PathBuf),
    /// Last words: LAMBADA's JSONL.
    Lambada(PathBuf),
}

impl TaskFile {
    /// The name of the task.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hellaswag(_) => "hellaswag",
            Self::Lambada(_) => "lambada",
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Hellaswag(path) | Self::Lambada(path) => path,
        }
    }

    /// The first `limit` of its examples, or all, for a model of this shape.
    ///
    /// # Errors
    /// What is wrong with the file; [`EvalError::UnknownFormat`] by its name; those of [`Task::check`].
    pub fn read(&self, limit: Option<usize>, model: &Gpt2Config) -> Result<Task, EvalError> {
        let path = self.path();
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        let is_of_tokens = matches!(self, Self::Hellaswag(_)) && extension == "bin";
        // Text is encoded by GPT-2's tokenizer.
        if !is_of_tokens {
            check_vocabulary(self.name(), model)?;
        }
        let work = match self {
            Self::Hellaswag(_) if is_of_tokens => TaskWork::MultipleChoice(first(limit, llmc::read(path)?)),
            Self::Hellaswag(_) if extension == "jsonl" || extension == "json" => {
                TaskWork::MultipleChoice(first(limit, hellaswag::read(path)?))
            }
            Self::Hellaswag(_) => {
                return Err(EvalError::UnknownFormat {
                    path: path.to_path_buf(),
                    expected: "HellaSwag's .jsonl, or a .bin of llm.c",
                });
            }
            Self::Lambada(_) => TaskWork::LastWord(first(limit, lambada::read(path)?)),
        };
        let task = Task {
            name: self.name().to_owned(),
            work,
        };
        task.check(model)?;
        Ok(task)
    }
}

fn first<T>(limit: Option<usize>, mut examples: Vec<T>) -> Vec<T> {
    examples.truncate(limit.unwrap_or(usize::MAX));
    examples
}
