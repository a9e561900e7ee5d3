//! Files that are there whole or not at all: written aside, synced, then renamed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::DataError;

/// The ending of files that are still being written.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// Where `path` is written before it is renamed. The name is fixed, so that a killed run leaves one file that the next
/// run overwrites, and never a growing heap of them.
pub(crate) fn temporary_path(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(TEMPORARY_SUFFIX);
    PathBuf::from(name)
}

/// Makes `temporary` durable and gives it its final name.
pub(crate) fn commit(file: &File, temporary: &Path, path: &Path) -> Result<(), DataError> {
    file.sync_all().map_err(DataError::io("sync", temporary))?;
    fs::rename(temporary, path).map_err(DataError::io("rename", temporary))?;
    sync_parent(path)
}

/// Writes a small file in one go.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let temporary = temporary_path(path);
    let mut file = File::create(&temporary).map_err(DataError::io("create", &temporary))?;
    file.write_all(bytes).map_err(DataError::io("write", &temporary))?;
    commit(&file, &temporary, path)
}

/// A rename survives a power cut only once the directory is synced too. Elsewhere than on Unix a directory cannot be
/// opened for that.
#[cfg(unix)]
fn sync_parent(path: &Path) -> Result<(), DataError> {
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let directory = File::open(parent).map_err(DataError::io("open", parent))?;
    directory.sync_all().map_err(DataError::io("sync", parent))
}

#[cfg(not(unix))]
fn sync_parent(_path: &Path) -> Result<(), DataError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_leaves_nothing_beside_it() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("note.json");
        write(&path, b"one")?;
        write(&path, b"two")?;
        assert_eq!(fs::read(&path)?, b"two");
        assert_eq!(fs::read_dir(dir.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = write(Path::new("no-such-directory/note.json"), b"").unwrap_err();
        assert!(error.to_string().contains("no-such-directory"), "{error}");
    }
}
