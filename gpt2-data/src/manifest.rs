//! `manifest.json`: what a prepared directory holds, where it came from, and the hashes that prove it.
//!
//! Reading and writing only. Comparing a directory with its manifest is `inspect`'s work.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::DataError;
use crate::format::{MANIFEST_FILE, Split, TOKENIZER_NAME};

/// What a directory of shards holds. It is written last, so a directory with a manifest is complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the program that wrote it.
    pub tool_version: String,
    /// Always [`TOKENIZER_NAME`] so far.
    pub tokenizer: String,
    /// The training shards.
    pub train: SplitManifest,
    /// The validation shards, none if no validation split was asked for.
    pub val: SplitManifest,
    /// The files that the text was read from, in order; none for generated text.
    pub sources: Vec<SourceManifest>,
    /// The options that decide the tokens, by their names on the command line.
    pub options: BTreeMap<String, String>,
}

/// The shards of one split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitManifest {
    /// Documents that begin in this split.
    pub documents: u64,
    /// Tokens, each document's `<|endoftext|>` included.
    pub tokens: u64,
    /// The true entropy of the text in nats per token, where it is known because the text was generated: no model can
    /// have a lower loss on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy_nats_per_token: Option<f64>,
    /// The shards in order.
    pub shards: Vec<ShardManifest>,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardManifest {
    /// File name within the directory.
    pub file: String,
    /// Tokens in it.
    pub tokens: u64,
    /// SHA-256 of the whole file in hexadecimal, as `sha256sum` prints it.
    pub sha256: String,
}

/// One input file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceManifest {
    /// The path as it was found; bytes that are not UTF-8 are replaced by `�`.
    pub path: PathBuf,
    /// Size on disk.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// A manifest without shards, by this version of the program.
    pub fn new() -> Self {
        Self {
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            tokenizer: TOKENIZER_NAME.to_owned(),
            train: SplitManifest::default(),
            val: SplitManifest::default(),
            sources: Vec::new(),
            options: BTreeMap::new(),
        }
    }

    /// One split.
    pub fn split(&self, split: Split) -> &SplitManifest {
        match split {
            Split::Train => &self.train,
            Split::Val => &self.val,
        }
    }

    /// One split, to be filled.
    pub fn split_mut(&mut self, split: Split) -> &mut SplitManifest {
        match split {
            Split::Train => &mut self.train,
            Split::Val => &mut self.val,
        }
    }

    /// Reads the manifest of a prepared directory. A directory without one is not an error: shards from llm.c or
    /// nanoGPT have none.
    ///
    /// # Errors
    /// If there is a manifest that cannot be read or parsed.
    pub fn read(dir: &Path) -> Result<Option<Self>, DataError> {
        read_json(&dir.join(MANIFEST_FILE))
    }

    /// Writes the manifest into a directory, atomically.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), DataError> {
        write_json(&dir.join(MANIFEST_FILE), self)
    }
}

impl Default for Manifest {
    fn default() -> Self {
        Self::new()
    }
}

impl ShardManifest {
    /// Describes a finished shard of `tokens` tokens, hashing the file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn of_file(path: &Path, tokens: u64) -> Result<Self, DataError> {
        let file = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        Ok(Self {
            file,
            tokens,
            sha256: sha256_file(path)?,
        })
    }
}

/// SHA-256 of a file's content, in hexadecimal.
///
/// # Errors
/// If the file cannot be read.
pub(crate) fn sha256_file(path: &Path) -> Result<String, DataError> {
    gpt2_base::fs::sha256_file(path).map_err(DataError::io("read", path))
}

/// Reads a JSON file, `None` if there is no such file.
pub(crate) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>, DataError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataError::io("read", path)(error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| DataError::BadManifest {
            path: path.to_path_buf(),
            source,
        })
}

/// Writes a JSON file for people to read, atomically.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), DataError> {
    let to_error = |source| DataError::BadManifest {
        path: path.to_path_buf(),
        source,
    };
    let mut bytes = serde_json::to_vec_pretty(value).map_err(to_error)?;
    bytes.push(b'\n');
    gpt2_base::fs::write(path, &bytes).map_err(DataError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        assert_eq!(Manifest::read(dir.path())?, None);
        let mut manifest = Manifest::new();
        manifest.options.insert("shard-tokens".into(), "100".into());
        manifest.val.entropy_nats_per_token = Some(1.25);
        manifest.train.shards.push(ShardManifest {
            file: "a_train_000000.bin".into(),
            tokens: 3,
            sha256: "00".into(),
        });
        manifest.write(dir.path())?;
        assert_eq!(Manifest::read(dir.path())?, Some(manifest));
        Ok(())
    }

    #[test]
    fn a_broken_manifest_is_named() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join(MANIFEST_FILE), "{\"tokenizer\": ")?;
        let error = Manifest::read(dir.path()).unwrap_err();
        assert!(matches!(error, DataError::BadManifest { .. }), "{error}");
        assert!(error.to_string().contains(MANIFEST_FILE), "{error}");
        Ok(())
    }
}
