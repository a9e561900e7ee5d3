//! The progress of an evaluation: a bar on standard error, if that is a terminal.

use crate::bar::bar;
use gpt2_eval::Progress;
use indicatif::ProgressBar;

const TEMPLATE: &str = "{prefix} {bar:24} {pos}/{len} ETA {eta}";

/// A bar for each task.
#[derive(Debug, Default)]
pub(super) struct Bar(Option<ProgressBar>);

impl Bar {
    fn clear(&mut self) {
        if let Some(bar) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Bar {
    fn begin(&mut self, task: &str, total: u64) {
        self.clear();
        self.0 = bar(TEMPLATE, total).map(|bar| bar.with_prefix(task.to_owned()));
    }

    fn advance(&mut self, done: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}
