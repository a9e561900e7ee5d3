//! `manifest.json`: what a prepared directory holds, where it came from, and the hashes that prove it.
//!
//! Reading and writing only. Comparing a directory with its manifest is `inspect`'s work.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::tokenizer::TOKENIZER_NAME;
use crate::{DataError, atomic};

/// The manifest's name within a prepared directory.
pub const MANIFEST_FILE: &str = "manifest.json";

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
    /// The path as it was found.
    pub path: PathBuf,
    /// Size on disk.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

/// A part of the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Trained on.
    Train,
    /// Held out.
    Val,
}

impl Split {
    /// Both, in the order of reports.
    pub const ALL: [Self; 2] = [Self::Train, Self::Val];

    /// The split's name in file names and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
        }
    }

    /// The split that a shard's file name tells: `fineweb_val_000000.bin`, `train.bin`. It must be a word of its own,
    /// so that `training_notes_val.bin` is validation and `interval.bin` is neither.
    pub fn of_file_name(name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".bin")?;
        let mut words = stem.split(|c: char| !c.is_ascii_alphanumeric());
        words.find_map(|word| Self::ALL.into_iter().find(|split| split.name() == word))
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
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
pub fn sha256_file(path: &Path) -> Result<String, DataError> {
    let mut file = File::open(path).map_err(DataError::io("open", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(DataError::io("read", path))?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    Ok(hexadecimal(&hasher.finalize()))
}

/// A digest as text.
pub(crate) fn hexadecimal(digest: &[u8]) -> String {
    digest
        .iter()
        .fold(String::with_capacity(2 * digest.len()), |text, byte| {
            text + &format!("{byte:02x}")
        })
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
    atomic::write(path, &bytes)
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

    /// The hash of the empty string and of "abc", from FIPS 180-2.
    #[test]
    fn hashes_are_sha256() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("abc");
        fs::write(&path, "")?;
        assert!(sha256_file(&path)?.starts_with("e3b0c44298fc1c14"));
        fs::write(&path, "abc")?;
        assert_eq!(
            sha256_file(&path)?,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        Ok(())
    }

    #[test]
    fn file_names_tell_the_split() {
        for (name, split) in [
            ("fineweb_val_000000.bin", Some(Split::Val)),
            ("tokens_train_000012.bin", Some(Split::Train)),
            ("val.bin", Some(Split::Val)),
            ("train.bin", Some(Split::Train)),
            ("interval.bin", None),
            ("train.txt", None),
            ("notes.bin", None),
        ] {
            assert_eq!(Split::of_file_name(name), split, "{name}");
        }
    }
}
