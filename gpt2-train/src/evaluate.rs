//! The loss on held-out tokens.

use crate::batches::sequences;
use crate::error::TrainError;
use gpt2_data::{TokenBatch, TokenStream, Tokenizer, ValidationWindows};
use gpt2_model::Inference;
use std::f64::consts::LN_2;
use std::sync::Arc;

/// What an evaluation gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Mean loss in nats a token.
    pub loss: f64,
    /// Bits that the model needs for a byte of the text; none where the set holds no text.
    pub bits_per_byte: Option<f64>,
}

/// The held-out batches of a run: always the same ones in the same order, so that two losses can be compared.
#[derive(Debug, Clone, Default)]
pub struct EvaluationSet {
    batches: Vec<TokenBatch>,
    /// Bytes of text a target token, on average.
    bytes_per_token: Option<f64>,
}

impl EvaluationSet {
    /// The first `max_batches` batches of `batch` windows of `seq` tokens.
    ///
    /// # Errors
    /// [`TrainError::Data`] if the split is shorter than one window or cannot be read.
    pub fn new(stream: Arc<TokenStream>, batch: usize, seq: usize, max_batches: usize) -> Result<Self, TrainError> {
        let batches: Vec<_> = ValidationWindows::new(stream)
            .batches(batch, seq, Some(max_batches))?
            .collect::<Result<_, _>>()?;
        let bytes_per_token = bytes_per_token(batches.iter().flat_map(|batch| &batch.targets));
        Ok(Self {
            batches,
            bytes_per_token,
        })
    }

    /// Mean loss of `model` over all batches. Waits for the device once a batch.
    pub fn evaluate(&self, model: &dyn Inference) -> Evaluation {
        let losses: Vec<f64> = self.losses(model, 0, 1).collect();
        self.evaluation(&losses)
    }

    /// Mean loss of `model` on each of the batches that rank `rank` of `ranks` has: every `ranks`-th. Waits for the device once
    /// a batch.
    pub(crate) fn losses<'a>(
        &'a self,
        model: &'a dyn Inference,
        rank: usize,
        ranks: usize,
    ) -> impl Iterator<Item = f64> + 'a {
        let own = self.batches.iter().skip(rank).step_by(ranks);
        own.map(|batch| model.loss(sequences(batch.clone())))
    }

    /// What the mean loss of each batch comes to.
    pub(crate) fn evaluation(&self, losses: &[f64]) -> Evaluation {
        let (mut sum, mut rows) = (0.0, 0.0);
        for (batch, loss) in self.batches.iter().zip(losses) {
            // The last batch may be smaller, so the mean is weighted.
            let batch_rows = batch.batch as f64;
            sum += loss * batch_rows;
            rows += batch_rows;
        }
        let loss = sum / rows;
        Evaluation {
            loss,
            bits_per_byte: self.bytes_per_token.map(|bytes| loss / LN_2 / bytes),
        }
    }
}

/// Mean length in bytes of the text of `tokens`; none if there is no text. The end of a document has no bytes of its own.
fn bytes_per_token<'a>(tokens: impl Iterator<Item = &'a i32> + Clone) -> Option<f64> {
    let bytes = Tokenizer::gpt2().text_bytes(tokens.clone());
    let count = tokens.filter(|&&token| u16::try_from(token).is_ok()).count();
    (bytes > 0).then(|| bytes as f64 / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt2_data::END_OF_TEXT;

    #[test]
    fn the_end_of_a_document_has_no_bytes() {
        let tokens: Vec<i32> = Tokenizer::gpt2()
            .encode("Once upon a time")
            .into_iter()
            .map(i32::from)
            .collect();
        assert_eq!(tokens.len(), 4);
        assert_eq!(bytes_per_token(tokens.iter()), Some(4.0));
        let mut ended = tokens;
        ended.push(END_OF_TEXT.into());
        assert_eq!(bytes_per_token(ended.iter()), Some(16.0 / 5.0));
        assert_eq!(bytes_per_token([i32::from(END_OF_TEXT)].iter()), None);
    }
}
