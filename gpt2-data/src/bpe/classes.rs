//! The classes of characters that GPT-2's pattern names: `\p{L}`, `\p{N}`, `\s`, and what is none of them.

use regex_syntax::hir::{self, HirKind};

/// What a character is to the pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// `[^\s\p{L}\p{N}]`
    Other,
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
}

/// Characters in a block. Most blocks are equal to one of some two hundred, so the classes of Unicode take 25 kB.
const BLOCK: usize = 128;

/// The class of every character, in two levels.
///
/// The ranges are those of `regex-syntax`, by which tiktoken's regular expressions know them: Unicode 16. The standard
/// library has others: its `char::is_alphabetic` is not `\p{L}`.
pub(super) struct Classes {
    /// Index of each block's classes in `blocks`.
    index: Vec<u8>,
    blocks: Vec<[Class; BLOCK]>,
    /// The first block.
    ascii: [Class; BLOCK],
}

impl Classes {
    pub(super) fn new() -> Self {
        let mut classes = vec![Class::Other; char::MAX as usize + 1];
        for (pattern, class) in [
            (r"\p{L}", Class::Letter),
            (r"\p{N}", Class::Number),
            (r"\s", Class::Space),
        ] {
            for (first, last) in ranges(pattern) {
                classes[first as usize..=last as usize].fill(class);
            }
        }
        let mut blocks: Vec<[Class; BLOCK]> = Vec::new();
        let mut index: Vec<u8> = Vec::new();
        for chunk in classes.as_chunks::<BLOCK>().0 {
            // Most are equal to the last.
            let last = index
                .last()
                .map(|&last| usize::from(last))
                .filter(|&last| blocks[last] == *chunk);
            let known = last.or_else(|| blocks.iter().position(|block| block == chunk));
            let position = known.unwrap_or(blocks.len());
            if position == blocks.len() {
                blocks.push(*chunk);
            }
            index.push(u8::try_from(position).expect("fewer than 256 blocks differ"));
        }
        Self {
            index,
            ascii: blocks[0],
            blocks,
        }
    }

    /// The class of the character at a place of the text, and its length, or nothing at the end.
    #[inline]
    pub(super) fn at(&self, text: &str, place: usize) -> Option<(Class, usize)> {
        let byte = *text.as_bytes().get(place)?;
        if byte.is_ascii() {
            return Some((self.ascii[usize::from(byte) % BLOCK], 1));
        }
        let character = text[place..].chars().next()?;
        Some((self.of(character), character.len_utf8()))
    }

    #[inline]
    fn of(&self, character: char) -> Class {
        let code = character as usize;
        self.blocks[usize::from(self.index[code / BLOCK])][code % BLOCK]
    }
}

/// The ranges of characters that a pattern of one class matches.
fn ranges(pattern: &str) -> Vec<(char, char)> {
    let parsed = regex_syntax::parse(pattern).expect("a pattern of our own");
    let HirKind::Class(hir::Class::Unicode(class)) = parsed.kind() else {
        unreachable!("{pattern} is a class of Unicode");
    };
    class
        .ranges()
        .iter()
        .map(|range| (range.start(), range.end()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens of shards and checkpoints depend on these classes: an update of Unicode's tables must not pass unnoticed.
    #[test]
    fn classes_are_those_of_unicode_16() {
        let classes = Classes::new();
        let count = |class: Class| {
            (char::MIN..=char::MAX)
                .filter(|&character| classes.of(character) == class)
                .count()
        };
        assert_eq!(
            [Class::Letter, Class::Number, Class::Space].map(count),
            [141_028, 1_911, 25]
        );
    }
}
