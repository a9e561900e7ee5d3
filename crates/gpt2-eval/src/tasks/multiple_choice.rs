//! Multiple choice: the model is given a context and several endings, and prefers the one with the lowest loss.

use super::{share, standard_error};
use crate::batches::{Row, batches};
use crate::error::EvalError;
use crate::progress::Progress;
use gpt2_model::Inference;
use serde::{Deserialize, Serialize};

/// A context with several endings, in the model's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChoiceExample {
    /// Its number in the file.
    pub index: usize,
    /// At least one token.
    pub context: Vec<u16>,
    /// At least two endings of at least one token.
    pub endings: Vec<Vec<u16>>,
    /// The right ending, from 0.
    pub label: usize,
}

/// How the model scores an example. Of several endings with the same loss the first is preferred.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChoiceScore {
    /// The example's number in the file.
    pub index: usize,
    /// The right ending, from 0.
    pub label: usize,
    /// The ending with the lowest sum of losses.
    pub prediction: usize,
    /// The ending with the lowest mean loss.
    pub prediction_norm: usize,
    /// Of each ending, the sum of the losses of its tokens in nats.
    pub loss_sum: Vec<f64>,
    /// Of each ending, the mean loss of its tokens in nats.
    pub loss_mean: Vec<f64>,
    /// Whether an ending with the context is longer than the model's block, so that the model saw only the end of it.
    pub truncated: bool,
}

/// What the scores come to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ChoiceSummary {
    /// How many examples there are.
    pub examples: usize,
    /// The share of examples whose right ending has the lowest sum of losses.
    pub acc: f64,
    /// The standard error of `acc`; none of one example.
    pub acc_stderr: Option<f64>,
    /// The share of examples whose right ending has the lowest mean loss, as llm.c counts.
    pub acc_norm: f64,
    /// The standard error of `acc_norm`; none of one example.
    pub acc_norm_stderr: Option<f64>,
    /// Examples that are longer than the model's block, of which the model saw only the end.
    pub truncated: usize,
}

impl ChoiceSummary {
    /// Of at least one example.
    pub fn of(scores: &[ChoiceScore]) -> Self {
        let examples = scores.len();
        let count = |holds: fn(&ChoiceScore) -> bool| scores.iter().filter(|score| holds(score)).count();
        let acc = share(count(|score| score.prediction == score.label), examples);
        let acc_norm = share(count(|score| score.prediction_norm == score.label), examples);
        Self {
            examples,
            acc,
            acc_stderr: standard_error(acc, examples),
            acc_norm,
            acc_norm_stderr: standard_error(acc_norm, examples),
            truncated: count(|score| score.truncated),
        }
    }
}

/// Scores the examples, in their order, `batch` endings at a time. Waits for the device once a batch.
pub(crate) fn score(
    model: &dyn Inference,
    task: &str,
    examples: &[ChoiceExample],
    batch: usize,
    progress: &mut dyn Progress,
) -> Result<Vec<ChoiceScore>, EvalError> {
    let block_size = model.config().block_size;
    // The example that each row is an ending of.
    let owners: Vec<usize> = (0..examples.len())
        .flat_map(|example| std::iter::repeat_n(example, examples[example].endings.len()))
        .collect();
    let rows: Vec<Row> = examples
        .iter()
        .flat_map(|example| {
            let context = &example.context;
            example
                .endings
                .iter()
                .map(|ending| Row::new(context, ending, block_size))
        })
        .collect();
    let mut losses: Vec<Vec<f32>> = vec![Vec::new(); rows.len()];
    let mut endings_left: Vec<usize> = examples.iter().map(|example| example.endings.len()).collect();
    for batch in batches(&rows, batch, block_size) {
        let all = model.token_losses(batch.sequences(&rows));
        let mut done = 0;
        for (&row, range) in batch.rows.iter().zip(batch.scored(&rows)) {
            losses[row] = all[range].to_vec();
            endings_left[owners[row]] -= 1;
            done += u64::from(endings_left[owners[row]] == 0);
        }
        progress.advance(done);
    }
    let mut rows = rows.iter().zip(losses);
    examples
        .iter()
        .enumerate()
        .map(|(place, example)| {
            let endings: Vec<_> = rows.by_ref().take(example.endings.len()).collect();
            let truncated = endings.iter().any(|(row, _)| row.truncated);
            let losses: Vec<Vec<f32>> = endings.into_iter().map(|(_, losses)| losses).collect();
            if losses.iter().flatten().any(|loss| !loss.is_finite()) {
                return Err(EvalError::NonFinite {
                    task: task.to_owned(),
                    example: place,
                });
            }
            Ok(score_of(example, &losses, truncated))
        })
        .collect()
}

/// The score by the losses of the tokens of each ending.
fn score_of(example: &ChoiceExample, losses: &[Vec<f32>], truncated: bool) -> ChoiceScore {
    let loss_sum: Vec<f64> = losses
        .iter()
        .map(|losses| losses.iter().copied().map(f64::from).sum())
        .collect();
    let loss_mean: Vec<f64> = loss_sum
        .iter()
        .zip(losses)
        .map(|(sum, losses)| sum / losses.len() as f64)
        .collect();
    ChoiceScore {
        index: example.index,
        label: example.label,
        prediction: lowest(&loss_sum),
        prediction_norm: lowest(&loss_mean),
        loss_sum,
        loss_mean,
        truncated,
    }
}

/// The first of the lowest values.
fn lowest(values: &[f64]) -> usize {
    let places = values.iter().enumerate();
    places.min_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(label: usize) -> ChoiceExample {
        ChoiceExample {
            index: 7,
            context: vec![1],
            endings: vec![vec![1]; 3],
            label,
        }
    }

    #[test]
    fn the_sum_and_the_mean_may_prefer_other_endings() {
        let losses = [vec![2.0], vec![1.0, 1.5], vec![0.5, 2.0, 3.5]];
        let score = score_of(&example(1), &losses, false);
        assert_eq!(score.loss_sum, [2.0, 2.5, 6.0]);
        assert_eq!(score.loss_mean, [2.0, 1.25, 2.0]);
        assert_eq!((score.prediction, score.prediction_norm), (0, 1));
        assert_eq!((score.index, score.label), (7, 1));
        assert_eq!(lowest(&[3.0, 1.0, 1.0]), 1, "the first of equals");
    }

    #[test]
    fn a_summary_counts_what_is_right() {
        let losses = [vec![2.0], vec![1.0, 1.5], vec![9.0]];
        let scores: Vec<_> = [0, 1, 1, 2]
            .into_iter()
            .map(|label| score_of(&example(label), &losses, label == 2))
            .collect();
        let summary = ChoiceSummary::of(&scores);
        assert_eq!((summary.examples, summary.truncated), (4, 1));
        assert_eq!((summary.acc, summary.acc_norm), (0.25, 0.5));
        assert_eq!(summary.acc_stderr, Some(0.25));
        assert_eq!(summary.acc_norm_stderr, Some((0.25_f64 / 3.0).sqrt()));
    }
}
