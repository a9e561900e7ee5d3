//! GPT-2's byte-pair encoding, embedded: text to tokens and back.
//!
//! The vocabulary comes from the `tiktoken` crate; [`bpe`](crate::bpe) encodes. Here are the decoders, and the tests that
//! hold all of it to a second implementation. Cutting long texts for parallel encoding is `prepare`'s work.

use std::cell::RefCell;
use std::sync::OnceLock;

use thread_local::ThreadLocal;
use tiktoken::encoding::r50k_base;

use crate::bpe::{Bpe, WordCache};
use crate::format::{END_OF_TEXT, END_OF_TEXT_STR, TOKENIZER_NAME, VOCAB_SIZE};

/// GPT-2's tokenizer.
///
/// ```
/// use gpt2_data::Tokenizer;
///
/// let tokenizer = Tokenizer::gpt2();
/// let tokens = tokenizer.encode("Hello world");
/// assert_eq!(tokens, [15496, 995]);
/// assert_eq!(tokenizer.decode(&tokens), "Hello world");
/// ```
pub struct Tokenizer {
    bpe: Bpe,
    /// The words that each thread met last: threads that shared them would wait for each other.
    caches: ThreadLocal<RefCell<WordCache>>,
    /// The bytes of all tokens one after the other. A flat table decodes without hashing or allocating.
    bytes: Vec<u8>,
    /// Token `t` is `bytes[starts[t]..starts[t + 1]]`.
    starts: Vec<u32>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("name", &TOKENIZER_NAME)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// The tokenizer, unpacked on first use and shared from then on.
    pub fn gpt2() -> &'static Self {
        static GPT2: OnceLock<Tokenizer> = OnceLock::new();
        GPT2.get_or_init(|| {
            // "r50k_base" is the later name of GPT-2's vocabulary.
            let vocabulary = r50k_base();
            let mut bytes = Vec::new();
            let mut starts = vec![0];
            for token in 0..VOCAB_SIZE as u32 {
                bytes.extend(vocabulary.decode(&[token]));
                starts.push(bytes.len() as u32);
            }
            let bpe = Bpe::new(|token| {
                let token = usize::from(token);
                &bytes[starts[token] as usize..starts[token + 1] as usize]
            });
            Self {
                bpe,
                caches: ThreadLocal::new(),
                bytes,
                starts,
            }
        })
    }

    /// Encodes text as text: `<|endoftext|>` in it becomes the seven tokens of its letters, never [`END_OF_TEXT`](crate::END_OF_TEXT), so
    /// that no document can forge the end of another.
    pub fn encode(&self, text: &str) -> Vec<u16> {
        let mut tokens = Vec::new();
        self.encode_into(text, &mut tokens);
        tokens
    }

    /// Encodes text in which `<|endoftext|>` stands for [`END_OF_TEXT`](crate::END_OF_TEXT), as a prompt may want.
    pub fn encode_with_special(&self, text: &str) -> Vec<u16> {
        let mut tokens = Vec::new();
        for (i, part) in text.split(END_OF_TEXT_STR).enumerate() {
            if i > 0 {
                tokens.push(END_OF_TEXT);
            }
            self.encode_into(part, &mut tokens);
        }
        tokens
    }

    /// The text of the tokens. Bytes that are not UTF-8, as when tokens begin or end within a character, become `�`,
    /// and so does a token beyond the vocabulary.
    pub fn decode(&self, tokens: &[u16]) -> String {
        String::from_utf8_lossy(&self.decode_bytes(tokens)).into_owned()
    }

    /// The exact bytes of the tokens. A token beyond the vocabulary gives the three bytes of `�`.
    pub fn decode_bytes(&self, tokens: &[u16]) -> Vec<u8> {
        tokens
            .iter()
            .flat_map(|&token| self.token_bytes(token))
            .copied()
            .collect()
    }

    /// Bytes of the text that tokens stand for. The end of a document has none of its own, and what is no token has none.
    pub fn text_bytes<'a>(&self, tokens: impl IntoIterator<Item = &'a i32>) -> usize {
        let tokens = tokens.into_iter().filter_map(|&token| u16::try_from(token).ok());
        tokens
            .filter(|&token| token != END_OF_TEXT)
            .map(|token| self.token_bytes(token).len())
            .sum()
    }

    /// The bytes of one token.
    pub fn token_bytes(&self, token: u16) -> &[u8] {
        let token = usize::from(token);
        match (self.starts.get(token), self.starts.get(token + 1)) {
            (Some(&start), Some(&end)) => &self.bytes[start as usize..end as usize],
            _ => "\u{FFFD}".as_bytes(),
        }
    }

    /// Appends the tokens of text as text.
    fn encode_into(&self, text: &str, tokens: &mut Vec<u16>) {
        let cache = self.caches.get_or(|| RefCell::new(self.bpe.new_cache()));
        self.bpe.encode(text, &mut cache.borrow_mut(), tokens);
    }
}

/// Decodes tokens one by one as they are sampled.
///
/// A character may be spread over several tokens (an emoji is often three), so the bytes of an unfinished one are held
/// back until it is complete. What `push` and `finish` return, joined, is what [`Tokenizer::decode`] gives at once.
#[derive(Debug)]
pub struct StreamDecoder {
    tokenizer: &'static Tokenizer,
    pending: Vec<u8>,
}

impl Default for StreamDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamDecoder {
    /// A decoder that holds nothing yet.
    pub fn new() -> Self {
        Self {
            tokenizer: Tokenizer::gpt2(),
            pending: Vec::new(),
        }
    }

    /// Takes a token and returns the text that is now complete, which may be none.
    pub fn push(&mut self, token: u16) -> String {
        self.pending.extend_from_slice(self.tokenizer.token_bytes(token));
        let held_back = unfinished_suffix(&self.pending);
        let complete = self.pending.len() - held_back;
        let text = String::from_utf8_lossy(&self.pending[..complete]).into_owned();
        self.pending.drain(..complete);
        text
    }

    /// Ends the text. A character left unfinished becomes `�`.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// How many bytes at the end may still become a character.
fn unfinished_suffix(bytes: &[u8]) -> usize {
    let last_chunk = bytes.utf8_chunks().last();
    let invalid = last_chunk.map_or(&[][..], |chunk| chunk.invalid());
    // An invalid sequence at the very end is unfinished if only more bytes are missing.
    match std::str::from_utf8(invalid) {
        Err(error) if error.error_len().is_none() => invalid.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Encodings published with GPT-2 and in the documentation of transformers and tiktoken.
    #[test]
    fn known_encodings() {
        let tokenizer = Tokenizer::gpt2();
        for (text, tokens) in [
            ("", vec![]),
            ("Hello, world!", vec![15496, 11, 995, 0]),
            ("hello world", vec![31373, 995]),
            (
                "Hello, I'm a language model,",
                vec![15496, 11, 314, 1101, 257, 3303, 2746, 11],
            ),
            ("\n\n", vec![628]),
            ("\n\n\nA", vec![628, 198, 32]),
        ] {
            assert_eq!(tokenizer.encode(text), tokens, "{text:?}");
        }
    }

    #[test]
    fn special_text_is_special_only_on_request() {
        let tokenizer = Tokenizer::gpt2();
        let text = "a<|endoftext|>b";
        let plain = tokenizer.encode(text);
        assert!(!plain.contains(&END_OF_TEXT));
        assert_eq!(tokenizer.decode(&plain), text);
        assert_eq!(tokenizer.encode_with_special(text), [64, END_OF_TEXT, 65]);
        assert_eq!(tokenizer.decode(&[END_OF_TEXT]), END_OF_TEXT_STR);
    }

    #[test]
    fn every_token_decodes_and_none_beyond() {
        let tokenizer = Tokenizer::gpt2();
        let empty = (0..VOCAB_SIZE as u16).find(|&token| tokenizer.token_bytes(token).is_empty());
        assert_eq!(empty, None);
        assert_eq!(tokenizer.decode(&[50_257, u16::MAX]), "\u{FFFD}\u{FFFD}");
    }

    #[test]
    fn a_stream_holds_back_unfinished_characters() {
        let tokens = Tokenizer::gpt2().encode("🦀");
        assert!(tokens.len() > 1);
        let mut decoder = StreamDecoder::new();
        let (last, first) = tokens.split_last().expect("tokens");
        for &token in first {
            assert_eq!(decoder.push(token), "");
        }
        assert_eq!(decoder.push(*last), "🦀");
        decoder.push(first[0]);
        assert_eq!(decoder.finish(), "\u{FFFD}");
    }

    /// Text of the sort that splits pre-tokenisers: runs of blanks, contractions, digits, other scripts, marks.
    fn awkward_text() -> impl Strategy<Value = String> {
        let atoms = prop::sample::select(vec![
            " ",
            "  ",
            "\n",
            "\n\n",
            "\t",
            "\r\n",
            "'s",
            "'LL",
            "'",
            "ve",
            "abc",
            "É",
            "é",
            "中文",
            "9",
            "١",
            "Ⅳ",
            "-",
            "<|endoftext|>",
            "😀",
            "\u{301}",
            "\u{a0}",
            "\u{3000}",
            "\u{85}",
            "\u{2028}",
            "\u{200b}",
            "\u{1c}",
            "\0",
            "ß",
            "_",
        ]);
        prop::collection::vec(
            prop_oneof![4 => atoms.prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)],
            0..40,
        )
        .prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn agrees_with_another_implementation(text in awkward_text()) {
            let other: Vec<u32> = tiktoken_rs::r50k_base_singleton().encode_ordinary(&text);
            let tokens = Tokenizer::gpt2().encode(&text);
            prop_assert_eq!(tokens.into_iter().map(u32::from).collect::<Vec<_>>(), other);
        }

        #[test]
        fn decoding_undoes_encoding(text in awkward_text()) {
            let tokenizer = Tokenizer::gpt2();
            prop_assert_eq!(tokenizer.decode(&tokenizer.encode(&text)), text);
        }

        #[test]
        fn streaming_equals_decoding_at_once(tokens in prop::collection::vec(prop_oneof![0u16..256, 0u16..51_000], 0..50)) {
            let mut decoder = StreamDecoder::new();
            let mut text: String = tokens.iter().map(|&token| decoder.push(token)).collect();
            text.push_str(&decoder.finish());
            prop_assert_eq!(text, Tokenizer::gpt2().decode(&tokens));
        }
    }
}
