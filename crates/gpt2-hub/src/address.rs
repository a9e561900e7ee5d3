//! What is named by `hf:…`.

use std::fmt;
use std::str::FromStr;

use crate::error::HubError;

/// What an address begins with.
pub const SCHEME: &str = "hf:";

/// The revision if none is given.
pub(crate) const MAIN: &str = "main";

/// What a repository is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepoKind {
    /// A model: `hf:OWNER/NAME`.
    Model,
    /// A data set: `hf:datasets/OWNER/NAME/PATTERN`.
    Dataset,
}

/// Files of a repository on the hub.
///
/// `hf:OWNER/NAME[@REVISION]` is a model, `hf:datasets/OWNER/NAME[@REVISION]/PATTERN` the files of a data set that
/// match a pattern. A revision is a branch, a tag or a commit. One with slashes has `%2F` for them, but for those that
/// the hub makes itself: `refs/pr/1`, `refs/convert/parquet`.
///
/// ```
/// use gpt2_hub::Address;
///
/// let address: Address = "hf:datasets/roneneldan/TinyStories@main/*-train.txt".parse()?;
/// assert_eq!(address.id(), "roneneldan/TinyStories");
/// assert_eq!(address.revision(), "main");
/// assert_eq!(address.pattern(), Some("*-train.txt"));
/// # Ok::<(), gpt2_hub::HubError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    text: String,
    kind: RepoKind,
    id: String,
    revision: String,
    pattern: Option<String>,
}

impl Address {
    /// Whether a text is meant as an address rather than a path.
    pub fn is_one(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// Model or data set.
    pub const fn kind(&self) -> RepoKind {
        self.kind
    }

    /// `OWNER/NAME`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Branch, tag or commit; `main` if none was given.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The pattern of a data set's files.
    pub fn pattern(&self) -> Option<&str> {
        self.pattern.as_deref()
    }

    /// The page of the repository.
    pub(crate) fn page(&self, endpoint: &str) -> String {
        match self.kind {
            RepoKind::Model => format!("{endpoint}/{}", self.id),
            RepoKind::Dataset => format!("{endpoint}/datasets/{}", self.id),
        }
    }

    /// The part of the API that is about the repository.
    pub(crate) fn api(&self, endpoint: &str) -> String {
        match self.kind {
            RepoKind::Model => format!("{endpoint}/api/models/{}", self.id),
            RepoKind::Dataset => format!("{endpoint}/api/datasets/{}", self.id),
        }
    }

    /// Refuses an address of a data set where a model is needed.
    pub(crate) fn require_model(&self) -> Result<(), HubError> {
        match self.kind {
            RepoKind::Model => Ok(()),
            RepoKind::Dataset => Err(bad(&self.text, "is a data set", "a model: hf:OWNER/NAME")),
        }
    }

    /// The pattern, where a data set is needed.
    pub(crate) fn require_pattern(&self) -> Result<&str, HubError> {
        self.pattern
            .as_deref()
            .ok_or_else(|| bad(&self.text, "is a model", DATASET_FORM))
    }
}

const DATASET_FORM: &str = "hf:datasets/OWNER/NAME/PATTERN, such as hf:datasets/roneneldan/TinyStories/*-train.txt";
const MODEL_FORM: &str = "hf:OWNER/NAME or hf:OWNER/NAME@REVISION, such as hf:openai-community/gpt2";

fn bad(address: &str, problem: &str, expected: &'static str) -> HubError {
    HubError::BadAddress {
        address: address.to_owned(),
        problem: problem.to_owned(),
        expected,
    }
}

impl FromStr for Address {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let Some(path) = text.strip_prefix(SCHEME) else {
            return Err(bad(text, "does not begin with hf:", MODEL_FORM));
        };
        let (kind, path, form) = match path.strip_prefix("datasets/") {
            Some(path) => (RepoKind::Dataset, path, DATASET_FORM),
            None => (RepoKind::Model, path, MODEL_FORM),
        };
        let (name, rest) = name_and_rest(path);
        let (owner, name) = name.split_once('/').ok_or_else(|| bad(text, "has no owner", form))?;
        for part in [owner, name] {
            if !is_name(part) {
                return Err(bad(text, &format!("has {part:?}, which is no name on the hub"), form));
            }
        }
        let (revision, pattern) = match (kind, rest.strip_prefix('@')) {
            (_, None) => (MAIN, rest),
            (RepoKind::Model, Some(revision)) => (revision, ""),
            (RepoKind::Dataset, Some(rest)) => revision_and_pattern(rest),
        };
        let revision = revision.replace("%2F", "/");
        if !is_revision(&revision) {
            return Err(bad(text, &format!("has {revision:?}, which is no revision"), form));
        }
        let pattern = pattern.trim_start_matches('/');
        let pattern = match kind {
            RepoKind::Model if !pattern.is_empty() => {
                return Err(bad(text, &format!("has {pattern:?} after the name"), form));
            }
            RepoKind::Model => None,
            RepoKind::Dataset if pattern.is_empty() => return Err(bad(text, "names no files of the data set", form)),
            RepoKind::Dataset => Some(pattern.to_owned()),
        };
        Ok(Self {
            text: text.to_owned(),
            kind,
            id: format!("{owner}/{name}"),
            revision,
            pattern,
        })
    }
}

/// `OWNER/NAME`, and what comes after it, from its `@` or `/` on.
fn name_and_rest(path: &str) -> (&str, &str) {
    let owner = path.find('/').map_or(path.len(), |slash| slash + 1);
    let end = path[owner..].find(['/', '@']).map_or(path.len(), |end| owner + end);
    path.split_at(end)
}

/// A revision ends at the first slash, but for those in the names that the hub itself gives.
fn revision_and_pattern(rest: &str) -> (&str, &str) {
    let slashes = if rest.starts_with("refs/pr/") || rest.starts_with("refs/convert/") {
        2
    } else {
        0
    };
    let end = rest.match_indices('/').nth(slashes).map_or(rest.len(), |(at, _)| at);
    rest.split_at(end)
}

/// The hub's rules. Two dashes stand for a slash in the cache.
fn is_name(name: &str) -> bool {
    let is_allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
    let is_doubled = |pair: &[u8]| matches!(pair, [b'-', b'-'] | [b'.', b'.']);
    !name.is_empty()
        && name.len() <= 96
        && name.chars().all(is_allowed)
        && !name.starts_with(['.', '-'])
        && !name.ends_with(['.', '-'])
        && !name.as_bytes().windows(2).any(is_doubled)
}

/// Of Git's rules those that keep a revision a path below the directory of references.
fn is_revision(revision: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.');
    !revision.contains(['\\', ':', '?', '*', '[', '^', '~', ' ', '%'])
        && !revision.contains(|character: char| character.is_control())
        && !revision.contains("..")
        && revision.split('/').all(is_part)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn models_and_data_sets() {
        let model = parse("hf:openai-community/gpt2");
        assert_eq!(
            (model.kind(), model.id(), model.revision(), model.pattern()),
            (RepoKind::Model, "openai-community/gpt2", "main", None)
        );
        assert_eq!(parse("hf:a/b@v1.0").revision(), "v1.0");
        assert_eq!(parse("hf:a/b@refs/pr/7").revision(), "refs/pr/7");
        assert_eq!(parse("hf:a/b@my%2Fbranch").revision(), "my/branch");

        let data = parse("hf:datasets/a/b/data/train-*.parquet");
        assert_eq!(
            (data.kind(), data.id(), data.revision(), data.pattern()),
            (RepoKind::Dataset, "a/b", "main", Some("data/train-*.parquet"))
        );
        let data = parse("hf:datasets/a/b@refs/convert/parquet/default/**/*.parquet");
        assert_eq!(
            (data.revision(), data.pattern()),
            ("refs/convert/parquet", Some("default/**/*.parquet"))
        );
        let data = parse("hf:datasets/a/b@v2/x@y.txt");
        assert_eq!((data.revision(), data.pattern()), ("v2", Some("x@y.txt")));
    }

    #[test]
    fn what_is_no_address() {
        for (text, problem) in [
            ("gpt2", "does not begin"),
            ("hf:", "has no owner"),
            ("hf:gpt2", "has no owner"),
            ("hf:gpt2@main", "has no owner"),
            ("hf:a/", "no name on the hub"),
            ("hf:../etc", "no name on the hub"),
            ("hf:a/b c", "no name on the hub"),
            ("hf:a/b--c", "no name on the hub"),
            ("hf:a/b@", "no revision"),
            ("hf:a/b@../../x", "no revision"),
            ("hf:a/b@/etc", "no revision"),
            ("hf:a/b/model.safetensors", "after the name"),
            ("hf:datasets/a/b", "names no files"),
            ("hf:datasets/a/b@main", "names no files"),
            ("hf:datasets/a", "has no owner"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
            assert!(error.contains("expected hf:"), "{text}: {error}");
        }
    }

    #[test]
    fn one_kind_is_not_the_other() {
        let error = parse("hf:datasets/a/b/c").require_model().unwrap_err();
        assert!(error.to_string().contains("is a data set"));
        let error = parse("hf:a/b").require_pattern().unwrap_err();
        assert!(error.to_string().contains("is a model"));
    }
}
