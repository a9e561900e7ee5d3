//! The processes that train one model together, each on its share of the global batch.

use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

/// What the step loop asks of the ranks of a run.
///
/// Sums are exchanged, not means: a step divides once, by the micro-steps of all ranks.
pub trait Ranks<B: AutodiffBackend> {
    /// The number of this rank, from 0. Rank 0 alone writes to the run directory.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// Sums the loss, `[1]`, and the gradients of a step over all ranks.
    fn sum(
        &mut self,
        loss: Tensor<B::InnerBackend, 1>,
        gradients: GradientsParams,
    ) -> (Tensor<B::InnerBackend, 1>, GradientsParams);
}

/// The only rank there is. Nothing is exchanged, and nothing costs anything.
#[derive(Debug, Default, Clone, Copy)]
pub struct Alone;

impl<B: AutodiffBackend> Ranks<B> for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(
        &mut self,
        loss: Tensor<B::InnerBackend, 1>,
        gradients: GradientsParams,
    ) -> (Tensor<B::InnerBackend, 1>, GradientsParams) {
        (loss, gradients)
    }
}
