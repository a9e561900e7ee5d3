//! A directory of files, whole or absent.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::path::{Path, PathBuf};

use super::layer::{Disk, Layer};
use super::parent;

/// Staging directories are named `.{name}.partial`.
const STAGING_SUFFIX: &str = ".partial";

/// A directory that is being filled under another name, in the same parent. [`NewDirectory::commit`] gives it its name;
/// dropped before that, it is removed.
///
/// Files are put into [`NewDirectory::path`] in any way. All are flushed to the disk by the commit, and get the mode
/// that the umask gives, even if a library made them private. One process at a time may make the same directory.
#[derive(Debug)]
pub struct NewDirectory {
    target: PathBuf,
    staging: PathBuf,
    /// Those of a file made in the plain way.
    permissions: Permissions,
    committed: bool,
    layer: &'static dyn Layer,
}

impl NewDirectory {
    /// Begins the directory that will be named `target`, and removes what a killed process left of it. The parent is
    /// made if it is missing.
    ///
    /// # Errors
    /// If the staging directory cannot be made.
    pub fn create(target: impl Into<PathBuf>) -> io::Result<Self> {
        Self::create_in(&Disk, target.into())
    }

    fn create_in(layer: &'static dyn Layer, target: PathBuf) -> io::Result<Self> {
        let name = target
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a new directory needs a name"))?;
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(STAGING_SUFFIX);
        let staging = parent(&target).join(hidden);
        remove_if_there(&staging)?;
        fs::create_dir_all(&staging)?;
        let permissions = permissions_of_new_files(&staging)?;
        Ok(Self {
            target,
            staging,
            permissions,
            committed: false,
            layer,
        })
    }

    /// Where the files are to be written.
    pub fn path(&self) -> &Path {
        &self.staging
    }

    /// Flushes every file to the disk and gives the directory its name, which must be free or that of an empty
    /// directory.
    ///
    /// # Errors
    /// If the disk refuses or the name is taken; the staging directory is removed.
    pub fn commit(mut self) -> io::Result<()> {
        self.sync_tree(&self.staging)?;
        self.layer.rename(&self.staging, &self.target)?;
        self.committed = true;
        self.layer.sync_directory(parent(&self.target))
    }

    /// Flushes the files in `directory`, then their names.
    fn sync_tree(&self, directory: &Path) -> io::Result<()> {
        let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                self.sync_tree(&path)?;
            } else {
                fs::set_permissions(&path, self.permissions.clone())?;
                self.layer.sync_file(&path)?;
            }
        }
        self.layer.sync_directory(directory)
    }
}

impl Drop for NewDirectory {
    fn drop(&mut self) {
        if !self.committed {
            // The disk may be full: give back what this attempt took. The error that is reported is the first one.
            let _ = fs::remove_dir_all(&self.staging);
        }
    }
}

/// Removes the staging directories that killed processes left in `parent`. The caller guarantees that no other process
/// is making a directory there.
///
/// # Errors
/// If `parent` cannot be listed or a leftover cannot be removed.
pub fn remove_leftovers(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        if is_staging(&entry.file_name()) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

fn is_staging(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b".") && name.ends_with(STAGING_SUFFIX.as_bytes())
}

fn remove_if_there(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The umask can be read only by changing it, for the whole process; a file shows what it comes to.
fn permissions_of_new_files(directory: &Path) -> io::Result<Permissions> {
    let probe = directory.join("mode");
    let permissions = File::create(&probe)?.metadata()?.permissions();
    fs::remove_file(probe)?;
    Ok(permissions)
}

#[cfg(test)]
mod tests {
    use super::super::layer::recorder::Recorder;
    use super::*;

    const ORDER: [&str; 6] = [
        "sync .step-1.partial/config.json",
        "sync .step-1.partial/tokenizer/vocab.json",
        "sync directory .step-1.partial/tokenizer",
        "sync directory .step-1.partial",
        "rename .step-1.partial step-1",
        "sync directory .",
    ];

    fn make(layer: &'static dyn Layer, target: &Path) -> io::Result<()> {
        let new = NewDirectory::create_in(layer, target.to_path_buf())?;
        fs::write(new.path().join("config.json"), "{}")?;
        fs::create_dir(new.path().join("tokenizer"))?;
        fs::write(new.path().join("tokenizer/vocab.json"), "{}")?;
        assert!(!target.exists());
        new.commit()
    }

    #[test]
    fn every_file_is_synced_before_the_rename_and_the_parent_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Recorder::new(dir.path(), usize::MAX);
        make(disk, &dir.path().join("step-1")).unwrap();
        assert_eq!(disk.operations(), ORDER);
    }

    #[test]
    fn stopped_anywhere_the_directory_is_absent_or_whole() {
        for done in 0..ORDER.len() {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("step-1");
            let disk = Recorder::new(dir.path(), done);
            let error = make(disk, &target).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            let renamed = disk
                .operations()
                .iter()
                .any(|operation| operation.starts_with("rename"));
            assert_eq!(target.join("tokenizer/vocab.json").exists(), renamed);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), usize::from(renamed));
        }
    }

    #[test]
    fn what_killed_processes_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        for left in [".step-1.partial", ".step-9.partial", ".other"] {
            fs::create_dir(dir.path().join(left)).unwrap();
            fs::write(dir.path().join(left).join("half"), "x").unwrap();
        }
        make(&Disk, &dir.path().join("step-1")).unwrap();
        assert!(!dir.path().join("step-1/half").exists());
        assert!(dir.path().join(".step-9.partial").exists());
        remove_leftovers(dir.path()).unwrap();
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, [".other", "step-1"]);
    }

    #[test]
    fn a_name_that_is_taken_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a/step-1");
        make(&Disk, &target).unwrap();
        fs::write(target.join("config.json"), "first").unwrap();
        let again = NewDirectory::create(&target).unwrap();
        fs::write(again.path().join("config.json"), "second").unwrap();
        again.commit().unwrap_err();
        assert_eq!(fs::read(target.join("config.json")).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn modes_follow_the_umask() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        let new = NewDirectory::create(dir.path().join("step-1")).unwrap();
        fs::write(new.path().join("plain"), "").unwrap();
        let private = tempfile::NamedTempFile::new_in(new.path()).unwrap();
        private.persist(new.path().join("private")).unwrap();
        let plain = mode(&new.path().join("plain"));
        new.commit().unwrap();
        assert_eq!(mode(&dir.path().join("step-1/private")), plain);
    }
}
