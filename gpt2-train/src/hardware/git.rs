//! The commit that a directory is at, read from git's own files: reports name it, and a git program need not be installed.

use std::fs;
use std::path::{Path, PathBuf};

/// The commit checked out in the repository around `directory`, in full hexadecimal. None outside a repository, before
/// its first commit, or where the files are kept in a way that is not known here.
pub fn commit(directory: &Path) -> Option<String> {
    let git_dir = directory.ancestors().find_map(git_dir)?;
    let head = fs::read_to_string(git_dir.join("HEAD")).ok()?;
    let Some(reference) = head.trim().strip_prefix("ref: ") else {
        return hash(&head);
    };
    // A linked worktree has a HEAD of its own and shares the references (gitrepository-layout(5)).
    let common =
        fs::read_to_string(git_dir.join("commondir")).map_or_else(|_| git_dir.clone(), |c| git_dir.join(c.trim()));
    let loose = fs::read_to_string(common.join(reference))
        .ok()
        .and_then(|text| hash(&text));
    loose.or_else(|| packed(&common, reference))
}

/// `directory/.git`, or the place that a file of that name points to.
fn git_dir(directory: &Path) -> Option<PathBuf> {
    let dot_git = directory.join(".git");
    if dot_git.is_dir() {
        return Some(dot_git);
    }
    let pointer = fs::read_to_string(dot_git).ok()?;
    Some(directory.join(pointer.trim().strip_prefix("gitdir: ")?))
}

fn packed(common: &Path, reference: &str) -> Option<String> {
    let references = fs::read_to_string(common.join("packed-refs")).ok()?;
    references
        .lines()
        .find_map(|line| hash(line.strip_suffix(reference)?.strip_suffix(' ')?))
}

/// SHA-1 or SHA-256 in hexadecimal.
fn hash(text: &str) -> Option<String> {
    let text = text.trim();
    let hexadecimal = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hexadecimal.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_branch_is_followed_from_any_folder_below() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), ".git/HEAD", "ref: refs/heads/main\n");
        write(dir.path(), "src/deep/file", "");
        assert_eq!(commit(dir.path()), None);
        write(
            dir.path(),
            ".git/packed-refs",
            &format!("# pack-refs\n{COMMIT} refs/heads/main\n"),
        );
        assert_eq!(commit(&dir.path().join("src/deep")).as_deref(), Some(COMMIT));
        let newer = COMMIT.replace('0', "f");
        write(dir.path(), ".git/refs/heads/main", &newer);
        assert_eq!(commit(dir.path()), Some(newer));
    }

    #[test]
    fn a_detached_head_and_a_worktree_are_read() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "main/.git/HEAD", COMMIT);
        assert_eq!(commit(&dir.path().join("main")).as_deref(), Some(COMMIT));
        write(dir.path(), "main/.git/refs/heads/topic", COMMIT);
        write(dir.path(), "main/.git/worktrees/topic/HEAD", "ref: refs/heads/topic\n");
        write(dir.path(), "main/.git/worktrees/topic/commondir", "../..\n");
        write(dir.path(), "topic/.git", "gitdir: ../main/.git/worktrees/topic\n");
        assert_eq!(commit(&dir.path().join("topic")).as_deref(), Some(COMMIT));
    }

    #[test]
    fn what_is_no_commit_is_none() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), ".git/HEAD", "something else");
        assert_eq!(commit(dir.path()), None);
    }
}
