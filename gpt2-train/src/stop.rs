//! Asking a run to save and stop, and why one stopped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// It took all of its steps or tokens.
    Finished,
    /// Its time was up.
    TimeLimit,
    /// It was asked to stop, by whom is quoted.
    Requested(String),
}

/// Asks a run to save and stop after the step that it is in. Clones ask the same run.
#[derive(Debug, Clone, Default)]
pub struct StopRequest(Arc<Mutex<Option<String>>>);

impl StopRequest {
    /// Asks, in the name of `who`; whoever asked first is quoted.
    pub fn stop(&self, who: &str) {
        self.who().get_or_insert_with(|| who.to_owned());
    }

    /// Who has asked, if anyone has.
    pub fn requested_by(&self) -> Option<String> {
        self.who().clone()
    }

    fn who(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
