//! Merging the bytes of a word into tokens, as training made them: the pair of the lowest rank first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::pairs::{NONE, Pairs};
use super::window::WINDOW;
use crate::format::END_OF_TEXT;

/// Up to so many bytes, going through all pairs for each merge is faster than a heap of them.
const MAX_SCANNED: usize = PLACES - 2;
/// Bits of the set of places, of which two are before and after the word.
const PLACES: usize = 64;

/// The merges. A token's number is the rank of the merge that makes it.
pub(super) struct Merges {
    /// The token of each byte.
    bytes: [u16; 256],
    /// What two bytes are merged into, by their values.
    byte_pairs: Vec<u16>,
    /// What two tokens are merged into: for each token the two that the merges before it leave of its bytes. No other
    /// pair of tokens with these bytes can meet: merges within some bytes take the same order whatever lies around them.
    pairs: Pairs,
    /// Whether two bytes follow each other in any token.
    is_joined: Vec<bool>,
}

/// Memory for merging, kept from word to word.
#[derive(Clone, Default)]
pub(super) struct MergeBuffers {
    tokens: Vec<u16>,
    ranks: Vec<u16>,
}

impl Merges {
    /// The merges of a vocabulary, by the bytes of its tokens.
    pub(super) fn new<'a>(token_bytes: impl Fn(u16) -> &'a [u8]) -> Self {
        let mut merges = Self {
            bytes: [NONE; 256],
            byte_pairs: vec![NONE; 1 << 16],
            pairs: Pairs::new(),
            is_joined: vec![false; 1 << 16],
        };
        for token in 0..END_OF_TEXT {
            let bytes = token_bytes(token);
            for pair in bytes.windows(2) {
                merges.is_joined[pair_index(pair[0], pair[1])] = true;
            }
            match *bytes {
                [byte] => merges.bytes[usize::from(byte)] = token,
                [first, second] => merges.byte_pairs[pair_index(first, second)] = token,
                _ => {}
            }
        }
        let mut buffers = MergeBuffers::default();
        for token in 0..END_OF_TEXT {
            match *merges.merge(token_bytes(token), &mut buffers) {
                // One or two bytes.
                [_] => {}
                [left, right] => merges.pairs.insert(left, right, token),
                _ => unreachable!("every token is made by merges before it"),
            }
        }
        merges
    }

    /// Length of the first piece of `word` that merges alone: up to two bytes that are in no token one after the other.
    pub(super) fn piece_len(&self, word: &[u8]) -> usize {
        let cut = word
            .windows(2)
            .position(|pair| !self.is_joined[pair_index(pair[0], pair[1])]);
        cut.map_or(word.len(), |cut| cut + 1)
    }

    /// The tokens of a word.
    pub(super) fn merge<'a>(&self, word: &[u8], buffers: &'a mut MergeBuffers) -> &'a [u16] {
        let MergeBuffers { tokens, ranks } = buffers;
        // Of most words there are few pairs to look at.
        if word.len() < WINDOW {
            self.merge_by_scanning::<WINDOW>(word, tokens);
            return tokens;
        }
        if word.len() <= MAX_SCANNED {
            self.merge_by_scanning::<PLACES>(word, tokens);
            return tokens;
        }
        tokens.clear();
        tokens.extend(word.iter().map(|&byte| self.bytes[usize::from(byte)]));
        ranks.clear();
        ranks.extend(
            word.windows(2)
                .map(|pair| self.byte_pairs[pair_index(pair[0], pair[1])]),
        );
        self.merge_by_heap(tokens, ranks);
        tokens
    }

    /// Merges fewer than `N` bytes: looks at all pairs for the next. Without branches but for its end, as none of them
    /// could be predicted.
    fn merge_by_scanning<const N: usize>(&self, word: &[u8], merged: &mut Vec<u16>) {
        // The tokens by the places of their first bytes, from 1 on. At both ends stands one that merges with none.
        let mut tokens = [NONE; PLACES];
        // Rank and place of the pair that begins with each token: the least is the next, of equal ranks the first.
        let mut pairs = [u32::MAX; N];
        let pair = |rank: u16, place: usize| u32::from(rank) << 16 | place as u32;
        for (token, &byte) in tokens[1..].iter_mut().zip(word) {
            *token = self.bytes[usize::from(byte)];
        }
        for (i, bytes) in word.windows(2).enumerate() {
            pairs[i + 1] = pair(self.byte_pairs[pair_index(bytes[0], bytes[1])], i + 1);
        }
        // The places that have a token, as bits.
        let mut places = u64::MAX >> (MAX_SCANNED - word.len());
        loop {
            let next = pairs.iter().copied().fold(u32::MAX, u32::min);
            let (token, place) = ((next >> 16) as u16, (next & 0xffff) as usize);
            if token == NONE {
                break;
            }
            let after = |places: u64| place + 1 + (places >> (place + 1)).trailing_zeros() as usize;
            let gone = after(places);
            places &= !(1 << gone);
            let right = after(places);
            let left = (places & ((1 << place) - 1)).ilog2() as usize;
            tokens[place] = token;
            pairs[gone] = u32::MAX;
            pairs[place] = pair(self.pairs.get(token, tokens[right]), place);
            pairs[left] = pair(self.pairs.get(tokens[left], token), left);
        }
        let mut count = 0;
        for place in 1..=word.len() {
            tokens[count] = tokens[place];
            count += (places >> place & 1) as usize;
        }
        merged.clear();
        merged.extend_from_slice(&tokens[..count]);
    }

    /// The same in a time that grows hardly faster than the word, which may be a whole file.
    fn merge_by_heap(&self, tokens: &mut Vec<u16>, ranks: &mut Vec<u16>) {
        let count = tokens.len();
        // A token stands where its first byte stood. Those that went into others are left out by these links.
        let mut next: Vec<usize> = (1..=count).collect();
        let mut previous: Vec<usize> = (0..count).map(|i| i.wrapping_sub(1)).collect();
        ranks.push(NONE);
        let mut heap: BinaryHeap<Reverse<(u16, usize)>> = (0..count)
            .filter(|&i| ranks[i] != NONE)
            .map(|i| Reverse((ranks[i], i)))
            .collect();
        while let Some(Reverse((rank, i))) = heap.pop() {
            // A pair that is no more, as one of its tokens was merged with another.
            if ranks[i] != rank {
                continue;
            }
            let gone = next[i];
            tokens[i] = rank;
            ranks[gone] = NONE;
            next[i] = next[gone];
            ranks[i] = NONE;
            if next[i] < count {
                previous[next[i]] = i;
                ranks[i] = self.pairs.get(rank, tokens[next[i]]);
            }
            if i > 0 {
                ranks[previous[i]] = self.pairs.get(tokens[previous[i]], rank);
            }
            for pair in [i, previous[i]] {
                if pair < count && ranks[pair] != NONE {
                    heap.push(Reverse((ranks[pair], pair)));
                }
            }
        }
        let mut i = 0;
        let mut kept = 0;
        while i < count {
            tokens[kept] = tokens[i];
            kept += 1;
            i = next[i];
        }
        tokens.truncate(kept);
    }
}

#[inline]
fn pair_index(first: u8, second: u8) -> usize {
    usize::from(u16::from_be_bytes([first, second]))
}
