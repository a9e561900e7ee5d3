//! GPT-2's pre-tokenizer: where text is split into words, within which bytes are merged. OpenAI's `encoder.py` has it as
//!
//! ```text
//! '(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//! ```
//!
//! A regular expression took most of the time of encoding. Here each alternative is a loop.

use super::classes::{Class, Classes};
use super::window::{WINDOW, Window};

/// Where the word ends that begins at `start`, which is not the end of the text. `window` is that of the text there.
#[inline]
pub(super) fn word_end(text: &str, start: usize, window: Window, classes: &Classes) -> usize {
    let bytes = text.as_bytes();
    // ` ?\p{L}+` where all letters are ASCII: most words of most texts.
    let letters = window.letters();
    let end = start + letters;
    let has_letter = letters > usize::from(bytes[start] == b' ');
    if has_letter && letters < WINDOW && bytes.get(end).is_none_or(u8::is_ascii) {
        return end;
    }
    other_word_end(text, start, classes)
}

/// [`word_end`] of any word. Apart from the loop over words, so that what the loop needs stays in registers.
#[inline(never)]
fn other_word_end(text: &str, start: usize, classes: &Classes) -> usize {
    let bytes = text.as_bytes();
    let after_space = start + usize::from(bytes[start] == b' ');
    let Some((class, len)) = classes.at(text, after_space) else {
        // A space is the end of the text.
        return after_space;
    };
    if class == Class::Space {
        return white_space_end(text, start, classes);
    }
    if bytes[start] == b'\''
        && let Some(length) = contraction(&bytes[start + 1..])
    {
        return start + 1 + length;
    }
    let mut end = after_space + len;
    while let Some((next, len)) = classes.at(text, end)
        && next == class
    {
        end += len;
    }
    end
}

/// `\s+(?!\S)|\s+`: white space leaves its last character to the word that follows, unless it has no other.
fn white_space_end(text: &str, start: usize, classes: &Classes) -> usize {
    let mut last = start;
    let mut end = start;
    while let Some((class, len)) = classes.at(text, end) {
        if class != Class::Space {
            return if last > start { last } else { end };
        }
        last = end;
        end += len;
    }
    end
}

/// Length of `[sdmt]|ll|ve|re` at the beginning of what follows an apostrophe.
fn contraction(rest: &[u8]) -> Option<usize> {
    match rest {
        [b's' | b'd' | b'm' | b't', ..] => Some(1),
        [b'l', b'l', ..] | [b'v' | b'r', b'e', ..] => Some(2),
        _ => None,
    }
}
