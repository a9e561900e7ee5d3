//! The tokenizer in the files that Hugging Face transformers reads, for a directory with a model.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::json;

use crate::error::DataError;
use crate::format::{END_OF_TEXT, END_OF_TEXT_STR, VOCAB_SIZE};
use crate::tokenizer::Tokenizer;

/// Single bytes, which no merge makes.
const BYTES: u16 = 256;

impl Tokenizer {
    /// Writes `vocab.json`, `merges.txt`, `tokenizer.json` and `tokenizer_config.json` into `dir`, which must exist, so
    /// that transformers' `AutoTokenizer` reads GPT-2's tokenizer from it. `model_max_length` is the longest sequence of
    /// the model next to them, in tokens. Each file is whole and on the disk when this returns.
    ///
    /// # Errors
    /// [`DataError::Io`] where a file cannot be written.
    pub fn write_hf_files(&self, dir: &Path, model_max_length: usize) -> Result<(), DataError> {
        static FILES: OnceLock<[String; 3]> = OnceLock::new();
        let [vocab, merges, tokenizer] = FILES.get_or_init(|| {
            let (tokens, merges) = self.spelt();
            let vocab = vocab(&tokens);
            let tokenizer = tokenizer_json(&vocab, &merges);
            [vocab, format!("#version: 0.2\n{}\n", merges.join("\n")), tokenizer]
        });
        let config = json!({
            "add_prefix_space": false,
            "bos_token": END_OF_TEXT_STR,
            "eos_token": END_OF_TEXT_STR,
            "model_max_length": model_max_length,
            "tokenizer_class": "GPT2Tokenizer",
            "unk_token": END_OF_TEXT_STR,
        });
        for (name, content) in [
            ("vocab.json", vocab),
            ("merges.txt", merges),
            ("tokenizer.json", tokenizer),
            ("tokenizer_config.json", &format!("{config:#}\n")),
        ] {
            let path = dir.join(name);
            gpt2_base::fs::write(&path, content.as_bytes()).map_err(DataError::io("write", &path))?;
        }
        Ok(())
    }
}

impl Tokenizer {
    /// The tokens by their numbers, and the merges in their order, `a b`, as `vocab.json` and `merges.txt` spell them.
    pub fn spelt(&self) -> (Vec<String>, Vec<String>) {
        let tokens = (0..VOCAB_SIZE as u16).map(|token| spelt(self.token_bytes(token)));
        (tokens.collect(), merges(self))
    }
}

/// A token as these files spell it: each byte is a character, as in OpenAI's `encoder.py` (`bytes_to_unicode`). Printable
/// ones of Latin-1 stand for themselves, the others for those from U+0100 on.
fn spelt(bytes: &[u8]) -> String {
    let is_printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let others_before = |byte: u8| (0..byte).filter(|&byte| !is_printable(byte)).count() as u32;
    bytes
        .iter()
        .map(|&byte| {
            let code = if is_printable(byte) {
                u32::from(byte)
            } else {
                0x100 + others_before(byte)
            };
            char::from_u32(code).expect("below U+0144")
        })
        .collect()
}

/// `vocab.json`: every token and its number, byte for byte as OpenAI's `encoder.json`, which is in ASCII.
fn vocab(tokens: &[String]) -> String {
    let mut json = String::from("{");
    for (id, token) in tokens.iter().enumerate() {
        json.push_str(if id == 0 { "\"" } else { ", \"" });
        for character in token.chars() {
            match character {
                '"' | '\\' => json.extend(['\\', character]),
                ' '..='~' => json.push(character),
                // Writing to a string cannot fail.
                _ => write!(json, "\\u{:04x}", u32::from(character)).expect("a string"),
            }
        }
        write!(json, "\": {id}").expect("a string");
    }
    json.push('}');
    json
}

/// The two tokens that each merge joins, in the order of the merges.
fn merges(tokenizer: &Tokenizer) -> Vec<String> {
    let ranks: HashMap<&[u8], u16> = (0..END_OF_TEXT)
        .map(|token| (tokenizer.token_bytes(token), token))
        .collect();
    (BYTES..END_OF_TEXT)
        .map(|token| {
            let (left, right) = parents(tokenizer.token_bytes(token), token, &ranks);
            format!("{} {}", spelt(left), spelt(right))
        })
        .collect()
}

/// What `token` was merged from: the two pieces that the merges before it leave of its bytes.
fn parents<'a>(bytes: &'a [u8], token: u16, ranks: &HashMap<&[u8], u16>) -> (&'a [u8], &'a [u8]) {
    let mut pieces: Vec<&[u8]> = bytes.chunks(1).collect();
    // The pieces lie one after the other: a pair of them is a slice of the bytes.
    while pieces.len() > 2 {
        let mut start = 0;
        let pairs = pieces.windows(2).enumerate().filter_map(|(i, pair)| {
            let pair = &bytes[start..start + pair[0].len() + pair[1].len()];
            start += pieces[i].len();
            let rank = *ranks.get(pair)?;
            (rank < token).then_some((rank, i, pair))
        });
        let (_, i, pair) = pairs.min().expect("every token is made by merges before it");
        pieces.splice(i..i + 2, [pair]);
    }
    (pieces[0], pieces[1])
}

/// `tokenizer.json`, as the `tokenizers` library saves GPT-2's.
fn tokenizer_json(vocab: &str, merges: &[String]) -> String {
    let byte_level = |add_prefix_space: bool, trim_offsets: bool| {
        json!({
            "type": "ByteLevel",
            "add_prefix_space": add_prefix_space,
            "trim_offsets": trim_offsets,
            "use_regex": true,
        })
    };
    let end_of_text = json!({
        "id": END_OF_TEXT,
        "content": END_OF_TEXT_STR,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": true,
        "special": true,
    });
    format!(
        concat!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{}],"normalizer":null,"#,
            r#""pre_tokenizer":{},"post_processor":{},"decoder":{},"#,
            r#""model":{{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":"","#,
            r#""end_of_word_suffix":"","fuse_unk":false,"byte_fallback":false,"vocab":{},"merges":{}}}}}"#,
            "\n"
        ),
        end_of_text,
        byte_level(false, true),
        byte_level(true, false),
        byte_level(true, true),
        vocab,
        json!(merges),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::Value;

    use super::*;

    /// The hashes are those of OpenAI's `encoder.json` and `vocab.bpe`, by which tiktoken checks its downloads.
    #[test]
    fn vocabulary_and_merges_are_openais_to_the_byte() {
        let dir = tempfile::tempdir().unwrap();
        Tokenizer::gpt2().write_hf_files(dir.path(), 1024).unwrap();
        for (name, expected) in [
            (
                "vocab.json",
                "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
            ),
            (
                "merges.txt",
                "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
            ),
        ] {
            assert_eq!(
                gpt2_base::fs::sha256_file(&dir.path().join(name)).unwrap(),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn the_other_files_say_the_same() {
        let dir = tempfile::tempdir().unwrap();
        Tokenizer::gpt2().write_hf_files(dir.path(), 256).unwrap();
        let read = |name: &str| -> Value { serde_json::from_slice(&fs::read(dir.path().join(name)).unwrap()).unwrap() };
        let tokenizer = read("tokenizer.json");
        assert_eq!(tokenizer["model"]["vocab"], read("vocab.json"));
        let merges: Vec<&str> = tokenizer["model"]["merges"]
            .as_array()
            .unwrap()
            .iter()
            .map(|merge| merge.as_str().unwrap())
            .collect();
        let expected = fs::read_to_string(dir.path().join("merges.txt")).unwrap();
        assert_eq!(merges, expected.lines().skip(1).collect::<Vec<_>>());
        assert_eq!((merges.len(), merges[0]), (50_000, "Ġ t"));
        assert_eq!(tokenizer["added_tokens"][0]["id"], END_OF_TEXT);
        let config = read("tokenizer_config.json");
        assert_eq!(
            (&config["model_max_length"], &config["eos_token"]),
            (&256.into(), &END_OF_TEXT_STR.into())
        );
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            4,
            "nothing temporary is left"
        );
    }

    #[test]
    fn a_directory_that_is_missing_is_an_error() {
        let message = Tokenizer::gpt2()
            .write_hf_files(Path::new("no/where"), 1)
            .unwrap_err()
            .to_string();
        assert!(message.starts_with("cannot write no/where/vocab.json: "), "{message}");
    }
}
