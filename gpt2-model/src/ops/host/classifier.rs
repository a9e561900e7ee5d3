//! The classifier on arrays: the products go to BLAS, and one pass over each row of logits makes the maximum, the sum, the
//! loss and the derivative in place.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the processor's vectors"
)]

use super::math::{exp, vectorised};
use super::memory::as_uninit;
use super::product::{Start, product_into};
use super::reduce::{map_sum, max};
use super::tensor::{HostTensor, matrix};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Rows of logits in memory at once: enough that packing the embedding for the product costs little beside it, and a buffer
/// of 100 MiB.
const CHUNK_ROWS: usize = 512;

/// Derivatives below this are 0: beside the others of their row, which add up to the scale, they count for nothing, and
/// products with numbers that `f32` cannot hold in full precision take a hundred times as long.
const NEGLIGIBLE: f32 = 1e-30;

/// The buffer of logits, kept from step to step.
static BUFFER: Mutex<Vec<f32>> = Mutex::new(Vec::new());

/// The operands in `f32`, the only type that BLAS is asked for here; `f64` models take the reference.
pub(super) struct Operands<'a> {
    hidden: ArrayView2<'a, f32>,
    wte: ArrayView2<'a, f32>,
    targets: Vec<usize>,
}

impl<'a> Operands<'a> {
    pub(super) fn new<T: HostTensor>(hidden: &'a T, wte: &'a T, targets: &T) -> Option<Self> {
        Some(Self {
            hidden: matrix(hidden)?,
            wte: matrix(wte)?,
            targets: targets.indices()?,
        })
    }

    pub(super) fn loss(&self, vocab_size: usize) -> f64 {
        let mut kept = BUFFER.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = self.buffer(&mut kept);
        self.chunks()
            .map(|rows| self.chunk_loss(rows, vocab_size, None, &mut buffer))
            .sum::<f64>()
            / self.targets.len() as f64
    }

    pub(super) fn gradients(&self, vocab_size: usize) -> (f64, Array2<f32>, Array2<f32>) {
        let rows = self.targets.len();
        assert!(rows > 0, "a mean of nothing");
        let mut kept = BUFFER.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = self.buffer(&mut kept);
        let mut d_hidden = Array2::uninit(self.hidden.dim());
        let mut d_wte = Array2::uninit(self.wte.dim());
        let mut total = 0.0;
        for chunk in self.chunks() {
            let (start, end) = (chunk.start, chunk.end);
            total += self.chunk_loss(chunk, vocab_size, Some(1.0 / rows as f32), &mut buffer);
            let d_logits = buffer.slice(s![..end - start, ..]);
            product_into(
                d_logits,
                self.wte,
                Start::Nothing,
                d_hidden.slice_mut(s![start..end, ..]),
            );
            product_into(
                d_logits.reversed_axes(),
                self.hidden.slice(s![start..end, ..]),
                if start == 0 { Start::Nothing } else { Start::Result },
                d_wte.view_mut(),
            );
        }
        // SAFETY: there is a first chunk, which wrote all of `d_wte`, and the chunks together all rows of `d_hidden`.
        let (d_hidden, d_wte) = unsafe { (d_hidden.assume_init(), d_wte.assume_init()) };
        (total / rows as f64, d_hidden, d_wte)
    }

    fn buffer<'b>(&self, kept: &'b mut Vec<f32>) -> ArrayViewMut2<'b, f32> {
        let shape = (CHUNK_ROWS.min(self.targets.len()), self.wte.nrows());
        if kept.len() < shape.0 * shape.1 {
            kept.resize(shape.0 * shape.1, 0.0);
        }
        ArrayViewMut2::from_shape(shape, &mut kept[..shape.0 * shape.1]).expect("as many elements as the shape has")
    }

    fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let rows = self.targets.len();
        (0..rows)
            .step_by(CHUNK_ROWS)
            .map(move |start| start..rows.min(start + CHUNK_ROWS))
    }

    /// Sum of the losses of `rows`; leaves their logits in `buffer`, or with `scale` the derivative by the logits.
    fn chunk_loss(
        &self,
        rows: Range<usize>,
        vocab_size: usize,
        scale: Option<f32>,
        buffer: &mut ArrayViewMut2<f32>,
    ) -> f64 {
        let mut logits = buffer.slice_mut(s![..rows.len(), ..]);
        let hidden = self.hidden.slice(s![rows.clone(), ..]);
        product_into(hidden, self.wte.t(), Start::Nothing, as_uninit(logits.view_mut()));
        let width = logits.ncols();
        let losses: Vec<f64> = logits
            .as_slice_mut()
            .expect("the buffer is in standard layout")
            .par_chunks_exact_mut(width)
            .zip(&self.targets[rows])
            .map(|(row, &target)| {
                vectorised(
                    #[inline(always)]
                    || row_loss(row, target, vocab_size, scale),
                )
            })
            .collect();
        // Summed in order, not by rayon: the loss must not depend on the number of threads.
        losses.iter().sum()
    }
}

/// Cross-entropy of one row of logits in nats; with `scale`, the row becomes `(softmax − one-hot)·scale`.
#[inline(always)]
fn row_loss(row: &mut [f32], target: usize, vocab_size: usize, scale: Option<f32>) -> f64 {
    let (tokens, padding) = row.split_at_mut(vocab_size);
    let max = max(tokens);
    let picked = tokens[target] - max;
    let sum = map_sum(tokens, |logit| exp(logit - max));
    if let Some(scale) = scale {
        let factor = scale / sum;
        for value in tokens.iter_mut() {
            let derivative = *value * factor;
            *value = if derivative < NEGLIGIBLE { 0.0 } else { derivative };
        }
        tokens[target] -= scale;
        padding.fill(0.0);
    }
    f64::from(sum.ln()) - f64::from(picked)
}
