//! Asking a run to save and stop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
