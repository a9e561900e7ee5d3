//! What can go wrong with an event file.

use std::io;
use std::path::PathBuf;

/// An error of this crate. Each message is one line.
#[derive(Debug, thiserror::Error)]
pub enum TensorBoardError {
    /// A file or directory could not be written.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried: `create` or `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}
