//! Which files are read: inputs expanded, in a fixed order, each with the format that its name tells.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};
use walkdir::{DirEntry, WalkDir};

use super::event::{PrepareEvent, SkipReason};
use crate::error::DataError;
use crate::format::{MANIFEST_FILE, PROGRESS_FILE};

/// The endings that tell a format, for messages.
const KNOWN_EXTENSIONS: &str = ".txt, .text, .md, .jsonl, .ndjson or .parquet, each also with .gz or .zst";

/// Files with these names lie in nearly every directory of data and are about it. Only a directory is read without them.
const ABOUT_THE_DATA: [&str; 10] = [
    "readme",
    "license",
    "licence",
    "copying",
    "copyright",
    "notice",
    "citation",
    "changelog",
    "contributing",
    "code_of_conduct",
];

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
    let mut found = Found {
        sources: Vec::new(),
        on_event,
    };
    for input in inputs {
        let before = found.sources.len();
        if input.is_dir() {
            found.walk(input)?;
        } else if input.symlink_metadata().is_ok() {
            let (format, compression) = format_of(input).ok_or_else(|| DataError::UnknownExtension {
                path: input.clone(),
                expected: KNOWN_EXTENSIONS,
            })?;
            let bytes = size_of(input)?.ok_or_else(|| DataError::NotAFile { path: input.clone() })?;
            found.sources.push(Source {
                path: input.clone(),
                format,
                compression,
                bytes,
            });
        } else {
            found.expand_pattern(input)?;
        }
        found.skip_repeated(before)?;
        if found.sources.len() == before {
            return Err(DataError::NothingMatched {
                input: input.display().to_string(),
                expected: KNOWN_EXTENSIONS,
            });
        }
    }
    refuse_duplicates(&found.sources)?;
    Ok(found.sources)
}

struct Found<'a> {
    sources: Vec<Source>,
    on_event: &'a dyn Fn(PrepareEvent),
}

impl Found<'_> {
    fn walk(&mut self, dir: &Path) -> Result<(), DataError> {
        let entries = walker(dir)
            .into_iter()
            .filter_entry(|entry| entry.depth() == 0 || !is_hidden(entry.file_name()));
        for entry in entries {
            let Some(entry) = self.entry(dir, entry)? else { continue };
            if entry.file_type().is_dir() {
                continue;
            }
            if format_of(entry.path()).is_some() && is_about_the_data(entry.path()) {
                self.skip(entry.path(), SkipReason::AboutTheData);
            } else {
                self.push_or_skip(entry.path())?;
            }
        }
        Ok(())
    }

    /// Matches a pattern against the names under its fixed part. Names that are not UTF-8 are matched too, with `�` for
    /// what is not.
    fn expand_pattern(&mut self, input: &Path) -> Result<(), DataError> {
        let parts: Vec<Component> = input.components().collect();
        let Some(fixed) = parts.iter().position(|part| has_wildcard(part)) else {
            return Err(DataError::MissingInput {
                path: input.to_path_buf(),
            });
        };
        let pattern = |text: &str| {
            Pattern::new(text).map_err(|source| DataError::BadPattern {
                pattern: input.display().to_string(),
                source,
            })
        };
        let names: Vec<_> = parts[fixed..]
            .iter()
            .map(|part| part.as_os_str().to_string_lossy())
            .collect();
        let whole = pattern(&names.join("/"))?;
        let levels = names.iter().map(|name| pattern(name)).collect::<Result<Vec<_>, _>>()?;
        let free_depth = names.iter().position(|name| *name == "**").unwrap_or(usize::MAX);
        let rules = MatchOptions {
            require_literal_separator: true,
            require_literal_leading_dot: true,
            ..MatchOptions::new()
        };

        let root: PathBuf = parts[..fixed].iter().collect();
        let from = if root.as_os_str().is_empty() {
            Path::new(".")
        } else {
            &root
        };
        // Only where a match can be is looked at: a directory elsewhere may be huge, or closed to us.
        let can_match = |entry: &DirEntry| match entry.depth() {
            0 => true,
            depth if depth > free_depth => !is_hidden(entry.file_name()),
            depth => levels
                .get(depth - 1)
                .is_some_and(|level| level.matches_with(&entry.file_name().to_string_lossy(), rules)),
        };
        let mut entries = walker(from).into_iter();
        // `filter_entry` would hide `skip_current_dir`.
        while let Some(entry) = entries.next() {
            let Some(entry) = self.entry(from, entry)? else {
                continue;
            };
            let is_dir = entry.file_type().is_dir();
            if !can_match(&entry) {
                if is_dir {
                    entries.skip_current_dir();
                }
                continue;
            }
            let name = entry.path().strip_prefix(from).unwrap_or(entry.path());
            let text: Vec<_> = name.iter().map(OsStr::to_string_lossy).collect();
            if entry.depth() == 0 || !whole.matches_with(&text.join("/"), rules) {
                continue;
            }
            let path = root.join(name);
            if is_dir {
                self.walk(&path)?;
                entries.skip_current_dir();
            } else {
                self.push_or_skip(&path)?;
            }
        }
        Ok(())
    }

    /// An entry of a directory, or `None` for a link that leads nowhere and would be skipped anyway.
    fn entry(&mut self, dir: &Path, entry: walkdir::Result<DirEntry>) -> Result<Option<DirEntry>, DataError> {
        let error = match entry {
            Ok(entry) => return Ok(Some(entry)),
            Err(error) => error,
        };
        let path = error.path().unwrap_or(dir).to_path_buf();
        let broken = fs::symlink_metadata(&path).is_ok_and(|data| data.is_symlink()) && fs::metadata(&path).is_err();
        if broken {
            self.push_or_skip(&path)?;
            return Ok(None);
        }
        Err(DataError::Io {
            action: "list",
            path,
            source: error.into(),
        })
    }

    fn push_or_skip(&mut self, path: &Path) -> Result<(), DataError> {
        let Some((format, compression)) = format_of(path) else {
            self.skip(path, SkipReason::Name);
            return Ok(());
        };
        match size_of(path)? {
            Some(bytes) => self.sources.push(Source {
                path: path.to_path_buf(),
                format,
                compression,
                bytes,
            }),
            None => self.skip(path, SkipReason::NotAFile),
        }
        Ok(())
    }

    /// Leaves out files that one input, whose sources begin at `first`, brought along under several names: they are
    /// links to each other.
    fn skip_repeated(&mut self, first: usize) -> Result<(), DataError> {
        let mut seen = HashSet::new();
        for source in self.sources.split_off(first) {
            if seen.insert(real_path(&source.path)?) {
                self.sources.push(source);
            } else {
                self.skip(&source.path, SkipReason::Repeated);
            }
        }
        Ok(())
    }

    fn skip(&self, path: &Path, reason: SkipReason) {
        (self.on_event)(PrepareEvent::Skipped {
            path: path.to_path_buf(),
            reason,
        });
    }
}

/// Links are followed: a downloaded dataset is often a folder of links into a cache.
fn walker(dir: &Path) -> WalkDir {
    WalkDir::new(dir).follow_links(true).sort_by_file_name()
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn is_about_the_data(path: &Path) -> bool {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_ascii_lowercase();
    let stem = name.split('.').next().unwrap_or_default();
    ABOUT_THE_DATA.contains(&stem)
}

/// A regular file's size; `None` for what is no regular file, such as a pipe, which may never end.
fn size_of(path: &Path) -> Result<Option<u64>, DataError> {
    match (fs::metadata(path), fs::read_link(path)) {
        (Ok(metadata), _) => Ok(metadata.is_file().then_some(metadata.len())),
        (Err(_), Ok(target)) => Err(DataError::BrokenLink {
            path: path.to_path_buf(),
            target,
        }),
        (Err(error), Err(_)) => Err(DataError::io("read", path)(error)),
    }
}

/// Whether a file is of a format that text is read from, by its name.
pub fn is_text(path: &Path) -> bool {
    format_of(path).is_some()
}

/// Whether an input names text rather than token shards: a file that is no shard by its name, so that preparing it says
/// what is wrong with it, a pattern, or a directory with text and without tokens right in it.
pub fn names_text(input: &Path) -> bool {
    let is_shard = |path: &Path| path.extension().is_some_and(|extension| extension == "bin");
    if let Ok(entries) = fs::read_dir(input) {
        let paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        let is_of_tokens =
            |path: &PathBuf| is_shard(path) || path.ends_with(MANIFEST_FILE) || path.ends_with(PROGRESS_FILE);
        return paths.iter().any(|path| is_text(path)) && !paths.iter().any(is_of_tokens);
    }
    let is_pattern = || input.symlink_metadata().is_err() && input.components().any(|part| has_wildcard(&part));
    is_text(input) || ((input.is_file() || is_pattern()) && !is_shard(input))
}

fn has_wildcard(part: &Component) -> bool {
    part.as_os_str().to_string_lossy().contains(['*', '?', '['])
}

fn format_of(path: &Path) -> Option<(Format, Compression)> {
    // A name need not be UTF-8; what tells the format is.
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
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

fn real_path(path: &Path) -> Result<PathBuf, DataError> {
    fs::canonicalize(path).map_err(DataError::io("read", path))
}

/// Two inputs that overlap would train on the same text twice, which is hardly meant.
fn refuse_duplicates(sources: &[Source]) -> Result<(), DataError> {
    let mut seen = HashSet::new();
    for Source { path, .. } in sources {
        if !seen.insert(real_path(path)?) {
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
        assert!(is_text(Path::new("a b.parquet")) && !is_text(Path::new("a")));
    }

    #[test]
    fn text_is_told_from_tokens() -> Outcome {
        let dir = tempfile::tempdir()?;
        let root = dir.path();
        assert!(!names_text(root), "nothing is there");
        assert!(!names_text(&root.join("nothing")));
        fs::write(root.join("a.txt"), "x")?;
        assert!(names_text(root));
        assert!(names_text(&root.join("a.txt")));
        fs::write(root.join("corpus"), "x")?;
        assert!(names_text(&root.join("corpus")), "the error is to name its extension");
        fs::remove_file(root.join("corpus"))?;
        assert!(
            names_text(&root.join("b.jsonl.gz")),
            "an error will say that it is not there"
        );
        assert!(names_text(&root.join("*.parquet")));
        assert!(!names_text(&root.join("*.bin")));
        fs::write(root.join("train.bin"), "x")?;
        assert!(!names_text(&root.join("train.bin")));
        assert!(!names_text(root), "the tokens of the text, as nanoGPT keeps them");
        Ok(())
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
                if let PrepareEvent::Skipped { path, .. } = event {
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
    fn what_is_about_the_data_is_read_only_when_named() -> Outcome {
        let dir = tempfile::tempdir()?;
        let root = dir.path();
        for name in ["README.md", "LICENSE.txt", "readers.txt", "a.txt", "copyright"] {
            fs::write(root.join(name), "x")?;
        }
        let skipped = RefCell::new(Vec::new());
        let count = |input: PathBuf| -> Result<usize, DataError> {
            let found = find(&[input], &|event| {
                if let PrepareEvent::Skipped { reason, .. } = event {
                    skipped.borrow_mut().push(reason);
                }
            })?;
            Ok(found.len())
        };
        assert_eq!(count(root.to_path_buf())?, 2);
        let about = SkipReason::AboutTheData;
        assert_eq!(*skipped.borrow(), [about, about, SkipReason::Name]);
        assert_eq!(count(root.join("README.md"))?, 1);
        assert_eq!(count(root.join("*.txt"))?, 3);
        Ok(())
    }

    #[test]
    fn patterns_are_matched_level_by_level() -> Outcome {
        let dir = tempfile::tempdir()?;
        let root = dir.path();
        for name in [
            "a/x/1.txt",
            "a/y/2.txt",
            "a/y/deep/3.txt",
            "b/x/4.txt",
            "a/.h/5.txt",
            "6.txt",
        ] {
            let path = root.join(name);
            fs::create_dir_all(path.parent().ok_or("no parent")?)?;
            fs::write(path, "x")?;
        }
        let names = |pattern: &str| -> Result<Vec<String>, DataError> {
            let found = find(&[root.join(pattern)], &|_| {})?;
            Ok(found
                .iter()
                .map(|s| s.path.strip_prefix(root).unwrap_or(&s.path).display().to_string())
                .collect())
        };
        assert_eq!(names("a/*/*.txt")?, ["a/x/1.txt", "a/y/2.txt"]);
        assert_eq!(names("*/x/[0-9].txt")?, ["a/x/1.txt", "b/x/4.txt"]);
        assert_eq!(names("a/**/?.txt")?, ["a/x/1.txt", "a/y/2.txt", "a/y/deep/3.txt"]);
        assert_eq!(names("a/[!x]")?, ["a/y/2.txt", "a/y/deep/3.txt"]);
        assert_eq!(names("**/4.txt")?, ["b/x/4.txt"]);
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_not_utf8_are_read() -> Outcome {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir()?;
        let path = dir.path().join(OsStr::from_bytes(b"caf\xE9.txt"));
        fs::write(&path, "x")?;
        for input in [
            dir.path().to_path_buf(),
            path.clone(),
            dir.path().join("*.txt"),
            dir.path().join("caf?.txt"),
        ] {
            let found = find(&[input], &|event| panic!("{event:?}"))?;
            assert_eq!(found.iter().map(|source| &source.path).collect::<Vec<_>>(), [&path]);
        }
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_nowhere_are_skipped_by_name_or_named() -> Outcome {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir()?;
        let root = dir.path();
        fs::write(root.join("a.txt"), "x")?;
        symlink("/nowhere/at/all.pdf", root.join("x.pdf"))?;
        let skipped = RefCell::new(Vec::new());
        for input in [root.to_path_buf(), root.join("*")] {
            let found = find(&[input], &|event| skipped.borrow_mut().push(event))?;
            assert_eq!(found.len(), 1);
        }
        let reason = SkipReason::Name;
        let path = root.join("x.pdf");
        assert_eq!(*skipped.borrow(), vec![PrepareEvent::Skipped { path, reason }; 2]);

        let link = root.join("b.txt");
        symlink("/nowhere/at/all.txt", &link)?;
        for input in [root.to_path_buf(), root.join("*.txt"), link.clone()] {
            let error = find(&[input], &|_| {}).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "{} is a link to /nowhere/at/all.txt, which does not exist: restore the file or remove the link",
                    link.display()
                )
            );
        }
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn a_file_under_two_names_is_read_once() -> Outcome {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("a.txt"), "x")?;
        let path = dir.path().join("b.txt");
        std::os::unix::fs::symlink("a.txt", &path)?;
        let skipped = RefCell::new(Vec::new());
        let found = find(&[dir.path().to_path_buf()], &|event| skipped.borrow_mut().push(event))?;
        assert_eq!(found.len(), 1);
        let reason = SkipReason::Repeated;
        assert_eq!(*skipped.borrow(), [PrepareEvent::Skipped { path, reason }]);
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn pipes_are_not_waited_for() -> Outcome {
        let dir = tempfile::tempdir()?;
        let pipe = dir.path().join("p.txt");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status()?.success());
        let error = find(std::slice::from_ref(&pipe), &|_| {}).unwrap_err();
        assert!(
            matches!(&error, DataError::NotAFile { path } if *path == pipe),
            "{error}"
        );
        fs::write(dir.path().join("a.txt"), "x")?;
        let skipped = RefCell::new(Vec::new());
        let found = find(&[dir.path().to_path_buf()], &|event| skipped.borrow_mut().push(event))?;
        assert_eq!(found.len(), 1);
        let reason = SkipReason::NotAFile;
        assert_eq!(*skipped.borrow(), [PrepareEvent::Skipped { path: pipe, reason }]);
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
