//! How generic code gets the backend that is chosen.

use crate::chosen::Chosen;
use crate::error::{BackendError, Unavailable};
use burn::backend::Autodiff;
use burn::tensor::backend::AutodiffBackend;
use gpt2_model::capabilities::BackendKind;
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::ops::training::TrainingBackend;

/// Work that needs derivatives, for whichever backend is chosen.
pub trait TrainingJob {
    /// What it gives back.
    type Output;

    /// Does the work on `device`.
    fn run<B>(self, device: B::Device) -> Self::Output
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend;
}

/// Work that needs no derivatives, for whichever backend is chosen.
pub trait InferenceJob {
    /// What it gives back.
    type Output;

    /// Does the work on `device`.
    fn run<B: Gpt2Backend>(self, device: B::Device) -> Self::Output;
}

/// Runs `job` on the chosen backend, with derivatives.
///
/// # Errors
/// [`BackendError`] if the device is not there any more. The job's own errors are in its output.
pub fn dispatch<J: TrainingJob>(chosen: &Chosen, job: J) -> Result<J::Output, BackendError> {
    visit(chosen, Training(job))
}

/// Runs `job` on the chosen backend, without derivatives.
///
/// # Errors
/// [`BackendError`] if the device is not there any more. The job's own errors are in its output.
pub fn dispatch_inference<J: InferenceJob>(chosen: &Chosen, job: J) -> Result<J::Output, BackendError> {
    visit(chosen, Inference(job))
}

struct Training<J>(J);

impl<J: TrainingJob> BackendVisitor for Training<J> {
    type Output = J::Output;

    fn visit<B: TrainingBackend>(self, device: B::Device) -> J::Output {
        self.0.run::<Autodiff<B>>(device)
    }
}

struct Inference<J>(J);

impl<J: InferenceJob> BackendVisitor for Inference<J> {
    type Output = J::Output;

    fn visit<B: TrainingBackend>(self, device: B::Device) -> J::Output {
        self.0.run::<B>(device)
    }
}

/// What [`visit`] calls with the backend.
pub(crate) trait BackendVisitor {
    type Output;

    fn visit<B: TrainingBackend>(self, device: B::Device) -> Self::Output;
}

/// The one list of backend types.
pub(crate) fn visit<V: BackendVisitor>(chosen: &Chosen, visitor: V) -> Result<V::Output, BackendError> {
    match chosen.backend {
        #[cfg(feature = "ndarray")]
        BackendKind::Ndarray => Ok(visitor.visit::<burn_ndarray::NdArray>(burn_ndarray::NdArrayDevice::Cpu)),
        #[cfg(feature = "flex")]
        BackendKind::Flex => Ok(visitor.visit::<burn_flex::Flex>(burn_flex::FlexDevice)),
        #[cfg(feature = "wgpu")]
        BackendKind::Wgpu => Ok(visitor.visit::<gpt2_model::ops::Wgpu>(crate::wgpu::device(chosen.device.index)?)),
        #[cfg(feature = "cuda")]
        BackendKind::Cuda => Ok(visitor.visit::<gpt2_model::ops::Cuda>(crate::cuda::device(chosen.device.index))),
        #[allow(unreachable_patterns, reason = "a build with every backend leaves none out")]
        backend => {
            let _ = visitor;
            Err(BackendError::Unavailable {
                backend,
                reason: Unavailable::NotBuilt,
            })
        }
    }
}
