//! How far an evaluation has come, for whoever shows it.

/// Is told how far an evaluation has come.
pub trait Progress {
    /// A task with `total` examples begins (of the loss, windows).
    fn begin(&mut self, task: &str, total: u64);

    /// So many examples of the task are done.
    fn advance(&mut self, done: u64);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _task: &str, _total: u64) {}

    fn advance(&mut self, _done: u64) {}
}
