//! The classifier: logits, softmax, cross-entropy and their derivatives, a chunk of rows at a time.

use crate::launch::{Kernel, Launch, Sources, empty, is_wide};
use crate::{Tensor, product};
use burn::tensor::{DType, TensorMetadata};

const SOURCES: Sources = Sources::new(&[
    include_str!("cuda/common.cuh"),
    include_str!("cuda/elementwise.cuh"),
    include_str!("cuda/warp.cuh"),
    include_str!("cuda/hopper.cuh"),
    include_str!("cuda/softmax_loss.cu"),
]);

const THREADS: usize = 512;

/// The loss and its derivatives.
#[derive(Debug, Clone)]
pub struct Gradients {
    /// Mean cross-entropy, `[1]` in `f32`.
    pub loss: Tensor,
    /// By the hidden states, `[N, C]`, in their type.
    pub hidden: Tensor,
    /// By the embedding, `[Vp, C]` in `f32`.
    pub wte: Tensor,
}

/// Mean cross-entropy in nats, `[1]`: `hidden` is `[N, C]` and `wte` `[Vp, C]`, both in `bf16` or `f32`, `targets` `[N]` in `i32`.
/// About `logits_bytes` of logits are in memory at once, at the most.
pub fn loss(hidden: &Tensor, wte: &Tensor, targets: &Tensor, vocab_size: usize, logits_bytes: usize) -> Tensor {
    let classifier = Classifier::new(hidden, wte, targets, vocab_size, logits_bytes);
    classifier.fill_losses(wte);
    classifier.mean()
}

/// The cross-entropy of each row in nats, `[N]` in `f32`, of which [`loss`] is the mean.
pub fn token_losses(hidden: &Tensor, wte: &Tensor, targets: &Tensor, vocab_size: usize, logits_bytes: usize) -> Tensor {
    let classifier = Classifier::new(hidden, wte, targets, vocab_size, logits_bytes);
    classifier.fill_losses(wte);
    classifier.losses
}

/// [`loss`] and its derivatives.
pub fn gradients(hidden: &Tensor, wte: &Tensor, targets: &Tensor, vocab_size: usize, logits_bytes: usize) -> Gradients {
    let classifier = Classifier::new(hidden, wte, targets, vocab_size, logits_bytes);
    let grad_hidden = empty(hidden, hidden.shape().as_slice(), hidden.dtype);
    let mut grad_wte: Option<Tensor> = None;
    for chunk in classifier.chunks() {
        let logits = product::transposed(&chunk.hidden, wte);
        classifier.softmax(&chunk, &logits, false);
        product::plain_into(&logits, wte, &rows(&grad_hidden, chunk.start, chunk.len));
        match &grad_wte {
            Some(sum) => product::add_by_rows(&logits, &chunk.hidden, sum),
            None => grad_wte = Some(product::by_rows(&logits, &chunk.hidden)),
        }
    }
    Gradients {
        loss: classifier.mean(),
        hidden: grad_hidden,
        wte: grad_wte.expect("at least one row"),
    }
}

struct Classifier<'a> {
    hidden: &'a Tensor,
    targets: &'a Tensor,
    vocab_size: usize,
    logits_bytes: usize,
    padded: usize,
    /// Of each row, `[N]`.
    losses: Tensor,
    rows: usize,
}

struct Chunk {
    hidden: Tensor,
    start: usize,
    len: usize,
}

impl<'a> Classifier<'a> {
    fn new(hidden: &'a Tensor, wte: &'a Tensor, targets: &'a Tensor, vocab_size: usize, logits_bytes: usize) -> Self {
        let rows = hidden.shape()[0];
        assert!(rows > 0, "a mean of nothing");
        Self {
            hidden,
            targets,
            vocab_size,
            logits_bytes,
            padded: wte.shape()[0],
            losses: empty(hidden, &[rows], DType::F32),
            rows,
        }
    }

    /// Chunks of about the same size.
    fn chunks(&self) -> impl Iterator<Item = Chunk> {
        let bytes = self.rows * self.padded * self.hidden.dtype.size();
        // From 4,096 rows on at least two: half the memory, for one more pass over the embedding's derivative.
        let chunks = bytes.div_ceil(self.logits_bytes).max((self.rows / 2048).clamp(1, 2));
        let size = self.rows.div_ceil(chunks).next_multiple_of(128);
        (0..self.rows).step_by(size).map(move |start| {
            let len = size.min(self.rows - start);
            Chunk {
                hidden: rows(self.hidden, start, len),
                start,
                len,
            }
        })
    }

    /// Writes the losses of all rows, a chunk at a time.
    fn fill_losses(&self, wte: &Tensor) {
        for chunk in self.chunks() {
            let logits = product::transposed(&chunk.hidden, wte);
            self.softmax(&chunk, &logits, true);
        }
    }

    /// Writes the losses of a chunk's rows and, unless only they are wanted, the derivative over the logits.
    fn softmax(&self, chunk: &Chunk, logits: &Tensor, loss_only: bool) {
        let kernel = softmax_kernel(is_wide(logits.dtype), self.padded, loss_only);
        Launch::on(logits)
            .buffers([
                logits,
                &rows(self.targets, chunk.start, chunk.len),
                &rows(&self.losses, chunk.start, chunk.len),
            ])
            .words([chunk.len, self.padded, self.vocab_size])
            .real(1.0 / self.rows as f64)
            .run(kernel, [chunk.len, 1, 1]);
    }

    fn mean(&self) -> Tensor {
        let mean = empty(&self.losses, &[1], DType::F32);
        Launch::on(&mean)
            .buffers([&self.losses, &mean])
            .word(self.rows)
            .real(1.0 / self.rows as f64)
            .run(mean_kernel(), [1, 1, 1]);
        mean
    }
}

/// The kernel for rows of `padded` logits, in `f32` or `bf16`.
fn softmax_kernel(is_f32: bool, padded: usize, loss_only: bool) -> Kernel {
    let mut kernel = if is_f32 {
        Kernel::new(SOURCES, "softmax_loss_f32", THREADS)
    } else {
        Kernel::new(SOURCES, "softmax_loss", THREADS).shared_memory(2 * padded)
    };
    if loss_only {
        kernel = kernel.define("LOSS_ONLY", 1);
    }
    kernel
}

fn mean_kernel() -> Kernel {
    Kernel::new(SOURCES, "mean_loss", 1024)
}

/// Every kernel of this file, to be compiled by a test.
#[cfg(test)]
pub(crate) fn kernels() -> Vec<Kernel> {
    const PADDED_VOCABULARY: usize = 50_304;
    let softmax = |(is_f32, loss_only)| softmax_kernel(is_f32, PADDED_VOCABULARY, loss_only);
    let mut kernels: Vec<_> = crate::nvrtc::BOTH_FLAGS.map(softmax).into();
    kernels.push(mean_kernel());
    kernels
}

/// Rows of a contiguous tensor, in its memory.
fn rows(tensor: &Tensor, start: usize, len: usize) -> Tensor {
    let mut part = tensor.clone();
    let mut shape = tensor.shape();
    let row: usize = shape.as_slice()[1..].iter().product::<usize>() * tensor.dtype.size();
    let all = shape[0];
    shape[0] = len;
    part.handle = part
        .handle
        .offset_start((start * row) as u64)
        .offset_end(((all - start - len) * row) as u64);
    part.meta.shape = shape;
    part
}
