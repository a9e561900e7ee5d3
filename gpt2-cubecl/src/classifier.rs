//! The classifier: logits, softmax, cross-entropy and their derivatives, a chunk of rows at a time.

use crate::launch::{UNITS, array, cubes, empty, units};
use crate::reduce::{max_of_cube, sum_of_cube};
use crate::{Tensor, adamw, product};
use burn::tensor::TensorMetadata;
use burn_cubecl::CubeRuntime;
use cubecl::prelude::*;

/// The loss and its derivatives.
#[derive(Debug)]
pub struct Gradients<R: CubeRuntime> {
    /// Mean cross-entropy in nats, `[1]`.
    pub loss: Tensor<R>,
    /// By the hidden states, `[N, C]`.
    pub hidden: Tensor<R>,
    /// By the embedding, `[Vp, C]`.
    pub wte: Tensor<R>,
}

/// A row's loss; with `slopes` the logits become the derivatives by them, times `factor`. Columns past `vocab_size` are
/// padding.
#[cube(launch_unchecked)]
fn loss_kernel(
    logits: &mut Array<f32>,
    targets: &Array<i32>,
    losses: &mut Array<f32>,
    first: usize,
    rows: usize,
    padded: usize,
    vocab_size: usize,
    factor: f32,
    #[comptime] slopes: bool,
) {
    let row = CUBE_POS;
    if row >= rows {
        terminate!();
    }
    let start = row * padded;
    let unit = UNIT_POS as usize;
    let target = targets[first + row] as usize;
    let mut shared = SharedMemory::<f32>::new(UNITS);
    // One pass for both, as the sum is corrected whenever the maximum grows.
    let mut most = f32::new(-1e30);
    let mut sum = 0.0f32;
    let mut i = unit;
    while i < vocab_size {
        let logit = logits[start + i];
        if logit > most {
            sum *= f32::exp(most - logit);
            most = logit;
        }
        sum += f32::exp(logit - most);
        i += UNITS;
    }
    let greatest = max_of_cube(most, &mut shared);
    let sum = sum_of_cube(sum * f32::exp(most - greatest), &mut shared);
    if unit == 0 {
        losses[first + row] = f32::ln(sum) + greatest - logits[start + target];
    }
    if slopes {
        // The target's logit is read above.
        sync_cube();
        let scale = factor / sum;
        i = unit;
        while i < padded {
            let mut slope = 0.0f32;
            if i < vocab_size {
                slope = f32::exp(logits[start + i] - greatest) * scale;
            }
            if i == target {
                slope -= factor;
            }
            logits[start + i] = slope;
            i += UNITS;
        }
    }
}

/// The rows of a chunk, and the tensors that all of them share.
struct Chunks<'a, R: CubeRuntime> {
    /// As the products read them.
    hidden: Tensor<R>,
    wte: Tensor<R>,
    targets: &'a Tensor<R>,
    vocab_size: usize,
    /// In memory at once, at the most.
    most_logits: usize,
    /// `[N]`.
    losses: Tensor<R>,
}

impl<'a, R: CubeRuntime> Chunks<'a, R> {
    fn new(hidden: &Tensor<R>, wte: &Tensor<R>, targets: &'a Tensor<R>, vocab_size: usize, most_logits: usize) -> Self {
        Self {
            hidden: product::operand(hidden, wte),
            wte: product::operand(wte, hidden),
            targets,
            vocab_size,
            most_logits,
            losses: empty(hidden, &[hidden.shape()[0]]),
        }
    }

    /// The first row of each chunk, and how many it has.
    fn chunks(&self) -> impl Iterator<Item = (usize, usize)> + use<R> {
        let (rows, padded) = (self.hidden.shape()[0], self.wte.shape()[0]);
        let most = (self.most_logits / padded).max(1);
        // Whole tiles of the products, where there is more than one.
        let most = if most > 128 { most / 128 * 128 } else { most };
        (0..rows)
            .step_by(most)
            .map(move |start| (start, most.min(rows - start)))
    }

    /// Writes the rows' losses and gives the derivatives by their logits, or without `slopes` the logits, `[n, Vp]`.
    fn losses(&self, start: usize, count: usize, slopes: bool) -> Tensor<R> {
        let padded = self.wte.shape()[0];
        let logits = product::logits(&self.hidden, start, count, &self.wte);
        let factor = (self.hidden.shape()[0] as f32).recip();
        // SAFETY: a cube stays in its row; targets are below `vocab_size`.
        unsafe {
            loss_kernel::launch_unchecked(
                &logits.client,
                cubes(count),
                units(),
                array(&logits),
                array(self.targets),
                array(&self.losses),
                start,
                count,
                padded,
                self.vocab_size,
                factor,
                slopes,
            );
        }
        logits
    }

    /// Writes the losses of all rows, a chunk at a time.
    fn fill_losses(&self) {
        for (start, count) in self.chunks() {
            self.losses(start, count, false);
        }
    }

    fn mean(&self) -> Tensor<R> {
        adamw::total(&self.losses, (self.hidden.shape()[0] as f32).recip())
    }
}

/// Mean cross-entropy of `targets`, `[N]`, under `softmax(hidden · wteᵀ)` with `hidden` `[N, C]` and `wte` `[Vp, C]`: `[1]`.
/// At most `most_logits` logits are in memory at once, but at least a row of them.
pub fn loss<R: CubeRuntime>(
    hidden: &Tensor<R>,
    wte: &Tensor<R>,
    targets: &Tensor<R>,
    vocab_size: usize,
    most_logits: usize,
) -> Tensor<R> {
    let chunks = Chunks::new(hidden, wte, targets, vocab_size, most_logits);
    chunks.fill_losses();
    chunks.mean()
}

/// The cross-entropy of each row in nats, `[N]`, of which [`loss`] is the mean.
pub fn token_losses<R: CubeRuntime>(
    hidden: &Tensor<R>,
    wte: &Tensor<R>,
    targets: &Tensor<R>,
    vocab_size: usize,
    most_logits: usize,
) -> Tensor<R> {
    let chunks = Chunks::new(hidden, wte, targets, vocab_size, most_logits);
    chunks.fill_losses();
    chunks.losses
}

/// [`loss`] with its derivatives.
pub fn gradients<R: CubeRuntime>(
    hidden: &Tensor<R>,
    wte: &Tensor<R>,
    targets: &Tensor<R>,
    vocab_size: usize,
    most_logits: usize,
) -> Gradients<R> {
    let chunks = Chunks::new(hidden, wte, targets, vocab_size, most_logits);
    let (grad_hidden, grad_wte) = (
        empty(hidden, hidden.shape().as_slice()),
        empty(wte, wte.shape().as_slice()),
    );
    for (start, count) in chunks.chunks() {
        let grad_logits = product::operand(&chunks.losses(start, count, true), &chunks.wte);
        product::grad_hidden(&grad_logits, &chunks.wte, &grad_hidden, start);
        product::grad_wte(&grad_logits, &chunks.hidden, start, &grad_wte, start > 0);
    }
    Gradients {
        loss: chunks.mean(),
        hidden: grad_hidden,
        wte: grad_wte,
    }
}
