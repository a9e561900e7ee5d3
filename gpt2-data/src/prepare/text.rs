//! Plain text cut into segments that can be encoded apart, and into documents at blank lines.

use std::collections::VecDeque;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::encoding::{encoding_of, wide_encoding};
use super::options::SplitDocuments;
use super::segment::Segment;
use crate::error::DataError;

/// Text is cut into segments of about this size.
const SEGMENT_BYTES: usize = 1 << 20;
/// Text without a safe place to cut is gathered up to this size, then cut between any two characters. The tokens there
/// may then differ from those of the whole; but such text is no text: it is 16 MiB without a blank, or of only blanks.
const LIMIT_BYTES: usize = 16 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The segments of a text file.
pub(super) struct TextSegments<R> {
    path: PathBuf,
    input: R,
    split_documents: SplitDocuments,
    /// Read, but not yet handed on.
    buffer: Vec<u8>,
    /// Offset of `buffer` in the text, for errors.
    offset: u64,
    /// How much to gather before cutting; grows while there is no place to cut.
    wanted: usize,
    at_start: bool,
    at_end: bool,
    ready: VecDeque<Segment>,
}

impl<R: Read> TextSegments<R> {
    pub(super) fn new(path: &Path, input: R, split_documents: SplitDocuments) -> Self {
        Self::with_segment_bytes(path, input, split_documents, SEGMENT_BYTES)
    }

    fn with_segment_bytes(path: &Path, input: R, split_documents: SplitDocuments, wanted: usize) -> Self {
        Self {
            path: path.to_path_buf(),
            input,
            split_documents,
            buffer: Vec::new(),
            offset: 0,
            wanted,
            at_start: true,
            at_end: false,
            ready: VecDeque::new(),
        }
    }

    /// Fills the buffer to `wanted` bytes, or to the end of the file. Always to the full, so that the cuts depend on
    /// the text and not on how much the system returned at a time.
    fn fill(&mut self) -> Result<(), DataError> {
        let missing = self.wanted.saturating_sub(self.buffer.len()) as u64;
        let count = (&mut self.input)
            .take(missing)
            .read_to_end(&mut self.buffer)
            .map_err(DataError::io("read", &self.path))?;
        self.at_end = (count as u64) < missing;
        if self.offset == 0 && self.at_start && self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.buffer.drain(..BYTE_ORDER_MARK.len());
            self.offset = BYTE_ORDER_MARK.len() as u64;
        }
        Ok(())
    }

    /// Moves the next stretch of text from the buffer to `ready`.
    fn advance(&mut self) -> Result<(), DataError> {
        let segment_bytes = self.wanted;
        let cut = loop {
            self.fill()?;
            if self.at_start
                && let Some(encoding) = wide_encoding(&self.buffer)
            {
                return Err(DataError::BadUtf8 {
                    path: self.path.clone(),
                    offset: self.offset,
                    encoding,
                });
            }
            let text = self.valid_text()?;
            match if self.at_end {
                Some(text.len())
            } else {
                last_safe_cut(text)
            } {
                Some(cut) => break cut,
                None if self.wanted >= LIMIT_BYTES => break text.len(),
                None => self.wanted *= 2,
            }
        };
        self.wanted = segment_bytes;

        let rest = self.buffer.split_off(cut);
        let text = String::from_utf8(std::mem::replace(&mut self.buffer, rest))
            .map_err(|error| self.bad_utf8(error.utf8_error().valid_up_to()))?;
        let boundaries = match self.split_documents {
            SplitDocuments::None => Vec::new(),
            SplitDocuments::BlankLine => blank_line_boundaries(&text, self.at_start),
        };
        self.offset += cut as u64;

        let mut starts_document = self.at_start;
        self.at_start = self.at_start && text.is_empty();
        let starts = std::iter::once(0).chain(boundaries.iter().copied());
        let ends = boundaries.iter().copied().chain(std::iter::once(text.len()));
        for (start, end) in starts.zip(ends) {
            if start < end {
                self.ready.push_back(Segment {
                    text: text[start..end].to_owned(),
                    starts_document,
                });
            }
            starts_document = true;
        }
        Ok(())
    }

    /// The part of the buffer that is whole characters: all of it, but for one that the next bytes complete.
    fn valid_text(&self) -> Result<&str, DataError> {
        match std::str::from_utf8(&self.buffer) {
            Ok(text) => Ok(text),
            Err(error) if error.error_len().is_none() && !self.at_end => {
                let whole = &self.buffer[..error.valid_up_to()];
                std::str::from_utf8(whole).map_err(|error| self.bad_utf8(error.valid_up_to()))
            }
            Err(error) => Err(self.bad_utf8(error.valid_up_to())),
        }
    }

    fn bad_utf8(&self, position: usize) -> DataError {
        DataError::BadUtf8 {
            path: self.path.clone(),
            offset: self.offset + position as u64,
            encoding: encoding_of(&self.buffer),
        }
    }
}

impl<R: Read> Iterator for TextSegments<R> {
    type Item = Result<Segment, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.at_end {
            if let Err(error) = self.advance() {
                self.at_end = true;
                return Some(Err(error));
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

/// The last place where text can be cut so that both parts encode to the tokens that they have in the whole: between a
/// character that is not white space and one that is.
///
/// Why it is safe. GPT-2 first splits text by
/// `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
/// and merges bytes only within a match.
/// - No match crosses the cut: in every alternative white space comes first or is all there is, so none goes on from a
///   character that is not white space to one that is. The cut is the end of a match in the whole, too.
/// - Left of the cut nothing changes: the only look-ahead is that of a run of white space at the character after it,
///   and the left part ends in a character that is none, so all of its runs still see theirs. The other alternatives
///   stop at white space exactly as they stop at the end.
/// - Right of the cut nothing changes, for the expression never looks behind.
fn last_safe_cut(text: &str) -> Option<usize> {
    let mut run_start = None;
    for (position, character) in text.char_indices().rev() {
        if character.is_whitespace() {
            run_start = Some(position);
        } else if run_start.is_some() {
            return run_start;
        }
    }
    None
}

/// Where documents begin within `text`, but for its own beginning.
///
/// A boundary lies in each run of white space that holds a blank line, that is two line ends or more, with text on
/// both sides. Line ends are taken in pairs and the boundary follows the last pair, which is where llm.c's
/// `text.split("\n\n")` has it, but for the empty documents that it makes of longer runs.
///
/// Segments are cut before white space, so each run is whole. The one at the start of `text` has text before it unless
/// the file begins there.
fn blank_line_boundaries(text: &str, file_begins: bool) -> Vec<usize> {
    let mut boundaries = Vec::new();
    let mut seen_text = !file_begins;
    let mut line_ends = 0;
    let mut after_pair = 0;
    for (position, character) in text.char_indices() {
        if character == '\n' {
            line_ends += 1;
            if line_ends % 2 == 0 {
                after_pair = position + 1;
            }
        } else if !character.is_whitespace() {
            if line_ends >= 2 && seen_text {
                boundaries.push(after_pair);
            }
            line_ends = 0;
            seen_text = true;
        }
    }
    boundaries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Encoding;
    use crate::tokenizer::Tokenizer;
    use proptest::prelude::*;

    fn segments(text: &[u8], split: SplitDocuments, segment_bytes: usize) -> Result<Vec<Segment>, DataError> {
        TextSegments::with_segment_bytes(Path::new("a.txt"), text, split, segment_bytes).collect()
    }

    fn documents(text: &str, segment_bytes: usize) -> Vec<String> {
        let mut documents: Vec<String> = Vec::new();
        for segment in segments(text.as_bytes(), SplitDocuments::BlankLine, segment_bytes).expect("valid text") {
            match documents.last_mut() {
                Some(document) if !segment.starts_document => document.push_str(&segment.text),
                _ => documents.push(segment.text),
            }
        }
        documents
    }

    #[test]
    fn documents_end_with_their_blank_line() {
        assert_eq!(documents("a\nb\n\nc\n", 64), ["a\nb\n\n", "c\n"]);
        assert_eq!(documents("a\n\n\nb", 64), ["a\n\n", "\nb"]);
        assert_eq!(documents("a\n\n\n\nb", 64), ["a\n\n\n\n", "b"]);
        assert_eq!(documents("a\r\n\r\n  b", 64), ["a\r\n\r\n", "  b"]);
        assert_eq!(documents("a\n \t\nb", 64), ["a\n \t\n", "b"]);
        assert_eq!(documents("\n\na\n\n", 64), ["\n\na\n\n"]);
        assert_eq!(documents("", 64), Vec::<String>::new());
    }

    #[test]
    fn a_file_is_one_document_unless_asked() -> Result<(), DataError> {
        let found = segments(b"a\n\nb", SplitDocuments::None, 64)?;
        assert_eq!(
            found,
            [Segment {
                text: "a\n\nb".into(),
                starts_document: true
            }]
        );
        Ok(())
    }

    #[test]
    fn a_byte_order_mark_is_no_text() -> Result<(), DataError> {
        let found = segments(b"\xEF\xBB\xBFhi", SplitDocuments::None, 64)?;
        assert_eq!(found[0].text, "hi");
        Ok(())
    }

    #[test]
    fn bad_utf8_is_found_at_its_offset() {
        for (bytes, at) in [
            (&b"ab cd\xFFef"[..], 5),
            (b"ab cd ef \xC3", 9),
            (b"\xEF\xBB\xBFa\xFF", 4),
        ] {
            for segment_bytes in [4, 64] {
                let error = segments(bytes, SplitDocuments::None, segment_bytes).unwrap_err();
                assert!(
                    matches!(error, DataError::BadUtf8 { offset, .. } if offset == at),
                    "{error}, expected {at}"
                );
            }
        }
    }

    #[test]
    fn other_encodings_are_named() {
        for (bytes, expected) in [
            (&b"caf\xE9 au lait"[..], Encoding::Latin1),
            (b"\xFF\xFEa\0b\0", Encoding::Utf16),
            // Valid UTF-8 as it stands.
            (b"a\0b\0c\0 \0", Encoding::Utf16Le),
        ] {
            let error = segments(bytes, SplitDocuments::None, 64).unwrap_err();
            assert!(
                matches!(error, DataError::BadUtf8 { encoding, .. } if encoding == expected),
                "{error}"
            );
        }
    }

    #[test]
    fn text_without_a_place_to_cut_is_bounded() -> Result<(), DataError> {
        let text = "x".repeat(LIMIT_BYTES + 10);
        let found = segments(text.as_bytes(), SplitDocuments::None, SEGMENT_BYTES)?;
        assert_eq!(
            found.iter().map(|segment| segment.text.len()).collect::<Vec<_>>(),
            [LIMIT_BYTES, 10]
        );
        Ok(())
    }

    fn awkward_text() -> impl Strategy<Value = String> {
        let atoms = prop::sample::select(vec![
            " ",
            "  ",
            "\n",
            "\n\n",
            "\r\n",
            "\t",
            "\u{a0}",
            "\u{3000}",
            "\u{2028}",
            "\u{85}",
            "\u{1c}",
            "word",
            " word",
            "It's",
            "we'll",
            "'",
            "''s",
            "42",
            " 7",
            "...",
            " -",
            "中",
            "é",
            "\u{301}",
            "😀",
            "<|endoftext|>",
        ]);
        prop::collection::vec(
            prop_oneof![6 => atoms.prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)],
            0..60,
        )
        .prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn segments_encode_to_the_tokens_of_the_whole(text in awkward_text(), segment_bytes in 1usize..40) {
            prop_assume!(!text.starts_with('\u{feff}'));
            let tokenizer = Tokenizer::gpt2();
            let found = segments(text.as_bytes(), SplitDocuments::None, segment_bytes)?;
            let apart: Vec<u16> = found.iter().flat_map(|segment| tokenizer.encode(&segment.text)).collect();
            prop_assert_eq!(apart, tokenizer.encode(&text));
            prop_assert!(found.iter().skip(1).all(|segment| !segment.starts_document));
        }

        #[test]
        fn documents_do_not_depend_on_where_segments_are_cut(text in awkward_text(), segment_bytes in 1usize..40) {
            prop_assume!(!text.starts_with('\u{feff}'));
            let found = documents(&text, segment_bytes);
            prop_assert_eq!(&found, &documents(&text, 1 << 20));
            prop_assert_eq!(found.concat(), text);
        }
    }
}
