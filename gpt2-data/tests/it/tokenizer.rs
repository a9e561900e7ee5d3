//! Tokens are those of a second implementation, of every character and of random text.

use gpt2_data::{SplitMix64, Tokenizer};

/// Random strings; `GPT2_STRINGS` sets another number.
const STRINGS: u64 = 20_000;

#[track_caller]
fn assert_same_tokens(text: &str) {
    let expected = tiktoken_rs::r50k_base_singleton().encode_ordinary(text);
    let tokens = Tokenizer::gpt2().encode(text);
    assert!(
        tokens
            .iter()
            .map(|&token| u32::from(token))
            .eq(expected.iter().copied()),
        "{text:?}: {tokens:?}, expected {expected:?}"
    );
}

/// Alone, after a space, within a word, before a space, after a digit, before a line end.
#[test]
fn every_character_in_every_place() {
    for c in char::MIN..=char::MAX {
        for text in [
            format!("{c}"),
            format!(" {c}"),
            format!("a{c}"),
            format!("{c} a"),
            format!("1{c}"),
            format!("{c}\n"),
        ] {
            assert_same_tokens(&text);
        }
    }
}

#[test]
fn random_text() {
    let count = std::env::var("GPT2_STRINGS").map_or(STRINGS, |count| count.parse().unwrap());
    let mut rng = Random(SplitMix64::new(1));
    let mut text = String::new();
    for _ in 0..count {
        text.clear();
        for _ in 0..rng.0.below(12) {
            rng.append_part(&mut text);
        }
        assert_same_tokens(&text);
    }
}

/// Words longer than those that are kept, and than those whose pairs are all looked at for each merge.
#[test]
fn long_words() {
    let mut rng = Random(SplitMix64::new(2));
    for len in [15, 16, 61, 62, 63, 64, 255, 256, 257, 1_000, 10_000] {
        for part in [
            "a", " ", "-", "0", "é", "中", "ab", "the", "=-", "\r\n", "кот", "안녕", "\u{301}",
        ] {
            let text: String = part.chars().cycle().take(len).collect();
            assert_same_tokens(&text);
            assert_same_tokens(&format!("x {text}."));
        }
        for _ in 0..20 {
            let word: String = (0..len).map(|_| rng.of(LETTERS)).collect();
            assert_same_tokens(&word);
        }
    }
}

const LETTERS: &[char] = &[
    'e', 't', 'a', 'o', 'i', 'n', 's', 'r', 'h', 'l', 'd', 'c', 'u', 'm', 'E', 'T', 'A', 'S', 'x', 'q',
];
/// What the pattern treats in a way of its own.
const MARKS: &[char] = &[
    '\'', ' ', ' ', '\n', '.', ',', '-', '_', '"', '(', '’', 's', 't', 'l', 'v', 'e', 'r', 'd', 'm', 'S', '1', 'é',
];
/// White space of all kinds, and what resembles it.
const BLANKS: &[char] = &[
    ' ', ' ', ' ', '\n', '\n', '\t', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{85}', '\u{a0}', '\u{1680}', '\u{2003}',
    '\u{200b}', '\u{2028}', '\u{2029}', '\u{202f}', '\u{205f}', '\u{3000}', '\u{feff}', '\0',
];
/// Numbers of other scripts, and numbers that are no digits.
const NUMBERS: &[char] = &[
    '0', '7', '٣', '۴', '५', '৬', '๗', '８', '²', '½', 'Ⅷ', '〇', '㉈', '𝟗', '𒐕', '一',
];
/// The first and the last of blocks: Latin, Greek, Cyrillic, Hebrew, Arabic, Devanagari, Thai, Georgian, kana, Han,
/// Hangul, and those of combining marks, symbols and emoji.
const BLOCKS: &[(u32, u32)] = &[
    (0xA0, 0x24F),
    (0x300, 0x36F),
    (0x370, 0x3FF),
    (0x400, 0x52F),
    (0x591, 0x5F4),
    (0x600, 0x6FF),
    (0x900, 0x97F),
    (0xE00, 0xE5B),
    (0x10A0, 0x10FF),
    (0x2000, 0x22FF),
    (0x3000, 0x30FF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0xFE00, 0xFFEF),
    (0x1F300, 0x1FAFF),
];

struct Random(SplitMix64);

impl Random {
    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.0.below(values.len() as u64) as usize]
    }

    /// A character of some range.
    fn between(&mut self, first: u32, last: u32) -> char {
        let code = first + self.0.below(u64::from(last - first) + 1) as u32;
        char::from_u32(code).unwrap_or('\u{FFFD}')
    }

    fn append_part(&mut self, text: &mut String) {
        let count = match self.0.below(40) {
            0 => self.0.below(300),
            _ => 1 + self.0.below(8),
        };
        match self.0.below(12) {
            0 => text.extend((0..count).map(|_| self.between(0, 0x10_FFFF))),
            1 => text.extend((0..count).map(|_| self.between(0, 0x7F))),
            2 | 3 => text.extend((0..count).map(|_| self.of(MARKS))),
            4 => text.extend((0..count).map(|_| self.of(BLANKS))),
            5 => text.extend((0..count).map(|_| self.of(NUMBERS))),
            6 => text.push_str(self.of(&[
                "'s",
                "'t",
                "'ll",
                "'ve",
                "'re",
                "'LL",
                "'l",
                "' s",
                "''s",
                "<|endoftext|>",
            ])),
            7 | 8 => text.extend((0..count).map(|_| self.of(LETTERS))),
            9 => {
                let (first, last) = self.of(BLOCKS);
                text.extend((0..count).map(|_| self.between(first, last)));
            }
            10 => {
                // A token of the vocabulary, whose bytes may be no text.
                let token = self.0.below(50_256) as u16;
                text.push_str(&Tokenizer::gpt2().decode(&[token]));
            }
            _ => {
                let (first, last) = self.of(BLOCKS);
                let repeated = self.between(first, last);
                text.extend((0..count).map(|_| repeated));
            }
        }
    }
}
