//! Where a repository's files lie in the cache, as Python's `huggingface_hub` puts them.
//!
//! `blobs/` has the contents, named by their hash on the hub; `snapshots/COMMIT/` the files as links to them; `refs/`
//! the commit of each branch and tag. A content that is not whole is named `blobs/HASH.incomplete`.
//!
//! `trees/COMMIT.json` has what the hub listed of a commit, which never changes. It spares a request, and offline it
//! tells files that are missing from those that never were.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use gpt2_base::fs::{Lock, sync_directory};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use walkdir::WalkDir;

use crate::address::{Address, RepoKind};
use crate::error::HubError;

/// The directory of one repository at one revision.
#[derive(Debug)]
pub(crate) struct RepoCache {
    layout: CacheRepo,
    cache: PathBuf,
    folder: String,
    revision: String,
}

impl RepoCache {
    pub(crate) fn new(cache: &Path, address: &Address) -> Self {
        let kind = match address.kind() {
            RepoKind::Model => RepoType::Model,
            RepoKind::Dataset => RepoType::Dataset,
        };
        let repo = Repo::with_revision(address.id().to_owned(), kind, address.revision().to_owned());
        let folder = repo.folder_name();
        Self {
            layout: Cache::new(cache.to_owned()).repo(repo),
            cache: cache.to_owned(),
            folder,
            revision: address.revision().to_owned(),
        }
    }

    /// The directory of all revisions.
    pub(crate) fn directory(&self) -> PathBuf {
        self.cache.join(&self.folder)
    }

    /// The directory of a commit's files.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.layout.pointer_path(commit)
    }

    /// A content that is whole.
    pub(crate) fn blob(&self, hash: &str) -> PathBuf {
        self.directory().join("blobs").join(hash)
    }

    /// A content of which more is to come.
    pub(crate) fn incomplete(&self, hash: &str) -> PathBuf {
        let mut name = OsString::from(hash);
        name.push(".incomplete");
        self.directory().join("blobs").join(name)
    }

    /// The commit that the revision was the last time, or that it is by itself.
    pub(crate) fn commit(&self) -> Option<String> {
        if is_commit(&self.revision) {
            return Some(self.revision.clone());
        }
        let commit = fs::read_to_string(self.reference()).ok()?;
        let commit = commit.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Remembers the commit that the revision is.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn set_commit(&self, commit: &str) -> Result<(), HubError> {
        if self.commit().as_deref() == Some(commit) {
            return Ok(());
        }
        self.write(&self.reference(), commit.as_bytes())
    }

    fn reference(&self) -> PathBuf {
        self.directory().join("refs").join(&self.revision)
    }

    /// Waits for other processes that fetch the same content.
    ///
    /// # Errors
    /// If the lock cannot be made.
    pub(crate) fn lock(&self, hash: &str) -> Result<Lock, HubError> {
        let path = self
            .cache
            .join(".locks")
            .join(&self.folder)
            .join(format!("{hash}.lock"));
        make_parent(&path)?;
        Lock::wait(&path).map_err(HubError::io("lock", &path))
    }

    /// Makes `file` of a commit the content `hash`, on which the caller has the lock. What has the name already is
    /// replaced at once: another process may be about to open it.
    ///
    /// # Errors
    /// If the link cannot be made.
    pub(crate) fn link(&self, commit: &str, file: &str, hash: &str) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(file);
        make_parent(&path)?;
        let up = "../".repeat(2 + file.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{hash}"));
        link(&target, &self.blob(hash), &path).map_err(HubError::io("link", &path))?;
        let parent = path.parent().unwrap_or(Path::new("."));
        sync_directory(parent).map_err(HubError::io("write", parent))
    }

    /// The files of a commit that are here, by their paths in the repository.
    pub(crate) fn files(&self, commit: &str) -> Vec<String> {
        let root = self.snapshot(commit);
        let entries = WalkDir::new(&root).min_depth(1).sort_by_file_name();
        let files = entries.into_iter().flatten().filter(|entry| entry.path().is_file());
        files
            .filter_map(|entry| {
                let name = entry.path().strip_prefix(&root).ok()?.to_str()?;
                Some(name.replace('\\', "/"))
            })
            .collect()
    }

    fn listing(&self, commit: &str) -> PathBuf {
        self.directory().join("trees").join(format!("{commit}.json"))
    }

    /// The listing that was kept, if there is one.
    pub(crate) fn read_listing(&self, commit: &str) -> Option<Vec<u8>> {
        fs::read(self.listing(commit)).ok()
    }

    /// Keeps the listing.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write_listing(&self, commit: &str, json: &[u8]) -> Result<(), HubError> {
        self.write(&self.listing(commit), json)
    }

    /// Writes a small file, one process at a time.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), HubError> {
        let _lock = self.lock("names")?;
        make_parent(path)?;
        gpt2_base::fs::write(path, bytes).map_err(HubError::io("write", path))
    }
}

/// Whether it is the full name of a commit: SHA-1 in hexadecimal.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a name in a listing is a path below a directory, on every system.
pub(crate) fn is_safe(name: &str) -> bool {
    let is_plain = |component| matches!(component, Component::Normal(_));
    !name.is_empty()
        && !name.contains(['\\', ':', '\0'])
        && name
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
        && Path::new(name).components().all(is_plain)
}

pub(crate) fn make_parent(path: &Path) -> Result<(), HubError> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(HubError::io("create", parent)),
        None => Ok(()),
    }
}

/// The link gets its name when it is made.
#[cfg(unix)]
fn link(target: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    let mut temporary = blob.as_os_str().to_owned();
    temporary.push(".link");
    // What a killed process left.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &temporary)?;
    fs::rename(&temporary, path)
}

/// Without the right to make links, the content itself is put there, as Python's `huggingface_hub` does.
#[cfg(not(unix))]
fn link(_target: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    fs::rename(blob, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_a_directory_are_known() {
        for safe in ["a", "a/b.txt", "..a", "a b/ü", ".gitattributes"] {
            assert!(is_safe(safe), "{safe}");
        }
        for unsafe_ in [
            "",
            "/etc/passwd",
            "../a",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            "a\\b",
            "C:/a",
            "a\0b",
        ] {
            assert!(!is_safe(unsafe_), "{unsafe_}");
        }
    }

    #[test]
    fn the_layout_is_pythons() {
        let address: Address = "hf:datasets/a/b@refs/pr/1/x".parse().unwrap();
        let repo = RepoCache::new(Path::new("cache"), &address);
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(
            repo.snapshot(commit),
            Path::new("cache/datasets--a--b/snapshots").join(commit)
        );
        assert_eq!(repo.blob("e"), Path::new("cache/datasets--a--b/blobs/e"));
        assert_eq!(
            repo.incomplete("e"),
            Path::new("cache/datasets--a--b/blobs/e.incomplete")
        );
        assert_eq!(repo.reference(), Path::new("cache/datasets--a--b/refs/refs/pr/1"));
    }
}
