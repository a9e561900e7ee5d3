//! The one list of backend types.

use crate::error::{BackendError, Unavailable};
use gpt2_model::InferenceBackend;
use gpt2_model::capabilities::BackendKind;

/// What [`visit`] calls with the backend.
pub(crate) trait BackendVisitor {
    type Output;

    fn visit<B: InferenceBackend>(self, device: B::Device) -> Self::Output;
}

/// Calls `visitor` with the type of `backend` and its device `index`.
pub(crate) fn visit<V: BackendVisitor>(
    backend: BackendKind,
    index: usize,
    visitor: V,
) -> Result<V::Output, BackendError> {
    match backend {
        #[cfg(feature = "ndarray")]
        BackendKind::Ndarray => Ok(visitor.visit::<burn_ndarray::NdArray>(burn_ndarray::NdArrayDevice::Cpu)),
        #[cfg(feature = "flex")]
        BackendKind::Flex => Ok(visitor.visit::<burn_flex::Flex>(burn_flex::FlexDevice)),
        #[cfg(feature = "wgpu")]
        BackendKind::Wgpu => Ok(visitor.visit::<gpt2_model::ops::Wgpu>(crate::wgpu::device(index)?)),
        #[cfg(feature = "cuda")]
        BackendKind::Cuda => Ok(visitor.visit::<gpt2_model::ops::Cuda>(crate::cuda::device(index))),
        #[allow(unreachable_patterns, reason = "a build with every backend leaves none out")]
        backend => {
            let _ = (index, visitor);
            Err(BackendError::Unavailable {
                backend,
                reason: Unavailable::NotBuilt,
            })
        }
    }
}
