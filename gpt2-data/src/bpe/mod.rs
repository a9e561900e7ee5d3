//! Byte-pair encoding of text: split into words, look each up, merge those that are new.
//!
//! A thread looks words up in a cache of its own, which begins with those that are tokens, by their bytes in one integer.
//! Few words are longer than that. What the cache does not have is merged, and kept there.

mod cache;
mod classes;
mod merge;
mod pairs;
mod split;
mod window;

pub(crate) use cache::WordCache;
use classes::Classes;
use merge::Merges;
use split::word_end;
use window::{Key, MAX_SHORT, Window};

use crate::format::END_OF_TEXT;

/// GPT-2's vocabulary and pattern, ready to encode.
pub(crate) struct Bpe {
    classes: Classes,
    merges: Merges,
    /// What a thread begins with: the words that are tokens.
    cache: WordCache,
}

impl Bpe {
    /// The encoder of a vocabulary, by the bytes of its tokens.
    pub(crate) fn new<'a>(token_bytes: impl Fn(u16) -> &'a [u8]) -> Self {
        let mut cache = WordCache::default();
        // The most frequent last, so that they stay.
        for token in (0..END_OF_TEXT).rev() {
            let word = token_bytes(token);
            if word.len() <= MAX_SHORT {
                cache.keep_short(whole_key(word), &[token]);
            }
        }
        Self {
            classes: Classes::new(),
            merges: Merges::new(token_bytes),
            cache,
        }
    }

    /// A cache for a thread. It knows the words that are tokens.
    pub(crate) fn new_cache(&self) -> WordCache {
        self.cache.clone()
    }

    /// Appends the tokens of `text`.
    pub(crate) fn encode(&self, text: &str, cache: &mut WordCache, tokens: &mut Vec<u16>) {
        let bytes = text.as_bytes();
        // What English takes, and most other texts exceed.
        tokens.reserve(bytes.len() / 4);
        let mut start = 0;
        while start < bytes.len() {
            let window = Window::at(bytes, start);
            let end = word_end(text, start, window, &self.classes);
            let len = end - start;
            if len > MAX_SHORT {
                self.encode_long(&bytes[start..end], cache, tokens);
            } else {
                let key = window.key(len);
                if !cache.append_short(key, tokens) {
                    self.encode_new(key, &bytes[start..end], cache, tokens);
                }
            }
            start = end;
        }
    }

    /// A short word that is not in the cache.
    #[inline(never)]
    fn encode_new(&self, key: Key, word: &[u8], cache: &mut WordCache, tokens: &mut Vec<u16>) {
        let mut buffers = std::mem::take(&mut cache.buffers);
        let merged = self.merges.merge(word, &mut buffers);
        cache.keep_short(key, merged);
        tokens.extend_from_slice(merged);
        cache.buffers = buffers;
    }

    /// A word that is too long for a key.
    #[inline(never)]
    fn encode_long(&self, word: &[u8], cache: &mut WordCache, tokens: &mut Vec<u16>) {
        let mut start = 0;
        while start < word.len() {
            let end = start + self.merges.piece_len(&word[start..]);
            let piece = &word[start..end];
            if piece.len() <= MAX_SHORT {
                let key = whole_key(piece);
                if !cache.append_short(key, tokens) {
                    self.encode_new(key, piece, cache, tokens);
                }
            } else {
                self.encode_long_piece(piece, cache, tokens);
            }
            start = end;
        }
    }

    fn encode_long_piece(&self, piece: &[u8], cache: &mut WordCache, tokens: &mut Vec<u16>) {
        if let Some(found) = cache.long(piece) {
            tokens.extend_from_slice(found);
            return;
        }
        let mut buffers = std::mem::take(&mut cache.buffers);
        let merged = self.merges.merge(piece, &mut buffers);
        cache.keep_long(piece, merged);
        tokens.extend_from_slice(merged);
        cache.buffers = buffers;
    }
}

/// The key of a whole word.
fn whole_key(word: &[u8]) -> Key {
    Window::at(word, 0).key(word.len())
}
