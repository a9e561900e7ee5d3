//! Why a backend, a device or a precision cannot be had.

use crate::choice::BackendChoice;
use gpt2_model::Precision;
use gpt2_model::capabilities::BackendKind;
use std::fmt::Write;

/// An error of this crate. Each message is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The backend asked for is not in this build or finds no device.
    #[error("backend {backend} is not available: {reason}")]
    Unavailable {
        /// The backend asked for.
        backend: BackendKind,
        /// What was looked for.
        reason: Unavailable,
    },
    /// None of the backends that `auto` would take is available.
    #[error("backend {} is not available: {}", BackendChoice::Auto, reasons(passed_over))]
    NoneAvailable {
        /// Each backend, and why it was passed over.
        passed_over: Vec<(BackendKind, Unavailable)>,
    },
    /// A backend has fewer devices than asked for.
    #[error("backend {backend} has no device {index}: it has {found}, counted from 0")]
    NoSuchDevice {
        /// The backend.
        backend: BackendKind,
        /// The number asked for.
        index: usize,
        /// How many there are.
        found: usize,
    },
    /// The device does not compute in the precision asked for.
    #[error(
        "`precision` is {precision}, expected f32 on {backend} ({device}); this device {lacks}: \
         leave it out or choose another `backend`"
    )]
    UnsupportedPrecision {
        /// The precision asked for.
        precision: Precision,
        /// The backend.
        backend: BackendKind,
        /// The device's name.
        device: String,
        /// What it does not do, or does not have.
        lacks: String,
    },
    /// The CPU's threads cannot be started.
    #[error("cannot start {threads} threads: {reason}; ask for fewer by `threads`")]
    Threads {
        /// How many were to be started.
        threads: usize,
        /// The system's reason.
        reason: String,
    },
}

/// Why a backend has no device to compute on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// Its feature is off.
    #[error("not in this build")]
    NotBuilt,
    /// Its driver or its device is missing.
    #[error("{0}")]
    NotFound(String),
    /// Its only devices are software adapters, which `auto` passes over.
    #[error("only a software device")]
    OnlySoftware,
}

/// "cuda: not in this build; wgpu: no adapter".
pub(crate) fn reasons(passed_over: &[(BackendKind, Unavailable)]) -> String {
    let mut text = String::new();
    for (backend, reason) in passed_over {
        let separator = if text.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{separator}{backend}: {reason}");
    }
    text
}
