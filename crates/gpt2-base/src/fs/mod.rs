//! Files and directories that are whole or absent, whatever ends the process or the machine; hashes of files; locks.
//!
//! A new file is written under another name in the same directory, flushed to the disk (fsync), renamed, and the
//! directory flushed too, without which a power cut can undo the rename. A new directory is made in the same way, once
//! each of its files is flushed. The sequence goes through a small layer that tests replace.

mod directory;
mod file;
mod hash;
mod layer;
mod lock;

use std::io;
use std::path::Path;

pub use directory::{NewDirectory, remove_leftovers};
pub use file::{NewFile, TEMPORARY_SUFFIX, write, write_with};
pub use hash::{sha256, sha256_file};
pub use lock::{Lock, LockError};

use layer::{Disk, Layer};

/// Flushes the names in `directory` to the disk: files made, renamed or removed. Only Unix can open a directory for
/// that; elsewhere nothing is done.
///
/// # Errors
/// If the directory cannot be opened or flushed.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    Disk.sync_directory(directory)
}

/// Flushes a file's content to the disk.
///
/// # Errors
/// If the file cannot be opened for writing or flushed.
pub fn sync_file(path: &Path) -> io::Result<()> {
    Disk.sync_file(path)
}

/// The directory that holds `path`.
fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}
