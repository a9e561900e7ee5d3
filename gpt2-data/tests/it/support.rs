//! Text to prepare, and directories to compare.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use gpt2_data::{DataError, END_OF_TEXT, Manifest, PrepareOptions, Shard, Split, Tokenizer, prepare};

pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// Prose of about `bytes` bytes, different for each seed, with paragraphs and some words beyond ASCII.
pub(crate) fn prose(seed: u64, bytes: usize) -> String {
    const WORDS: [&str; 12] = [
        "the",
        "garden",
        "whose",
        "tide",
        "naïve",
        "42",
        "it's",
        "quietly",
        "ran",
        "of",
        "雨",
        "unbelievably",
    ];
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::new();
    while text.len() < bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.push_str(WORDS[(state >> 33) as usize % WORDS.len()]);
        text.push_str(match (state >> 50) % 40 {
            0 => ".\n\n",
            1 => ".\n",
            2 | 3 => ", ",
            _ => " ",
        });
    }
    text
}

/// Documents as JSON lines.
pub(crate) fn json_lines(documents: &[&str]) -> String {
    let mut lines = String::new();
    for document in documents {
        writeln!(lines, "{}", serde_json::json!({ "id": 1, "text": document })).expect("writing to memory");
    }
    lines
}

/// What documents must be encoded to.
pub(crate) fn stream_of(documents: &[&str]) -> Vec<u16> {
    let tokenizer = Tokenizer::gpt2();
    documents
        .iter()
        .flat_map(|document| [vec![END_OF_TEXT], tokenizer.encode(document)].concat())
        .collect()
}

/// Prepares without looking at the events.
pub(crate) fn run(options: &PrepareOptions) -> Result<Manifest, DataError> {
    prepare(options, &|_| {})
}

/// The tokens of a split, its shards joined.
pub(crate) fn tokens(dir: &Path, manifest: &Manifest, split: Split) -> Result<Vec<u16>, DataError> {
    let mut tokens = Vec::new();
    for entry in &manifest.split(split).shards {
        tokens.extend(Shard::open(dir.join(&entry.file))?.tokens()?);
    }
    Ok(tokens)
}

/// A directory's files and their content.
pub(crate) fn contents(dir: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>, std::io::Error> {
    fs::read_dir(dir)?
        .map(|entry| {
            let path = entry?.path();
            let name = path.strip_prefix(dir).map_or_else(|_| path.clone(), Path::to_path_buf);
            Ok((name, fs::read(&path)?))
        })
        .collect()
}
