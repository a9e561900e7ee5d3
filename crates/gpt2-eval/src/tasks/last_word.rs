//! The last word of a text: whether the model, always taking the most probable token, writes it, and how probable it
//! is.

use super::{share, standard_error};
use crate::batches::{Row, batches, scored_targets};
use crate::error::EvalError;
use crate::progress::Progress;
use gpt2_model::{Inference, TokenScore};
use serde::{Deserialize, Serialize};

/// A text without its last word, and the word, in the model's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastWordExample {
    /// At least one token.
    pub context: Vec<u16>,
    /// The word with the space before it; at least one token.
    pub word: Vec<u16>,
}

/// How the model scores an example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastWordScore {
    /// The sum of the losses of the word's tokens in nats.
    pub loss_sum: f64,
    /// The word's tokens.
    pub tokens: usize,
    /// The most probable token in the place of each of the word's, given those before it.
    pub predictions: Vec<u32>,
    /// Whether all of them are the word's.
    pub correct: bool,
    /// Whether the text is longer than the model's block, so that the model saw only the end of it.
    pub truncated: bool,
}

/// What the scores come to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LastWordSummary {
    /// How many examples there are.
    pub examples: usize,
    /// The share of examples whose word the model writes.
    pub acc: f64,
    /// The standard error of `acc`; none of one example.
    pub acc_stderr: Option<f64>,
    /// Of a word: `exp` of the mean, over examples, of a word's loss.
    pub perplexity: f64,
    /// Of a token: `exp` of the mean, over the tokens of all words, of a token's loss.
    pub token_perplexity: f64,
    /// Examples that are longer than the model's block, of which the model saw only the end.
    pub truncated: usize,
}

impl LastWordSummary {
    /// Of at least one example.
    pub fn of(scores: &[LastWordScore]) -> Self {
        let examples = scores.len();
        let count = |holds: fn(&LastWordScore) -> bool| scores.iter().filter(|score| holds(score)).count();
        let acc = share(count(|score| score.correct), examples);
        let loss: f64 = scores.iter().map(|score| score.loss_sum).sum();
        let tokens: usize = scores.iter().map(|score| score.tokens).sum();
        Self {
            examples,
            acc,
            acc_stderr: standard_error(acc, examples),
            perplexity: (loss / examples as f64).exp(),
            token_perplexity: (loss / tokens as f64).exp(),
            truncated: count(|score| score.truncated),
        }
    }
}

/// Scores the examples, in their order, `batch` at a time.
pub(crate) fn score(
    model: &dyn Inference,
    task: &str,
    examples: &[LastWordExample],
    batch: usize,
    progress: &mut dyn Progress,
) -> Result<Vec<LastWordScore>, EvalError> {
    let block_size = model.config().block_size;
    let rows: Vec<Row> = examples
        .iter()
        .map(|example| Row::new(&example.context, &example.word, block_size))
        .collect();
    let mut scores: Vec<Option<LastWordScore>> = vec![None; rows.len()];
    for batch in batches(&rows, batch, block_size) {
        let positions: Vec<usize> = batch.scored(&rows).into_iter().flatten().collect();
        let tokens = model.token_scores(batch.sequences(&rows), &positions);
        let mut tokens = tokens.into_iter();
        for &row in &batch.rows {
            let word = scored_targets(&rows[row]);
            let scored = tokens.by_ref().take(word.len());
            let (losses, predictions): (Vec<f32>, Vec<u32>) =
                scored.map(|TokenScore { loss, prediction }| (loss, prediction)).unzip();
            if losses.iter().any(|loss| !loss.is_finite()) {
                return Err(EvalError::NonFinite {
                    task: task.to_owned(),
                    example: row,
                });
            }
            scores[row] = Some(LastWordScore {
                loss_sum: losses.iter().copied().map(f64::from).sum(),
                tokens: word.len(),
                correct: predictions
                    .iter()
                    .zip(word)
                    .all(|(&found, &word)| found == u32::from(word)),
                predictions,
                truncated: rows[row].truncated,
            });
        }
        progress.advance(batch.rows.len() as u64);
    }
    Ok(scores.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_the_perplexity_of_words_and_of_tokens() {
        let score = |loss_sum: f64, tokens, correct| LastWordScore {
            loss_sum,
            tokens,
            predictions: vec![0; tokens],
            correct,
            truncated: correct,
        };
        let summary = LastWordSummary::of(&[score(1.0, 1, true), score(5.0, 2, false)]);
        assert_eq!((summary.examples, summary.acc, summary.truncated), (2, 0.5, 1));
        assert_eq!(summary.acc_stderr, Some(0.5));
        let nats = [summary.perplexity, summary.token_perplexity].map(f64::ln);
        assert!(
            (nats[0] - 3.0).abs() < 1e-12 && (nats[1] - 2.0).abs() < 1e-12,
            "{nats:?}"
        );
    }
}
