//! Generation on the chosen backend, for callers that are not generic.

use crate::chosen::Chosen;
use crate::dispatch::{InferenceJob, dispatch_inference};
use crate::error::BackendError;
use crate::host::HostFacts;
use crate::threads::thread_pool;
use gpt2_model::capabilities::BackendKind;
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::sampling::Sampling;
use gpt2_model::{Generator, Gpt2, ModelError, Precision};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

/// What is to be generated.
#[derive(Debug, Clone)]
pub struct Generation<'a> {
    /// Weights in any of the formats that [`gpt2_model::weights::Weights::open`] reads.
    pub weights: &'a Path,
    /// Type of the operands of products.
    pub precision: Precision,
    /// At least one token.
    pub prompt: &'a [i32],
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The same seed gives the same tokens.
    pub seed: u64,
    /// At most so many tokens.
    pub max_tokens: usize,
}

/// Why nothing more is generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
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
        /// The one that generation has in its place.
        plain: Precision,
        /// The backend.
        backend: BackendKind,
    },
}

impl Generation<'_> {
    /// Generates on the chosen device and all cores, until `each`, which is shown every token, breaks off. Returns the time
    /// that it took, without that of loading the weights.
    ///
    /// # Errors
    /// [`GenerateError`]. The tokens before it have been shown.
    pub fn run(
        &self,
        chosen: &Chosen,
        each: &mut (dyn FnMut(i32) -> ControlFlow<()> + Send),
    ) -> Result<Duration, GenerateError> {
        let pool = thread_pool(HostFacts::detect().cores)?;
        let job = Job {
            request: self,
            chosen,
            each,
        };
        pool.install(|| dispatch_inference(chosen, job))?
    }
}

struct Job<'a> {
    request: &'a Generation<'a>,
    chosen: &'a Chosen,
    each: &'a mut (dyn FnMut(i32) -> ControlFlow<()> + Send),
}

impl InferenceJob for Job<'_> {
    type Output = Result<Duration, GenerateError>;

    fn run<B: Gpt2Backend>(self, device: B::Device) -> Result<Duration, GenerateError> {
        let Generation {
            precision,
            prompt,
            sampling,
            ..
        } = *self.request;
        let plain = B::plain_precision(precision);
        if plain != precision {
            return Err(GenerateError::TrainingOnly {
                precision,
                plain,
                backend: self.chosen.backend,
            });
        }
        self.chosen.check_precision(precision)?;
        let model = Gpt2::<B>::load(self.request.weights, &device)?.with_precision(precision);
        let began = Instant::now();
        for token in Generator::new(&model, prompt, sampling, self.request.seed).take(self.request.max_tokens) {
            if (self.each)(token?).is_break() {
                break;
            }
        }
        Ok(began.elapsed())
    }
}
