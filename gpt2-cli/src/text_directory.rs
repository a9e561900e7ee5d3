//! Where the tokens of a text go that is trained on without a preparation.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// What makes a path a pattern.
const WILDCARDS: [char; 3] = ['*', '?', '['];

/// Where the tokens of a text are kept: in `data/`, under its name; or next to the directory that the text is in, where it is
/// that one.
pub(crate) fn directory_of_text(text: &Path) -> PathBuf {
    let out = Path::new("data").join(name(text));
    let own = own_directory(text);
    let [real_out, real_own] = [&out, &own].map(|path| real(path));
    // A directory is read with all that is in it.
    if real_out == real_own || (text.is_dir() && real_out.starts_with(&real_own)) {
        let own = if own.file_name().is_some() { own } else { real_own };
        let mut next_to = own.components().as_path().as_os_str().to_owned();
        next_to.push("-tokens");
        return next_to.into();
    }
    out
}

/// The directory that a text is, or is in.
fn own_directory(text: &Path) -> PathBuf {
    if text.is_dir() {
        return text.to_owned();
    }
    let is_fixed = |part: &Component| !part.as_os_str().to_string_lossy().contains(WILDCARDS);
    let parent = text.parent().unwrap_or(Path::new(""));
    parent.components().take_while(is_fixed).collect()
}

/// A path without links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    path.canonicalize()
        .unwrap_or_else(|_| match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => real(parent).join(name),
            _ => path.to_owned(),
        })
}

/// The name of a text: of a file without its endings, of a pattern the directory's, of a data set its own.
fn name(text: &Path) -> OsString {
    let spelled = text.to_string_lossy();
    let found = if let Some(address) = spelled.strip_prefix("hf:datasets/") {
        // OWNER/NAME@REVISION/PATTERN
        let name = address.split('/').nth(1).and_then(|name| name.split('@').next());
        name.map(OsString::from)
    } else if text.is_dir() {
        // Of `.` too.
        let real = text.canonicalize();
        real.as_deref().unwrap_or(text).file_name().map(OsString::from)
    } else if spelled.contains(WILDCARDS) {
        own_directory(text).file_name().map(OsString::from)
    } else {
        let name = text.file_name().map(OsStr::to_string_lossy);
        name.and_then(|name| Some(name.split('.').find(|part| !part.is_empty())?.into()))
    };
    found.unwrap_or_else(|| "text".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokens_have_the_name_of_the_text() {
        for (text, expected) in [
            ("book.txt", "data/book"),
            ("texts/book.jsonl.gz", "data/book"),
            ("fineweb/*.parquet", "data/fineweb"),
            ("fineweb/part-*.parquet", "data/fineweb"),
            ("*.txt", "data/text"),
            ("hf:datasets/me/stories/*.txt", "data/stories"),
            ("hf:datasets/me/stories@v1/*.txt", "data/stories"),
            // Its own directory.
            ("data/book/book.txt", "data/book-tokens"),
            ("./data/fineweb/*.parquet", "./data/fineweb-tokens"),
            ("data/fineweb/**/*.parquet", "data/fineweb-tokens"),
            ("data/book.txt", "data/book"),
        ] {
            assert_eq!(directory_of_text(Path::new(text)), Path::new(expected), "{text}");
        }
    }
}
