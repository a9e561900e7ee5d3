//! The words that a thread met last, with their tokens.

use std::hash::BuildHasher;

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::merge::MergeBuffers;
use super::window::Key;

/// Sets of short words that are kept, in 4 MiB: fewer are slower, although they stay in a core's second cache.
const SETS: usize = 1 << 16;
/// Tokens of a short word that is kept.
const MAX_TOKENS: usize = 7;
/// The longest word that is kept.
const MAX_LONG: usize = 256;
/// Long words that are kept: some 3 MB at the most.
const LONG_WORDS: usize = 1 << 12;

/// Two words in a cache line.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Set([Entry; 2]);

/// A short word and its tokens.
#[derive(Clone, Copy, Default)]
struct Entry {
    /// No word has the key 0.
    key: Key,
    tokens: [u16; MAX_TOKENS],
    count: u16,
}

/// Words with their tokens, in bounded memory.
#[derive(Clone)]
pub(crate) struct WordCache {
    /// Of the words of a set the last two are kept, the last first.
    short: Vec<Set>,
    /// Emptied when it is full.
    long: FxHashMap<Box<[u8]>, Box<[u16]>>,
    pub(super) buffers: MergeBuffers,
}

impl Default for WordCache {
    fn default() -> Self {
        Self {
            short: vec![Set::default(); SETS],
            long: FxHashMap::default(),
            buffers: MergeBuffers::default(),
        }
    }
}

impl WordCache {
    /// Appends the tokens of a short word, where they are known.
    #[inline]
    pub(super) fn append_short(&mut self, key: Key, tokens: &mut Vec<u16>) -> bool {
        let Set(entries) = &mut self.short[set(key)];
        if entries[0].key != key {
            if entries[1].key != key {
                return false;
            }
            entries.swap(0, 1);
        }
        // All places are copied, as a copy of some needs a branch that cannot be predicted.
        let end = tokens.len() + usize::from(entries[0].count);
        tokens.extend_from_slice(&entries[0].tokens);
        tokens.truncate(end);
        true
    }

    pub(super) fn keep_short(&mut self, key: Key, word_tokens: &[u16]) {
        let mut tokens = [0; MAX_TOKENS];
        if let Some(kept) = tokens.get_mut(..word_tokens.len()) {
            kept.copy_from_slice(word_tokens);
            let count = word_tokens.len() as u16;
            let Set(entries) = &mut self.short[set(key)];
            *entries = [Entry { key, tokens, count }, entries[0]];
        }
    }

    pub(super) fn long(&self, word: &[u8]) -> Option<&[u16]> {
        self.long.get(word).map(|tokens| &**tokens)
    }

    pub(super) fn keep_long(&mut self, word: &[u8], tokens: &[u16]) {
        if word.len() <= MAX_LONG {
            if self.long.len() == LONG_WORDS {
                self.long.clear();
            }
            self.long.insert(word.into(), tokens.into());
        }
    }
}

#[inline]
fn set(key: Key) -> usize {
    FxBuildHasher.hash_one(key) as usize % SETS
}
