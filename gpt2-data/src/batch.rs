//! A batch of tokens as the training step takes it. Where its rows come from is the business of `loader.rs` and
//! `validation.rs`.

use std::time::Duration;

use crate::dataset::TokenStream;
use crate::error::DataError;

/// Inputs and targets of one micro-step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    /// The optimizer step it belongs to; 0 in validation.
    pub step: u64,
    /// Its place within the step, or among the batches of a validation.
    pub micro_step: u64,
    /// Rows, B.
    pub batch: usize,
    /// Tokens in a row, T.
    pub seq: usize,
    /// B × T tokens, row after row. Every one is below [`VOCAB_SIZE`](crate::VOCAB_SIZE).
    pub inputs: Vec<i32>,
    /// B × T tokens: to each input the token after it.
    pub targets: Vec<i32>,
    /// The global number of the first row (see [`BatchPlan`](crate::BatchPlan)); in validation, its window.
    pub first_sequence: u64,
    /// How long the caller was blocked until the batch was there.
    pub wait: Duration,
}

impl TokenBatch {
    /// Reads the windows of `seq + 1` tokens that begin at `starts`, one a row. The numbers of the batch are left at 0.
    pub(crate) fn read(
        stream: &TokenStream,
        seq: usize,
        starts: impl IntoIterator<Item = u64>,
    ) -> Result<Self, DataError> {
        let mut window = vec![0_u16; seq + 1];
        let mut read = Self {
            step: 0,
            micro_step: 0,
            batch: 0,
            seq,
            inputs: Vec::new(),
            targets: Vec::new(),
            first_sequence: 0,
            wait: Duration::ZERO,
        };
        for start in starts {
            stream.read(start, &mut window)?;
            read.inputs.extend(window[..seq].iter().copied().map(i32::from));
            read.targets.extend(window[1..].iter().copied().map(i32::from));
            read.batch += 1;
        }
        Ok(read)
    }
}
