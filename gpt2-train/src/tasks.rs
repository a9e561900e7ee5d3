//! What the model of a run is scored on besides the loss.

use crate::error::TrainError;
use crate::ranks::Ranks;
use burn::tensor::backend::AutodiffBackend;
use gpt2_eval::{Results, Silent, Task, TaskWork, evaluate};
use gpt2_model::Inference;
use gpt2_model::ops::training::TrainingBackend;
use std::collections::BTreeMap;

/// The tasks, of which this rank has every so-many-th example.
#[derive(Debug, Default)]
pub(crate) struct TaskSet(Vec<Task>);

impl TaskSet {
    /// The share of rank `rank` of `ranks`.
    pub(crate) fn new(tasks: Vec<Task>, rank: usize, ranks: usize) -> Self {
        fn share<T>(examples: Vec<T>, rank: usize, ranks: usize) -> Vec<T> {
            examples.into_iter().skip(rank).step_by(ranks).collect()
        }
        let tasks = tasks.into_iter().map(|Task { name, work }| Task {
            name,
            work: match work {
                TaskWork::MultipleChoice(examples) => TaskWork::MultipleChoice(share(examples, rank, ranks)),
                TaskWork::LastWord(examples) => TaskWork::LastWord(share(examples, rank, ranks)),
                // Its windows are the validation set's.
                TaskWork::Loss(task) => TaskWork::Loss(task),
            },
        });
        Self(tasks.collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The model's scores on the examples of all ranks, by the names that they have in the log: `hellaswag.acc_norm`.
    ///
    /// # Errors
    /// Those of [`evaluate`], or of another rank.
    pub(crate) fn score<B>(
        &self,
        model: &dyn Inference,
        batch: usize,
        ranks: &mut Ranks<B>,
    ) -> Result<BTreeMap<String, f64>, TrainError>
    where
        B: AutodiffBackend,
        B::InnerBackend: TrainingBackend,
    {
        let mut scores = BTreeMap::new();
        for task in &self.0 {
            let results = match evaluate(model, task, batch, &mut Silent)?.results {
                Results::MultipleChoice(_, own) => Results::of_choices(ranks.in_order(own)?),
                Results::LastWord(_, own) => Results::of_last_words(ranks.in_order(own)?),
                loss @ Results::Loss(..) => loss,
            };
            let named = match &results {
                Results::MultipleChoice(summary, _) => vec![("acc", summary.acc), ("acc_norm", summary.acc_norm)],
                Results::LastWord(summary, _) => vec![("acc", summary.acc), ("perplexity", summary.perplexity)],
                Results::Loss(summary, _) => vec![("loss", summary.loss)],
            };
            let named = named
                .into_iter()
                .map(|(measure, score)| (format!("{}.{measure}", task.name), score));
            scores.extend(named);
        }
        Ok(scores)
    }
}
