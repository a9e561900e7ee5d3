//! When a device passes points of the work that is queued on it.

use burn::tensor::backend::Backend;
use std::time::Instant;
use thiserror::Error;

/// A point of the work, passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// When it was queued.
    pub queued: Instant,
    /// When the device had done everything that was queued before it.
    pub at: Instant,
}

/// Why a device's work cannot be timed.
#[derive(Debug, Error)]
pub enum TimerError {
    /// The driver lacks what is asked of it.
    #[error(
        "the CUDA driver cannot time what is queued on a device: expected CUDA 12.5 or later (driver 555); update it"
    )]
    DriverTooOld,
    /// The device or its driver failed.
    #[error("the device's work could not be timed: {0}")]
    Failed(String),
}

/// Marks points of the work that is queued on a device.
pub trait DeviceTimer: Send {
    /// Whether the device computes behind the host. If not, each mark waits for it, and it is never seen idle.
    fn is_asynchronous(&self) -> bool;

    /// Marks the end of what was queued so far.
    fn mark(&mut self);

    /// Every mark since the last call, in their order. Waits for the last.
    ///
    /// # Errors
    /// [`TimerError`].
    fn take(&mut self) -> Result<Vec<Passed>, TimerError>;
}

/// Waits for the device at each mark: the only way on a backend without events, and no wait at all on a CPU.
pub(super) struct WaitingTimer<B: Backend> {
    device: B::Device,
    passed: Vec<Passed>,
    error: Option<String>,
}

impl<B: Backend> WaitingTimer<B> {
    pub(super) fn new(device: B::Device) -> Self {
        Self {
            device,
            passed: Vec::new(),
            error: None,
        }
    }
}

impl<B: Backend> DeviceTimer for WaitingTimer<B> {
    fn is_asynchronous(&self) -> bool {
        false
    }

    fn mark(&mut self) {
        let queued = Instant::now();
        if let Err(error) = B::sync(&self.device) {
            self.error.get_or_insert(error.to_string());
        }
        let at = Instant::now();
        self.passed.push(Passed { queued, at });
    }

    fn take(&mut self) -> Result<Vec<Passed>, TimerError> {
        match self.error.take() {
            Some(error) => Err(TimerError::Failed(error)),
            None => Ok(std::mem::take(&mut self.passed)),
        }
    }
}
