//! The constants of the formats and of GPT-2's vocabulary, and what file names and tokens tell by themselves. Nothing here
//! reads or writes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The first number of a shard (llm.c, `dataloader.h`).
pub const SHARD_MAGIC: i32 = 20_240_520;
/// The only version of it.
pub const SHARD_VERSION: i32 = 1;
/// The first number of llm.c's Llama 3 shards, whose tokens have 32 bits. They are recognised to be refused.
pub const LLAMA3_MAGIC: i32 = 20_240_801;
/// Size of a shard's header.
pub const HEADER_BYTES: usize = 256 * 4;
/// The most tokens a shard can hold: the header counts in an i32.
pub const MAX_SHARD_TOKENS: u64 = i32::MAX as u64;

/// The token before each document, written `<|endoftext|>`.
pub const END_OF_TEXT: u16 = 50_256;
/// How that token is written.
pub const END_OF_TEXT_STR: &str = "<|endoftext|>";
/// Number of tokens: 256 bytes, 50,000 merges, and [`END_OF_TEXT`].
pub const VOCAB_SIZE: usize = 50_257;
/// The tokenizer's name in manifests.
pub const TOKENIZER_NAME: &str = "gpt2";

/// The manifest's name within a prepared directory.
pub const MANIFEST_FILE: &str = "manifest.json";
/// What a preparation has finished, while it has not finished all.
pub(crate) const PROGRESS_FILE: &str = "progress.json";
/// Held by the one process that prepares into a directory.
pub(crate) const LOCK_FILE: &str = "prepare.lock";
/// nanoGPT's vocabulary of characters, which lies next to the tokens that were made with it.
pub(crate) const CHARACTER_VOCABULARY_FILE: &str = "meta.pkl";

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

/// Documents that begin in these tokens. Text never encodes to [`END_OF_TEXT`], so each of those stands for one.
pub(crate) fn documents(tokens: &[u16]) -> u64 {
    tokens.iter().filter(|&&token| token == END_OF_TEXT).count() as u64
}

/// The first token that GPT-2 does not have. The maximum of a block is a loop that the compiler vectorises, which a
/// search with early exit is not; so the search is left to the one block that needs it.
pub(crate) fn first_out_of_range(tokens: &[u16]) -> Option<(usize, u16)> {
    const BLOCK: usize = 1 << 14;
    let out_of_range = |token: u16| usize::from(token) >= VOCAB_SIZE;
    tokens.chunks(BLOCK).enumerate().find_map(|(block, chunk)| {
        let maximum = chunk.iter().fold(0, |maximum, &token| maximum.max(token));
        if !out_of_range(maximum) {
            return None;
        }
        let position = chunk.iter().position(|&token| out_of_range(token))?;
        Some((block * BLOCK + position, chunk[position]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_first_bad_token_is_found_in_any_block() {
        let mut tokens = vec![5u16; 100_000];
        assert_eq!(first_out_of_range(&tokens), None);
        tokens[70_001] = 60_000;
        tokens[99_999] = 50_257;
        assert_eq!(first_out_of_range(&tokens), Some((70_001, 60_000)));
    }
}
