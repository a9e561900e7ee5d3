//! That one process at a time works in a directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// A lock file that this process holds, until it is dropped or the process ends, however it ends: the lock is the
/// operating system's. The file holds the process's number, and is removed with the lock.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
}

/// Why a lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("locked by another process{}", pid.map(|pid| format!(" ({pid})")).unwrap_or_default())]
    Held {
        /// Its number, if it can be read.
        pid: Option<u32>,
    },
    /// The lock file cannot be made or locked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Lock {
    /// Takes the lock, or fails at once.
    ///
    /// # Errors
    /// [`LockError::Held`], or if the file cannot be made.
    pub fn acquire(path: impl Into<PathBuf>) -> Result<Self, LockError> {
        let path = path.into();
        loop {
            let mut file = open(&path)?;
            match file.try_lock() {
                Ok(()) if is_named(&file, &path)? => return Ok(Self::held(path, file)?),
                // The holder removed the file between our opening and locking it.
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    // The number only improves the message, and some systems do not let a locked file be read.
                    let read = file.read_to_string(&mut holder);
                    let pid = read.ok().and_then(|_| holder.trim().parse().ok());
                    return Err(LockError::Held { pid });
                }
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
    }

    /// Takes the lock, waiting for whoever holds it.
    ///
    /// # Errors
    /// If the file cannot be made or locked.
    pub fn wait(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        loop {
            let file = open(&path)?;
            file.lock()?;
            if is_named(&file, &path)? {
                return Self::held(path, file);
            }
        }
    }

    fn held(path: PathBuf, mut file: File) -> io::Result<Self> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { path, file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // In this order: who removes the file must hold the lock. A file that stays does no harm.
        let _ = fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
}

/// Whether the open file is still the one at `path`: a lock on a removed file keeps no other process out.
#[cfg(unix)]
fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(theirs) => Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Elsewhere an open file keeps its name, or the name cannot be opened again while it is being removed.
#[cfg(not(unix))]
fn is_named(_file: &File, _path: &Path) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    #[test]
    fn a_lock_names_its_holder_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.lock");
        let first = Lock::acquire(&path).unwrap();
        let error = Lock::acquire(&path).unwrap_err();
        assert!(matches!(error, LockError::Held { pid: Some(pid) } if pid == std::process::id()));
        drop(first);
        assert!(!path.exists());
        // What a killed process left, perhaps with a longer number.
        fs::write(&path, "12345678901\n").unwrap();
        let _again = Lock::acquire(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
    }

    #[test]
    fn removing_the_file_lets_no_two_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let _lock = Lock::wait(&path).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let error = Lock::acquire("no/such/lock").unwrap_err();
        assert!(matches!(error, LockError::Io(_)), "{error}");
    }
}
