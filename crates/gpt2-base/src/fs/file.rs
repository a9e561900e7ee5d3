//! One file, whole or absent.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::layer::{Disk, Layer};
use super::parent;

/// The ending of a file that is still being written.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// A file that is being written next to its final name. [`NewFile::commit`] gives it the name; dropped before that, it
/// is removed, and what had the name stays.
///
/// The temporary name is fixed (the final one and [`TEMPORARY_SUFFIX`]), so that killed processes leave one file at
/// most, which the next overwrites. Two processes must not write the same file at once. The mode of the new file is the
/// umask's.
#[derive(Debug)]
pub struct NewFile {
    target: PathBuf,
    temporary: PathBuf,
    file: File,
    /// Those of a file made in the plain way.
    permissions: Permissions,
    committed: bool,
    layer: &'static dyn Layer,
}

impl NewFile {
    /// Begins the file that will be named `target`, or what a symbolic link of that name points to.
    ///
    /// # Errors
    /// If the temporary file cannot be made, or `target` is a device, a pipe or a socket, which would be gone.
    pub fn create(target: impl Into<PathBuf>) -> io::Result<Self> {
        Self::create_in(&Disk, target.into())
    }

    pub(super) fn create_in(layer: &'static dyn Layer, target: PathBuf) -> io::Result<Self> {
        if is_device(&target) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is a device, a pipe or a socket: expected a file, or a name for one",
            ));
        }
        let target = behind_links(target);
        let mut name = OsString::from(&target);
        name.push(TEMPORARY_SUFFIX);
        let temporary = PathBuf::from(name);
        let file = File::create(&temporary)?;
        let permissions = file.metadata()?.permissions();
        Ok(Self {
            target,
            temporary,
            file,
            permissions,
            committed: false,
            layer,
        })
    }

    /// The name that the file will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The name that it has until then, for code that writes to a path. If such code puts another file there, that one
    /// is committed.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Flushes the file to the disk and gives it its name.
    ///
    /// # Errors
    /// If the disk refuses. Until the rename, what had the name before stays.
    pub fn commit(mut self) -> io::Result<()> {
        // Code that was given the path may have put a private file there.
        fs::set_permissions(&self.temporary, self.permissions.clone())?;
        self.layer.sync_file(&self.temporary)?;
        self.layer.rename(&self.temporary, &self.target)?;
        self.committed = true;
        self.layer.sync_directory(parent(&self.target))
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.layer.write(&mut self.file, &self.temporary, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for NewFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.committed {
            // Nothing is lost if this fails: the next process overwrites the file.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Replaces the content of `path`: after a crash at any moment it holds the old content or the new. What a symbolic link
/// points to is replaced, not the link; into a device or a pipe the bytes are written as they are.
///
/// # Errors
/// If the file cannot be written; the old content stays.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if is_device(path) {
        return File::options().write(true).open(path)?.write_all(bytes);
    }
    write_in(&Disk, path, bytes)
}

/// What a name stands for after all symbolic links, whether or not it is there.
fn behind_links(mut path: PathBuf) -> PathBuf {
    // As many as Linux follows.
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(to) => path = parent(&path).join(to),
            Err(_) => break,
        }
    }
    path
}

/// Whether there is something of this name that is neither a file nor a directory.
fn is_device(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

fn write_in(layer: &'static dyn Layer, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = NewFile::create_in(layer, path.to_path_buf())?;
    file.write_all(bytes)?;
    file.commit()
}

/// As [`write()`], with code that writes to a path: it is given the temporary one.
///
/// # Errors
/// Those of `fill`, and if the file cannot be written; the old content stays.
pub fn write_with<E: From<io::Error>>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    let file = NewFile::create(path)?;
    fill(file.temporary())?;
    Ok(file.commit()?)
}

#[cfg(test)]
mod tests {
    use super::super::layer::recorder::Recorder;
    use super::*;

    const ORDER: [&str; 4] = [
        "write note.json.tmp",
        "sync note.json.tmp",
        "rename note.json.tmp note.json",
        "sync directory .",
    ];

    #[test]
    #[cfg(unix)]
    fn links_and_pipes_stay_what_they_are() {
        use std::process::Command;

        let dir = tempfile::tempdir().unwrap();
        let [real, link, pipe] = ["real", "link", "pipe"].map(|name| dir.path().join(name));
        std::os::unix::fs::symlink("real", &link).unwrap();
        for content in ["old", "new"] {
            write(&link, content.as_bytes()).unwrap();
            assert!(link.is_symlink());
            assert_eq!(fs::read_to_string(&real).unwrap(), content);
        }
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(NewFile::create(&pipe).is_err());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read_to_string(pipe).unwrap()
        });
        write(&pipe, b"through").unwrap();
        assert_eq!(reader.join().unwrap(), "through");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_file_is_written_synced_renamed_and_its_directory_synced() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Recorder::new(dir.path(), usize::MAX);
        write_in(disk, &dir.path().join("note.json"), b"new").unwrap();
        assert_eq!(disk.operations(), ORDER);
    }

    #[test]
    fn stopped_anywhere_the_content_is_the_old_or_the_new() {
        for done in 0..ORDER.len() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("note.json");
            fs::write(&path, "old").unwrap();
            let disk = Recorder::new(dir.path(), done);
            let error = write_in(disk, &path, b"new").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            let renamed = disk
                .operations()
                .iter()
                .any(|operation| operation.starts_with("rename"));
            assert_eq!(fs::read(&path).unwrap(), if renamed { b"new" } else { b"old" });
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "after {done} operations");
        }
    }

    #[test]
    fn the_content_is_replaced_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.toml");
        // What a killed process left is overwritten.
        fs::write(dir.path().join("plan.toml.tmp"), "half of something longer").unwrap();
        write(&path, b"first, and longer").unwrap();
        write(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        write_with(&path, |temporary| fs::write(temporary, "third")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"third");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_not_committed_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = NewFile::create(dir.path().join("a")).unwrap();
        file.write_all(b"x").unwrap();
        drop(file);
        let failed = write_with(&dir.path().join("b"), |_| Err(io::Error::other("no")));
        assert_eq!(failed.unwrap_err().to_string(), "no");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let error = write(Path::new("no/such/file"), b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn modes_follow_the_umask() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        let plain = dir.path().join("plain");
        fs::write(&plain, "").unwrap();
        let path = dir.path().join("weights");
        // As a library does that makes a private temporary file and renames it.
        write_with(&path, |temporary| {
            let private = tempfile::NamedTempFile::new_in(dir.path())?;
            assert_ne!(mode(private.path()), mode(&plain));
            private.persist(temporary).map(|_| ()).map_err(io::Error::from)
        })
        .unwrap();
        assert_eq!(mode(&path), mode(&plain));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(mode(&path), mode(&plain));
    }
}
