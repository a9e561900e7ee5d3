//! The classifier on arrays: the products go to BLAS or the tile unit, and one pass over each row of logits makes the maximum, the sum, the
//! loss and the derivative in place.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the processor's vectors"
)]

use super::element::Element;
use super::math::{exp, vectorised};
use super::memory::as_uninit;
use super::product::{Start, Written, product_into};
use super::reduce::{map_sum, max};
use super::tiles::{self, Operand, Role};
use crate::capabilities::CPU_LOGITS_ROWS;
use half::bf16;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;
use std::cell::OnceCell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Derivatives below this are 0: beside the others of their row, which add up to the scale, they count for nothing, and
/// products with numbers that `f32` cannot hold in full precision take a hundred times as long.
const NEGLIGIBLE: f32 = 1e-30;

/// Buffers of logits that are kept from step to step. A loss takes one, or makes one where others use all of them, so that
/// two models in a process never wait for each other.
static SPARE_BUFFERS: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// Memory for the logits of a chunk, whatever they are; given back for the next loss when it is dropped.
struct Buffer(Vec<f32>);

impl Buffer {
    fn take() -> Self {
        let spare = SPARE_BUFFERS.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self(spare.unwrap_or_default())
    }

    /// Of the given shape. What it holds is not of interest.
    fn matrix(&mut self, shape: (usize, usize)) -> ArrayViewMut2<'_, f32> {
        let length = shape.0 * shape.1;
        if self.0.len() < length {
            self.0.resize(length, 0.0);
        }
        ArrayViewMut2::from_shape(shape, &mut self.0[..length]).expect("as many elements as the shape has")
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut spare = SPARE_BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
        spare.push(std::mem::take(&mut self.0));
    }
}

/// The products that a classifier is made of.
pub(super) trait Products {
    /// The type of the hidden states and of the derivative by them.
    type Hidden: Element;

    /// The sides of the embedding.
    fn shape(&self) -> (usize, usize);

    /// The logits of the hidden states `rows`.
    fn logits(&self, rows: Range<usize>, out: ArrayViewMut2<MaybeUninit<f32>>);

    /// The derivative by the hidden states from that by their logits.
    fn grad_hidden(&self, grad_logits: ArrayView2<f32>, out: ArrayViewMut2<MaybeUninit<Self::Hidden>>);

    /// The derivative by the embedding from that by the logits of `rows`.
    fn grad_wte(
        &self,
        grad_logits: ArrayView2<f32>,
        rows: Range<usize>,
        start: Start,
        out: ArrayViewMut2<MaybeUninit<f32>>,
    );
}

/// Products by BLAS, of `f32`.
pub(super) struct Blas<'a> {
    pub(super) hidden: ArrayView2<'a, f32>,
    pub(super) wte: ArrayView2<'a, f32>,
}

impl Products for Blas<'_> {
    type Hidden = f32;

    fn shape(&self) -> (usize, usize) {
        self.wte.dim()
    }

    fn logits(&self, rows: Range<usize>, out: ArrayViewMut2<MaybeUninit<f32>>) {
        product_into(self.hidden.slice(s![rows, ..]), self.wte.t(), Start::Nothing, out);
    }

    fn grad_hidden(&self, grad_logits: ArrayView2<f32>, out: ArrayViewMut2<MaybeUninit<f32>>) {
        product_into(grad_logits, self.wte, Start::Nothing, out);
    }

    fn grad_wte(
        &self,
        grad_logits: ArrayView2<f32>,
        rows: Range<usize>,
        start: Start,
        out: ArrayViewMut2<MaybeUninit<f32>>,
    ) {
        product_into(grad_logits.reversed_axes(), self.hidden.slice(s![rows, ..]), start, out);
    }
}

/// Products on the tile unit, of `bf16`.
pub(super) struct Tiles<'a> {
    hidden: ArrayView2<'a, bf16>,
    wte: ArrayView2<'a, f32>,
    /// The embedding as the logits need it.
    by_token: Operand,
    /// The embedding as the derivative by the hidden states needs it.
    by_channel: OnceCell<Operand>,
}

impl<'a> Tiles<'a> {
    pub(super) fn new(hidden: ArrayView2<'a, bf16>, wte: ArrayView2<'a, f32>) -> Self {
        Self {
            hidden,
            wte,
            by_token: Operand::new(wte, Role::Right),
            by_channel: OnceCell::new(),
        }
    }
}

impl Products for Tiles<'_> {
    type Hidden = bf16;

    fn shape(&self) -> (usize, usize) {
        self.wte.dim()
    }

    fn logits(&self, rows: Range<usize>, out: ArrayViewMut2<MaybeUninit<f32>>) {
        let hidden = Operand::new(self.hidden.slice(s![rows, ..]), Role::Left);
        tiles::product_into(&hidden, &self.by_token, Start::Nothing, out);
    }

    fn grad_hidden(&self, grad_logits: ArrayView2<f32>, out: ArrayViewMut2<MaybeUninit<bf16>>) {
        let by_channel = self.by_channel.get_or_init(|| Operand::new(self.wte.t(), Role::Right));
        tiles::product_into(&Operand::new(grad_logits, Role::Left), by_channel, Start::Nothing, out);
    }

    fn grad_wte(
        &self,
        grad_logits: ArrayView2<f32>,
        rows: Range<usize>,
        start: Start,
        out: ArrayViewMut2<MaybeUninit<f32>>,
    ) {
        let grad_logits = Operand::new(grad_logits.reversed_axes(), Role::Left);
        let hidden = Operand::new(self.hidden.slice_move(s![rows, ..]).reversed_axes(), Role::Right);
        tiles::product_into(&grad_logits, &hidden, start, out);
    }
}

/// The classifier on its operands.
pub(super) struct Classifier<P> {
    pub(super) products: P,
    pub(super) targets: Vec<usize>,
}

impl<P: Products> Classifier<P> {
    pub(super) fn loss(&self, vocab_size: usize) -> f64 {
        let mut buffer = Buffer::take();
        let mut logits = buffer.matrix(self.logits_shape());
        self.chunks()
            .map(|rows| sum(&self.chunk_losses(rows, vocab_size, None, &mut logits)))
            .sum::<f64>()
            / self.targets.len() as f64
    }

    /// The loss of each row.
    pub(super) fn token_losses(&self, vocab_size: usize) -> Vec<f32> {
        let mut buffer = Buffer::take();
        let mut logits = buffer.matrix(self.logits_shape());
        self.chunks()
            .flat_map(|rows| self.chunk_losses(rows, vocab_size, None, &mut logits))
            .map(|loss| loss as f32)
            .collect()
    }

    /// The loss, and its derivatives by the hidden states and the embedding.
    pub(super) fn gradients(&self, vocab_size: usize) -> (f64, Array2<P::Hidden>, Array2<f32>) {
        let rows = self.targets.len();
        assert!(rows > 0, "a mean of nothing");
        let mut buffer = Buffer::take();
        let mut logits = buffer.matrix(self.logits_shape());
        let shape = self.products.shape();
        let mut grad_hidden = Array2::uninit((rows, shape.1));
        let mut grad_wte = Array2::uninit(shape);
        let mut total = 0.0;
        for chunk in self.chunks() {
            let (start, end) = (chunk.start, chunk.end);
            total += sum(&self.chunk_losses(chunk.clone(), vocab_size, Some(1.0 / rows as f32), &mut logits));
            let grad_logits = logits.slice(s![..end - start, ..]);
            self.products
                .grad_hidden(grad_logits, grad_hidden.slice_mut(s![start..end, ..]));
            let added_to = if start == 0 {
                Start::Nothing
            } else {
                // SAFETY: the first chunk wrote all of `grad_wte`.
                Start::Result(unsafe { Written::promise() })
            };
            self.products
                .grad_wte(grad_logits, chunk, added_to, grad_wte.view_mut());
        }
        // SAFETY: there is a first chunk, which wrote all of `grad_wte`, and the chunks together all rows of
        // `grad_hidden`.
        let (grad_hidden, grad_wte) = unsafe { (grad_hidden.assume_init(), grad_wte.assume_init()) };
        (total / rows as f64, grad_hidden, grad_wte)
    }

    /// Of the largest chunk.
    fn logits_shape(&self) -> (usize, usize) {
        (CPU_LOGITS_ROWS.min(self.targets.len()), self.products.shape().0)
    }

    fn chunks(&self) -> impl Iterator<Item = Range<usize>> + use<P> {
        let rows = self.targets.len();
        (0..rows)
            .step_by(CPU_LOGITS_ROWS)
            .map(move |start| start..rows.min(start + CPU_LOGITS_ROWS))
    }

    /// The losses of `rows`; leaves their logits in `buffer`, or with `scale` the derivative by the logits.
    fn chunk_losses(
        &self,
        rows: Range<usize>,
        vocab_size: usize,
        scale: Option<f32>,
        buffer: &mut ArrayViewMut2<f32>,
    ) -> Vec<f64> {
        let mut logits = buffer.slice_mut(s![..rows.len(), ..]);
        // SAFETY: each element is written.
        self.products
            .logits(rows.clone(), unsafe { as_uninit(logits.view_mut()) });
        let width = logits.ncols();
        logits
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
            .collect()
    }
}

/// Summed in order, not by rayon: the loss must not depend on the number of threads.
fn sum(losses: &[f64]) -> f64 {
    losses.iter().sum()
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
