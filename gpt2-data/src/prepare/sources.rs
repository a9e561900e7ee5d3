//! Which files are read: inputs expanded, in a fixed order, each with the format that its name tells.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::PrepareEvent;
use crate::DataError;

/// The endings that tell a format, for messages.
pub(crate) const KNOWN_EXTENSIONS: &str = ".txt, .text, .md, .jsonl, .ndjson or .parquet, each also with .gz or .zst";

/// One input file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub path: PathBuf,
    pub format: Format,
    pub compression: Compression,
    /// Size on disk.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Jsonl,
    Parquet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Expands the inputs. A file that is named must be of a known format; one that a directory or a pattern brought along
/// is skipped if it is not, and reported.
pub(super) fn find(inputs: &[PathBuf], on_event: &dyn Fn(PrepareEvent)) -> Result<Vec<Source>, DataError> {
    let mut sources = Vec::new();
    for input in inputs {
        let before = sources.len();
        if input.is_dir() {
            walk(input, &mut sources, on_event)?;
        } else if input.exists() {
            sources.push(source(input)?.ok_or_else(|| DataError::UnknownExtension { path: input.clone() })?);
        } else {
            expand_pattern(input, &mut sources, on_event)?;
        }
        if sources.len() == before {
            return Err(DataError::NothingMatched {
                input: input.display().to_string(),
            });
        }
    }
    refuse_duplicates(&sources)?;
    Ok(sources)
}

fn walk(dir: &Path, sources: &mut Vec<Source>, on_event: &dyn Fn(PrepareEvent)) -> Result<(), DataError> {
    // Links are followed: a downloaded dataset is often a folder of links into a cache.
    let hidden = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.');
    let entries = WalkDir::new(dir)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|entry| entry.depth() == 0 || !hidden(entry.file_name()));
    for entry in entries {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(dir).to_path_buf();
            DataError::Io {
                action: "list",
                path,
                source: error.into(),
            }
        })?;
        if entry.file_type().is_file() {
            push_or_skip(entry.path(), sources, on_event)?;
        }
    }
    Ok(())
}

fn expand_pattern(pattern: &Path, sources: &mut Vec<Source>, on_event: &dyn Fn(PrepareEvent)) -> Result<(), DataError> {
    let text = pattern.to_string_lossy();
    if !text.contains(['*', '?', '[']) {
        return Err(DataError::MissingInput {
            path: pattern.to_path_buf(),
        });
    }
    let rules = glob::MatchOptions {
        require_literal_leading_dot: true,
        ..glob::MatchOptions::new()
    };
    let paths = glob::glob_with(&text, rules).map_err(|source| DataError::BadPattern {
        pattern: text.clone().into_owned(),
        source,
    })?;
    for path in paths {
        let path = path.map_err(|error| {
            let path = error.path().to_path_buf();
            DataError::Io {
                action: "list",
                path,
                source: error.into(),
            }
        })?;
        if path.is_dir() {
            walk(&path, sources, on_event)?;
        } else {
            push_or_skip(&path, sources, on_event)?;
        }
    }
    Ok(())
}

fn push_or_skip(path: &Path, sources: &mut Vec<Source>, on_event: &dyn Fn(PrepareEvent)) -> Result<(), DataError> {
    match source(path)? {
        Some(source) => sources.push(source),
        None => on_event(PrepareEvent::Skipped {
            path: path.to_path_buf(),
        }),
    }
    Ok(())
}

/// Describes a file, `None` if its name does not tell a format.
fn source(path: &Path) -> Result<Option<Source>, DataError> {
    let Some((format, compression)) = format_of(path) else {
        return Ok(None);
    };
    let bytes = fs::metadata(path).map_err(DataError::io("read", path))?.len();
    Ok(Some(Source {
        path: path.to_path_buf(),
        format,
        compression,
        bytes,
    }))
}

fn format_of(path: &Path) -> Option<(Format, Compression)> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let (name, compression) = match name.rsplit_once('.')? {
        (rest, "gz") => (rest, Compression::Gzip),
        (rest, "zst") => (rest, Compression::Zstd),
        _ => (name.as_str(), Compression::None),
    };
    let format = match name.rsplit_once('.')?.1 {
        "txt" | "text" | "md" => Format::Text,
        "jsonl" | "ndjson" => Format::Jsonl,
        "parquet" => Format::Parquet,
        _ => return None,
    };
    Some((format, compression))
}

/// Two inputs that overlap would train on the same text twice, which is hardly meant.
fn refuse_duplicates(sources: &[Source]) -> Result<(), DataError> {
    let mut seen = HashSet::new();
    for Source { path, .. } in sources {
        let real = fs::canonicalize(path).map_err(DataError::io("read", path))?;
        if !seen.insert(real) {
            return Err(DataError::InputTwice { path: path.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn names_tell_formats() {
        let format = |name: &str| format_of(Path::new(name));
        assert_eq!(format("a.txt"), Some((Format::Text, Compression::None)));
        assert_eq!(format("A.TXT.GZ"), Some((Format::Text, Compression::Gzip)));
        assert_eq!(format("dir.d/a.b.jsonl.zst"), Some((Format::Jsonl, Compression::Zstd)));
        assert_eq!(format("000_00000.parquet"), Some((Format::Parquet, Compression::None)));
        assert_eq!(format("a.gz"), None);
        assert_eq!(format("a.bin"), None);
        assert_eq!(format("txt"), None);
    }

    #[test]
    fn directories_and_patterns_are_expanded_in_order() -> Outcome {
        let dir = tempfile::tempdir()?;
        let root = dir.path();
        fs::create_dir_all(root.join("sub/deep"))?;
        for name in ["b.txt", "a.jsonl", "sub/deep/c.md", "notes.pdf", ".hidden.txt"] {
            fs::write(root.join(name), "x")?;
        }
        let skipped = RefCell::new(Vec::new());
        let names = |input: PathBuf| -> Result<Vec<String>, DataError> {
            let found = find(&[input], &|event| {
                if let PrepareEvent::Skipped { path } = event {
                    skipped.borrow_mut().push(path);
                }
            })?;
            Ok(found
                .iter()
                .map(|s| s.path.strip_prefix(root).unwrap_or(&s.path).display().to_string())
                .collect())
        };
        assert_eq!(names(root.to_path_buf())?, ["a.jsonl", "b.txt", "sub/deep/c.md"]);
        assert_eq!(*skipped.borrow(), [root.join("notes.pdf")]);
        assert_eq!(names(root.join("*.txt"))?, ["b.txt"]);
        assert_eq!(names(root.join("**/*.md"))?, ["sub/deep/c.md"]);
        Ok(())
    }

    #[test]
    fn inputs_that_cannot_be_meant_are_refused() -> Outcome {
        let dir = tempfile::tempdir()?;
        let root = dir.path();
        fs::write(root.join("a.txt"), "x")?;
        fs::write(root.join("a.pdf"), "x")?;
        fs::create_dir(root.join("empty"))?;
        let error = |inputs: &[PathBuf]| find(inputs, &|_| {}).unwrap_err();
        assert!(matches!(error(&[root.join("no.txt")]), DataError::MissingInput { .. }));
        assert!(matches!(
            error(&[root.join("a.pdf")]),
            DataError::UnknownExtension { .. }
        ));
        assert!(matches!(
            error(&[root.join("*.jsonl")]),
            DataError::NothingMatched { .. }
        ));
        assert!(matches!(error(&[root.join("empty")]), DataError::NothingMatched { .. }));
        assert!(matches!(error(&[root.join("[a")]), DataError::BadPattern { .. }));
        assert!(matches!(
            error(&[root.join("a.txt"), root.to_path_buf()]),
            DataError::InputTwice { .. }
        ));
        Ok(())
    }
}
