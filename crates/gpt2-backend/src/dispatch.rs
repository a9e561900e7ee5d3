//! How generic code gets the backend that is chosen.

use crate::chosen::Chosen;
use crate::error::BackendError;
use crate::visit::{BackendVisitor, visit};
use burn::backend::Autodiff;
use burn::tensor::backend::AutodiffBackend;
use gpt2_model::InferenceBackend;
use gpt2_model::ops::Gpt2Backend;

/// Work that needs derivatives, for whichever backend is chosen.
pub trait TrainingJob {
    /// What it gives back.
    type Output;

    /// Does the work on `device`.
    fn run<B>(self, device: B::Device) -> Self::Output
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: InferenceBackend;
}

/// Runs `job` on the chosen backend, with derivatives.
///
/// # Errors
/// [`BackendError`] if the device is not there any more. The job's own errors are in its output.
pub fn dispatch<J: TrainingJob>(chosen: &Chosen, job: J) -> Result<J::Output, BackendError> {
    visit(chosen.backend, chosen.device.index, Training(job))
}

struct Training<J>(J);

impl<J: TrainingJob> BackendVisitor for Training<J> {
    type Output = J::Output;

    fn visit<B: InferenceBackend>(self, device: B::Device) -> J::Output {
        self.0.run::<Autodiff<B>>(device)
    }
}
