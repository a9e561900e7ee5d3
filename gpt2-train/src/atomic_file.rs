//! Files that are there whole or not at all.

use crate::error::TrainError;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Replaces the content of `path`: written beside it, synced, renamed, and the rename synced too.
///
/// After a crash at any moment `path` holds the old content or the new one. The name of the file beside it is fixed, so
/// that killed runs leave one at most; two processes must not write the same `path` at once.
///
/// # Errors
/// [`TrainError::Io`] or [`TrainError::DiskFull`], with the file's name.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let mut aside = OsString::from(path);
    aside.push(".tmp");
    let aside = Path::new(&aside);
    File::create(aside)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .map_err(|source| TrainError::io("write", aside, source))?;
    fs::rename(aside, path).map_err(|source| TrainError::io("replace", path, source))?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => sync_directory(Path::new(".")),
    }
}

/// Makes renames and new names in `directory` durable. Only Unix can open a directory for that; elsewhere nothing is done.
///
/// # Errors
/// [`TrainError::Io`] if the directory cannot be synced.
pub fn sync_directory(directory: &Path) -> Result<(), TrainError> {
    if cfg!(unix) {
        File::open(directory)
            .and_then(|opened| opened.sync_all())
            .map_err(|source| TrainError::io("sync", directory, source))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_is_replaced_and_nothing_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.toml");
        write_atomic(&path, b"first, and longer").unwrap();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = write_atomic(Path::new("no/such/file"), b"x").unwrap_err();
        assert!(
            error.to_string().starts_with("cannot write no/such/file.tmp: "),
            "{error}"
        );
    }
}
