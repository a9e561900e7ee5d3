//! Where the tokens of a text go that is trained on without a preparation.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Where the tokens of a text are kept: in `data/`, under its name; those of a directory there beside it.
pub(crate) fn directory_of_text(text: &Path) -> PathBuf {
    let data = Path::new("data");
    let out = data.join(name(text));
    if text.is_dir() && (text == data || out == text) {
        let mut beside = text.as_os_str().to_owned();
        beside.push("-tokens");
        return beside.into();
    }
    out
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
    } else if let Some(wildcard) = spelled.find(['*', '?', '[']) {
        let directory = spelled[..wildcard]
            .rsplit_once('/')
            .map(|(directory, _)| Path::new(directory));
        directory.and_then(Path::file_name).map(OsString::from)
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
        ] {
            assert_eq!(directory_of_text(Path::new(text)), Path::new(expected), "{text}");
        }
    }
}
