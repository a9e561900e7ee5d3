//! How much of the token stream is still validation data.

use serde::{Deserialize, Serialize};

use crate::format::{END_OF_TEXT, documents};
use crate::tokenizer::Tokenizer;

/// What is left to hold out, in one of three measures. All work on the finished stream of tokens, so that they need to
/// know nothing of files, documents' lengths or batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ValLimit {
    /// So many tokens.
    Tokens(u64),
    /// So many documents, counted by the `<|endoftext|>` before each.
    Documents(u64),
    /// Tokens until they hold so many bytes of text.
    TextBytes(u64),
}

impl ValLimit {
    /// How many of these tokens, the next in the stream, are validation data. If not all, the limit is reached.
    pub(super) fn take(self, tokens: &[u16]) -> usize {
        match self {
            Self::Tokens(left) => usize::try_from(left).map_or(tokens.len(), |left| left.min(tokens.len())),
            Self::Documents(left) => {
                let mut starts = tokens.iter().enumerate().filter(|&(_, &token)| token == END_OF_TEXT);
                let beyond = usize::try_from(left).ok().and_then(|left| starts.nth(left));
                beyond.map_or(tokens.len(), |(position, _)| position)
            }
            Self::TextBytes(left) => {
                let mut sum = 0;
                let enough = tokens.iter().position(|&token| {
                    let reached = sum >= left;
                    sum += text_bytes(token);
                    reached
                });
                enough.unwrap_or(tokens.len())
            }
        }
    }

    /// The limit after these tokens, which must not be more than [`ValLimit::take`] allowed.
    pub(super) fn after(self, tokens: &[u16]) -> Self {
        match self {
            Self::Tokens(left) => Self::Tokens(left.saturating_sub(tokens.len() as u64)),
            Self::Documents(left) => Self::Documents(left.saturating_sub(documents(tokens))),
            Self::TextBytes(left) => {
                Self::TextBytes(left.saturating_sub(tokens.iter().map(|&token| text_bytes(token)).sum()))
            }
        }
    }
}

/// How much text a token stands for. `<|endoftext|>` is none of it.
fn text_bytes(token: u16) -> u64 {
    if token == END_OF_TEXT {
        0
    } else {
        Tokenizer::gpt2().token_bytes(token).len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EOT: u16 = END_OF_TEXT;

    /// What is taken when the stream comes in pieces of `size` tokens.
    fn taken(mut limit: ValLimit, stream: &[u16], size: usize) -> usize {
        let mut total = 0;
        for piece in stream.chunks(size) {
            let count = limit.take(piece);
            total += count;
            limit = limit.after(&piece[..count]);
            if count < piece.len() {
                break;
            }
        }
        total
    }

    #[test]
    fn limits_do_not_depend_on_the_pieces() {
        // "Hello" and " world" are five and six bytes.
        let stream = [EOT, 15496, 995, EOT, 15496, EOT, 995, 995];
        for (limit, expected) in [
            (ValLimit::Tokens(2), 2),
            (ValLimit::Tokens(99), 8),
            (ValLimit::Documents(1), 3),
            (ValLimit::Documents(2), 5),
            (ValLimit::Documents(3), 8),
            (ValLimit::TextBytes(5), 2),
            (ValLimit::TextBytes(6), 3),
            (ValLimit::TextBytes(12), 5),
            (ValLimit::TextBytes(99), 8),
        ] {
            for size in 1..=8 {
                assert_eq!(taken(limit, &stream, size), expected, "{limit:?} in pieces of {size}");
            }
        }
    }
}
