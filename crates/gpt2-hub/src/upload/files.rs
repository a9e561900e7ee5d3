//! The files of a directory, and what the hub is told of them.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use gpt2_base::fs::{TEMPORARY_SUFFIX, sha256_file};
use walkdir::{DirEntry, WalkDir};

use crate::error::HubError;

/// Of the beginning of a file the hub sees whether it is text.
const SAMPLE: u64 = 512;

/// Hidden files that belong to a repository.
const HIDDEN: [&str; 2] = [".gitattributes", ".gitignore"];

/// A file that is to be sent.
#[derive(Debug)]
pub(super) struct LocalFile {
    pub(super) path: PathBuf,
    /// Its path in the repository.
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    pub(super) sample: Vec<u8>,
}

impl LocalFile {
    fn open(root: &Path, path: &Path) -> Result<Self, HubError> {
        let bad_name = || HubError::BadName { path: path.to_owned() };
        let name = path
            .strip_prefix(root)
            .ok()
            .and_then(Path::to_str)
            .ok_or_else(bad_name)?;
        let read = || HubError::io("read", path);
        let file = File::open(path).map_err(read())?;
        let bytes = file.metadata().map_err(read())?.len();
        let mut sample = Vec::new();
        file.take(SAMPLE).read_to_end(&mut sample).map_err(read())?;
        Ok(Self {
            path: path.to_owned(),
            name: name.replace(std::path::MAIN_SEPARATOR, "/"),
            bytes,
            sha256: sha256_file(path).map_err(read())?,
            sample,
        })
    }

    /// All of it, if it is still what it was.
    pub(super) fn read(&self) -> Result<Vec<u8>, HubError> {
        let content = fs::read(&self.path).map_err(HubError::io("read", &self.path))?;
        if content.len() as u64 == self.bytes {
            Ok(content)
        } else {
            Err(HubError::FileChanged {
                path: self.path.clone(),
            })
        }
    }
}

/// The files below a directory in the order of their names, without hidden ones and those that are being written.
///
/// # Errors
/// That there are none, or that one cannot be read.
pub(super) fn find(directory: &Path) -> Result<Vec<LocalFile>, HubError> {
    let is_sent = |entry: &DirEntry| {
        let name = entry.file_name().to_string_lossy();
        let is_hidden = name.starts_with('.') && !HIDDEN.contains(&name.as_ref());
        entry.depth() == 0 || !(is_hidden || name.ends_with(TEMPORARY_SUFFIX))
    };
    let entries = WalkDir::new(directory).follow_links(true).sort_by_file_name();
    let mut files = Vec::new();
    for entry in entries.into_iter().filter_entry(is_sent) {
        let entry = entry.map_err(|error| HubError::Io {
            action: "list",
            path: error.path().unwrap_or(directory).to_owned(),
            source: error.into(),
        })?;
        if entry.file_type().is_file() && entry.depth() > 0 {
            files.push(LocalFile::open(directory, entry.path())?);
        }
    }
    if files.is_empty() {
        return Err(HubError::NothingToSend {
            directory: directory.to_owned(),
        });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_and_unfinished_files_stay_here() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a")).unwrap();
        fs::create_dir_all(dir.path().join(".git")).unwrap();
        for name in [
            "z.txt",
            "a/b.txt",
            ".git/config",
            ".env",
            ".gitattributes",
            "x.safetensors.tmp",
        ] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let files = find(dir.path()).unwrap();
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, [".gitattributes", "a/b.txt", "z.txt"]);
        assert_eq!((files[1].bytes, files[1].sample.as_slice()), (7, b"a/b.txt".as_slice()));

        fs::write(dir.path().join("z.txt"), "longer").unwrap();
        assert!(matches!(files[2].read(), Err(HubError::FileChanged { .. })));
    }

    #[test]
    fn an_empty_or_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(find(dir.path()), Err(HubError::NothingToSend { .. })));
        assert!(matches!(find(&dir.path().join("none")), Err(HubError::Io { .. })));
    }
}
