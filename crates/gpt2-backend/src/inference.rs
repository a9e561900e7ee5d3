//! A model on the chosen backend, for callers that are not generic.

use crate::chosen::Chosen;
use crate::error::BackendError;
use crate::host::HostFacts;
use crate::threads::thread_pool;
use crate::visit::{BackendVisitor, visit};
use gpt2_model::capabilities::BackendKind;
use gpt2_model::{Gpt2, Inference, InferenceBackend, ModelError, Precision};
use std::path::Path;

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// The device cannot be had, or not in this precision.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The weights cannot be read, or their logits are not finite.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The kernels of a precision are made for the products of training.
    #[error("`precision` is {precision}, expected {plain}: the kernels of {precision} on {backend} are for training")]
    TrainingOnly {
        /// The precision asked for.
        precision: Precision,
        /// The one that inference has in its place.
        plain: Precision,
        /// The backend.
        backend: BackendKind,
    },
}

impl Chosen {
    /// Lets `work` have the model of these weights, in any of the formats that [`gpt2_model::weights::Weights::open`] reads, with
    /// products of `precision`. A CPU computes with all cores.
    ///
    /// # Errors
    /// [`InferenceError`].
    pub fn with_model<R: Send>(
        &self,
        weights: &Path,
        precision: Precision,
        work: impl FnOnce(&dyn Inference) -> R + Send,
    ) -> Result<R, InferenceError> {
        let pool = thread_pool(HostFacts::detect().cores)?;
        pool.install(|| {
            let model = self.load(weights, precision)?;
            Ok(work(model.as_ref()))
        })
    }

    /// Not generic, so that it is compiled once.
    fn load(&self, weights: &Path, precision: Precision) -> Result<Box<dyn Inference>, InferenceError> {
        let load = Load {
            chosen: self,
            weights,
            precision,
        };
        visit(self.backend, self.device.index, load)?
    }
}

struct Load<'a> {
    chosen: &'a Chosen,
    weights: &'a Path,
    precision: Precision,
}

impl BackendVisitor for Load<'_> {
    type Output = Result<Box<dyn Inference>, InferenceError>;

    fn visit<B: InferenceBackend>(self, device: B::Device) -> Self::Output {
        let precision = self.precision;
        let plain = B::plain_precision(precision);
        if plain != precision {
            return Err(InferenceError::TrainingOnly {
                precision,
                plain,
                backend: self.chosen.backend,
            });
        }
        self.chosen.check_precision(precision)?;
        let model = Gpt2::<B>::load(self.weights, &device)?;
        Ok(B::inference(model.with_precision(precision).with_rounded_operands()))
    }
}
