//! The loss on the validation split of prepared data.

use crate::error::EvalError;
use crate::progress::Progress;
use gpt2_base::Invalid;
use gpt2_data::{TokenStream, Tokenizer, ValidationWindows};
use gpt2_model::{Inference, Sequences};
use serde::Serialize;
use std::f64::consts::LN_2;
use std::sync::Arc;

/// What the loss is taken on: windows that do not overlap, as in the evaluations of a training run.
#[derive(Debug, Clone)]
pub struct LossTask {
    /// The tokens.
    pub stream: Arc<TokenStream>,
    /// Tokens in a window, T; at most the model's block.
    pub seq: usize,
    /// At most so many batches; all windows without.
    pub max_batches: Option<usize>,
}

/// The mean loss of a window in nats a token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WindowScore {
    /// Nats a token.
    pub loss: f64,
}

/// What the losses come to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LossSummary {
    /// Windows.
    pub windows: usize,
    /// Tokens in a window.
    pub seq: usize,
    /// Tokens whose loss is in the mean.
    pub tokens: usize,
    /// Mean loss in nats a token.
    pub loss: f64,
    /// `exp` of the loss.
    pub perplexity: f64,
    /// Bits that the model needs for a byte of the text; none where the windows hold no text. The end of a document has
    /// no bytes of its own.
    pub bits_per_byte: Option<f64>,
}

impl LossTask {
    /// How many windows there are, in batches of `batch`.
    ///
    /// # Errors
    /// [`EvalError::Data`] if not one fits the data.
    pub fn windows(&self, batch: usize) -> Result<usize, EvalError> {
        self.stream.windows(self.seq)?;
        let all = ((self.stream.len() - 1) / self.seq as u64) as usize;
        Ok(self
            .max_batches
            .map_or(all, |batches| all.min(batches.saturating_mul(batch))))
    }
}

/// The loss of each window, in order, and the summary. Waits for the device once a batch.
pub(crate) fn score(
    model: &dyn Inference,
    name: &str,
    task: &LossTask,
    batch: usize,
    progress: &mut dyn Progress,
) -> Result<(LossSummary, Vec<WindowScore>), EvalError> {
    let LossTask { seq, max_batches, .. } = *task;
    let block_size = model.config().block_size;
    if seq > block_size {
        let expected = format!("at most {block_size}, the model's block");
        return Err(Invalid::new("seq", &seq, expected).into());
    }
    let tokenizer = Tokenizer::gpt2();
    let mut windows = Vec::new();
    let (mut sum, mut bytes) = (0.0, 0);
    for batch in ValidationWindows::new(Arc::clone(&task.stream)).batches(batch, seq, max_batches)? {
        let batch = batch?;
        bytes += tokenizer.text_bytes(&batch.targets);
        let losses = model.token_losses(Sequences {
            inputs: batch.inputs,
            targets: batch.targets,
            seq,
        });
        for losses in losses.chunks(seq) {
            let of_window: f64 = losses.iter().copied().map(f64::from).sum();
            if !of_window.is_finite() {
                return Err(EvalError::NonFinite {
                    task: name.to_owned(),
                    example: windows.len(),
                });
            }
            sum += of_window;
            windows.push(WindowScore {
                loss: of_window / seq as f64,
            });
        }
        progress.advance(batch.batch as u64);
    }
    let tokens = windows.len() * seq;
    let loss = sum / tokens as f64;
    let summary = LossSummary {
        windows: windows.len(),
        seq,
        tokens,
        loss,
        perplexity: loss.exp(),
        bits_per_byte: (bytes > 0).then(|| sum / LN_2 / bytes as f64),
    };
    Ok((summary, windows))
}
