//! Tasks on a model, and on the chosen backend for callers that are not generic.

use crate::error::EvalError;
use crate::progress::Progress;
use crate::tasks::last_word::{self, LastWordExample, LastWordScore, LastWordSummary};
use crate::tasks::loss::{self, LossSummary, LossTask, WindowScore};
use crate::tasks::multiple_choice::{self, ChoiceExample, ChoiceScore, ChoiceSummary};
use gpt2_backend::Chosen;
use gpt2_base::Invalid;
use gpt2_model::{Gpt2Config, Inference, Precision};
use serde::Serialize;
use std::path::Path;

/// What a model is evaluated on.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its name in results and messages.
    pub name: String,
    /// What it is.
    pub work: TaskWork,
}

/// The kinds of tasks.
#[derive(Debug, Clone)]
pub enum TaskWork {
    /// The loss on prepared data.
    Loss(LossTask),
    /// Multiple choice.
    MultipleChoice(Vec<ChoiceExample>),
    /// The last word of texts.
    LastWord(Vec<LastWordExample>),
}

/// What came of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskResults {
    /// The task's name.
    pub name: String,
    /// Its scores.
    pub results: Results,
}

/// What came of a task: what the scores come to, and each of them in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub enum Results {
    /// Of the loss.
    Loss(LossSummary, Vec<WindowScore>),
    /// Of multiple choice.
    MultipleChoice(ChoiceSummary, Vec<ChoiceScore>),
    /// Of the last word.
    LastWord(LastWordSummary, Vec<LastWordScore>),
}

/// What a result comes to, as files hold it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Summary<'a> {
    /// Of the loss.
    Loss(&'a LossSummary),
    /// Of multiple choice.
    MultipleChoice(&'a ChoiceSummary),
    /// Of the last word.
    LastWord(&'a LastWordSummary),
}

/// An evaluation on a backend that is chosen when it runs.
#[derive(Debug, Clone, Copy)]
pub struct Evaluation<'a> {
    /// Where the weights are.
    pub weights: &'a Path,
    /// Type of the operands of products.
    pub precision: Precision,
    /// Sequences that are computed at once. The results depend on it by no more than rounding.
    pub batch: usize,
}

impl Evaluation<'_> {
    /// Runs the tasks one after the other on the chosen device and all cores.
    ///
    /// # Errors
    /// [`EvalError`].
    pub fn run(
        &self,
        tasks: &[Task],
        chosen: &Chosen,
        progress: &mut (dyn Progress + Send),
    ) -> Result<Vec<TaskResults>, EvalError> {
        chosen.with_model(self.weights, self.precision, |model| {
            let tasks = tasks.iter();
            tasks.map(|task| evaluate(model, task, self.batch, progress)).collect()
        })?
    }
}

/// Runs a task on a model that is loaded, `batch` sequences at a time.
///
/// # Errors
/// Those of [`Task::check`], [`EvalError::NonFinite`], [`EvalError::Data`] where the data of the loss cannot be read,
/// [`EvalError::Invalid`] if `batch` is 0 or a window longer than the model's block.
pub fn evaluate(
    model: &dyn Inference,
    task: &Task,
    batch: usize,
    progress: &mut dyn Progress,
) -> Result<TaskResults, EvalError> {
    if batch == 0 {
        return Err(Invalid::new("batch", &batch, "at least 1").into());
    }
    task.check(model.config())?;
    let name = task.name.as_str();
    progress.begin(name, task.examples(batch)? as u64);
    let results = match &task.work {
        TaskWork::Loss(loss_task) => {
            let (summary, scores) = loss::score(model, name, loss_task, batch, progress)?;
            Results::Loss(summary, scores)
        }
        TaskWork::MultipleChoice(examples) => {
            Results::of_choices(multiple_choice::score(model, name, examples, batch, progress)?)
        }
        TaskWork::LastWord(examples) => {
            Results::of_last_words(last_word::score(model, name, examples, batch, progress)?)
        }
    };
    Ok(TaskResults {
        name: task.name.clone(),
        results,
    })
}

impl Task {
    /// Checks that a model of this shape knows the tokens.
    ///
    /// # Errors
    /// [`EvalError::OtherVocabulary`], [`EvalError::TokenOutOfRange`].
    pub fn check(&self, model: &Gpt2Config) -> Result<(), EvalError> {
        match &self.work {
            // Prepared data is of GPT-2's tokens.
            TaskWork::Loss(_) => check_vocabulary(&self.name, model),
            TaskWork::MultipleChoice(examples) => {
                let tokens =
                    |example: &ChoiceExample| highest(std::iter::once(&example.context).chain(&example.endings));
                check_tokens(&self.name, examples.iter().map(tokens), model.vocab_size)
            }
            TaskWork::LastWord(examples) => {
                let tokens = |example: &LastWordExample| highest([&example.context, &example.word].into_iter());
                check_tokens(&self.name, examples.iter().map(tokens), model.vocab_size)
            }
        }
    }

    /// How many examples there are, or windows in batches of `batch`.
    ///
    /// # Errors
    /// [`EvalError::Data`] if not one window fits the data.
    pub fn examples(&self, batch: usize) -> Result<usize, EvalError> {
        match &self.work {
            TaskWork::Loss(task) => task.windows(batch),
            TaskWork::MultipleChoice(examples) => Ok(examples.len()),
            TaskWork::LastWord(examples) => Ok(examples.len()),
        }
    }
}

/// Checks that a model has GPT-2's tokens.
///
/// # Errors
/// [`EvalError::OtherVocabulary`].
pub(crate) fn check_vocabulary(task: &str, model: &Gpt2Config) -> Result<(), EvalError> {
    if model.has_gpt2_vocabulary() {
        return Ok(());
    }
    Err(EvalError::OtherVocabulary {
        task: task.to_owned(),
        vocab_size: model.vocab_size,
    })
}

/// The highest token of an example.
fn highest<'a>(lists: impl Iterator<Item = &'a Vec<u16>>) -> u16 {
    lists.flatten().copied().max().unwrap_or(0)
}

/// Checks that the model knows the highest token of each example.
fn check_tokens(task: &str, highest: impl Iterator<Item = u16>, vocab_size: usize) -> Result<(), EvalError> {
    let mut places = highest.enumerate();
    match places.find(|&(_, token)| usize::from(token) >= vocab_size) {
        Some((example, token)) => Err(EvalError::TokenOutOfRange {
            task: task.to_owned(),
            example,
            token,
            vocab_size,
        }),
        None => Ok(()),
    }
}

impl Results {
    /// Of multiple choice.
    pub fn of_choices(scores: Vec<ChoiceScore>) -> Self {
        Self::MultipleChoice(ChoiceSummary::of(&scores), scores)
    }

    /// Of the last word.
    pub fn of_last_words(scores: Vec<LastWordScore>) -> Self {
        Self::LastWord(LastWordSummary::of(&scores), scores)
    }

    /// What the scores come to, as files hold it.
    pub fn summary(&self) -> Summary<'_> {
        match self {
            Self::Loss(summary, _) => Summary::Loss(summary),
            Self::MultipleChoice(summary, _) => Summary::MultipleChoice(summary),
            Self::LastWord(summary, _) => Summary::LastWord(summary),
        }
    }
}
