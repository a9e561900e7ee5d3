//! The operations whose order decides what survives a crash.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// The operations on files that must come in order. [`Disk`] does them; a test's layer also records them.
pub(super) trait Layer: Debug + Send + Sync {
    /// Appends to an open file.
    fn write(&self, file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<usize>;
    /// Flushes a file's content to the disk.
    fn sync_file(&self, path: &Path) -> io::Result<()>;
    /// Gives a file or directory another name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Flushes a directory's names to the disk.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// The file system.
#[derive(Debug)]
pub(super) struct Disk;

impl Layer for Disk {
    fn write(&self, file: &mut File, _path: &Path, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        // Windows flushes only through a handle that may write.
        OpenOptions::new().write(true).open(path)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        if cfg!(unix) {
            File::open(path)?.sync_all()
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
pub(super) mod recorder {
    use super::*;
    use std::path::PathBuf;
    use std::sync::{Mutex, PoisonError};

    /// A disk that records its operations, and stops working before one of them.
    #[derive(Debug)]
    pub(in crate::fs) struct Recorder {
        root: PathBuf,
        fails_at: usize,
        operations: Mutex<Vec<String>>,
    }

    impl Recorder {
        /// Records operations on paths under `root`; operation `fails_at` and all after it fail.
        pub(in crate::fs) fn new(root: &Path, fails_at: usize) -> &'static Self {
            Box::leak(Box::new(Self {
                root: root.to_path_buf(),
                fails_at,
                operations: Mutex::default(),
            }))
        }

        /// The operations that were done, in order.
        pub(in crate::fs) fn operations(&self) -> Vec<String> {
            self.operations.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }

        fn record(&self, operation: &str, paths: &[&Path]) -> io::Result<()> {
            let mut operations = self.operations.lock().unwrap_or_else(PoisonError::into_inner);
            if operations.len() >= self.fails_at {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            let names = paths.iter().map(|path| match path.strip_prefix(&self.root) {
                Ok(name) if name.as_os_str().is_empty() => ".".to_owned(),
                Ok(name) => name.display().to_string(),
                Err(_) => path.display().to_string(),
            });
            let words: Vec<String> = std::iter::once(operation.to_owned()).chain(names).collect();
            operations.push(words.join(" "));
            Ok(())
        }
    }

    impl Layer for Recorder {
        fn write(&self, file: &mut File, path: &Path, bytes: &[u8]) -> io::Result<usize> {
            self.record("write", &[path])?;
            Disk.write(file, path, bytes)
        }

        fn sync_file(&self, path: &Path) -> io::Result<()> {
            self.record("sync", &[path])?;
            Disk.sync_file(path)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            self.record("rename", &[from, to])?;
            Disk.rename(from, to)
        }

        fn sync_directory(&self, path: &Path) -> io::Result<()> {
            self.record("sync directory", &[path])?;
            Disk.sync_directory(path)
        }
    }
}
