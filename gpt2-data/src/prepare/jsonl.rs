//! Documents from JSON lines: one field of one object a line.

use std::fmt;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor};

use super::encoding::encoding_of;
use super::segment::Segment;
use crate::error::DataError;

/// The documents of a JSONL file. Blank lines and documents without text, null or empty, are passed over.
///
/// What Python's `json` writes is read, even where it is no JSON: half a surrogate pair becomes `�`, as in tiktoken, and
/// `NaN` and `Infinity` are null. A field within another is named by both, `meta.text`, as in Parquet.
pub(super) struct JsonlSegments<R> {
    path: PathBuf,
    input: R,
    field: String,
    line: u64,
    /// Offset of the line in the text, for errors.
    offset: u64,
    buffer: Vec<u8>,
    failed: bool,
}

impl<R: BufRead> JsonlSegments<R> {
    pub(super) fn new(path: &Path, input: R, field: String) -> Self {
        Self {
            path: path.to_path_buf(),
            input,
            field,
            line: 0,
            offset: 0,
            buffer: Vec::new(),
            failed: false,
        }
    }

    /// The text of the next document, `None` at the end of the file.
    fn next_text(&mut self) -> Result<Option<String>, DataError> {
        loop {
            self.offset += self.buffer.len() as u64;
            self.buffer.clear();
            self.line += 1;
            let count = self
                .input
                .read_until(b'\n', &mut self.buffer)
                .map_err(DataError::io("read", &self.path))?;
            if count == 0 {
                return Ok(None);
            }
            let line = std::str::from_utf8(&self.buffer).map_err(|error| DataError::BadUtf8 {
                path: self.path.clone(),
                offset: self.offset + error.valid_up_to() as u64,
                encoding: encoding_of(&self.buffer),
            })?;
            let line = line.trim_start_matches('\u{feff}');
            if line.trim().is_empty() {
                continue;
            }
            match self.value_of(line)? {
                Some(text) if !text.is_empty() => return Ok(Some(text)),
                _ => {}
            }
        }
    }

    /// The field's value on a line, `None` if that is null.
    fn value_of(&self, line: &str) -> Result<Option<String>, DataError> {
        let parsed = parse(line, &self.field).or_else(|error| match without_python_numbers(line) {
            Some(line) => parse(&line, &self.field),
            None => Err(error),
        });
        match parsed {
            Ok(Value::Text(text)) => Ok(Some(text)),
            Ok(Value::Null) => Ok(None),
            Ok(Value::Missing) => Err(DataError::MissingField {
                path: self.path.clone(),
                line: self.line,
                field: self.field.clone(),
            }),
            Err(source) => Err(DataError::BadJson {
                path: self.path.clone(),
                line: self.line,
                source,
            }),
        }
    }
}

impl<R: BufRead> Iterator for JsonlSegments<R> {
    type Item = Result<Segment, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let text = self.next_text().transpose()?;
        self.failed = text.is_err();
        Some(text.map(|text| Segment {
            text,
            starts_document: true,
        }))
    }
}

/// What a line holds in the field.
enum Value {
    Missing,
    Null,
    Text(String),
}

fn parse(line: &str, field: &str) -> Result<Value, serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_str(line);
    let value = parser.deserialize_map(Object(field))?;
    parser.end()?;
    Ok(value)
}

/// Takes one field, perhaps of an object within, out of an object without building the rest of it.
struct Object<'a>(&'a str);

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut value = Value::Missing;
        while let Some(key) = map.next_key_seed(PythonString)? {
            if key == self.0 {
                value = map.next_value_seed(Text)?;
            } else if let Some(within) = self.0.strip_prefix(&key).and_then(|rest| rest.strip_prefix('.')) {
                value = map.next_value_seed(Object(within))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(value)
    }

    /// A null object has null fields.
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A string or null.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        PythonString.deserialize(deserializer).map(Value::Text)
    }
}

/// A string in which halves of surrogate pairs become `�`.
struct PythonString;

impl<'de> DeserializeSeed<'de> for PythonString {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        // As bytes: serde_json then lets a lone `\ud83d` pass, as the three bytes that UTF-8 would have for it.
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for PythonString {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<String, E> {
        let mut bytes = bytes.to_vec();
        if std::str::from_utf8(&bytes).is_err() {
            for index in 0..bytes.len().saturating_sub(2) {
                if bytes[index] == 0xED && bytes[index + 1] >= 0xA0 {
                    bytes[index..index + 3].copy_from_slice("\u{FFFD}".as_bytes());
                }
            }
        }
        String::from_utf8(bytes).map_err(E::custom)
    }
}

/// The line with null for the numbers that Python writes and JSON does not have; `None` if there are none.
fn without_python_numbers(line: &str) -> Option<String> {
    let mut found = false;
    let mut result = String::with_capacity(line.len());
    // Strings are at the odd places between quotes that are not escaped.
    let mut in_string = false;
    let mut rest = line;
    while !rest.is_empty() {
        let quote = next_quote(rest, in_string);
        let (part, after) = rest.split_at(quote.map_or(rest.len(), |quote| quote + 1));
        if in_string {
            result.push_str(part);
        } else {
            let replaced = ["-Infinity", "Infinity", "NaN"]
                .iter()
                .fold(part.to_owned(), |part, number| part.replace(number, "null"));
            found |= replaced != part;
            result.push_str(&replaced);
        }
        in_string = !in_string;
        rest = after;
    }
    found.then_some(result)
}

/// Where the next quote is. Within a string a backslash takes the next character with it.
fn next_quote(text: &str, in_string: bool) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let is_quote = byte == b'"' && !escaped;
        escaped = in_string && byte == b'\\' && !escaped;
        is_quote
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(input: &[u8]) -> Result<Vec<String>, DataError> {
        JsonlSegments::new(Path::new("a.jsonl"), input, "text".to_owned())
            .map(|segment| segment.map(|segment| segment.text))
            .collect()
    }

    #[test]
    fn the_field_is_taken_from_each_line() -> Result<(), DataError> {
        let input = concat!(
            "{\"id\": 1, \"text\": \"one\\ntwo\", \"meta\": {\"text\": \"no\"}}\r\n",
            "\n",
            "{\"text\": \"\"}\n",
            "{\"te\\u0078t\": \"\\u4e2d\"}"
        );
        assert_eq!(texts(input.as_bytes())?, ["one\ntwo", "中"]);
        Ok(())
    }

    #[test]
    fn null_is_passed_over() -> Result<(), DataError> {
        let input = b"{\"text\": \"one\"}\n{\"text\": null}\n{\"text\": NaN, \"n\": 1}\n{\"text\": \"two\"}\n";
        assert_eq!(texts(input)?, ["one", "two"]);
        Ok(())
    }

    /// As `json.dumps` writes them, and tiktoken reads them.
    #[test]
    fn halves_of_surrogate_pairs_are_replaced() -> Result<(), DataError> {
        let input = concat!(
            r#"{"text": "cut emoji \ud83d here"}"#,
            "\n",
            r#"{"text": "\ud83d\ude00 \ude00\ud83d\ud83d"}"#,
            "\n",
            r#"{"other": "\ud83d", "\ud83d": 1, "text": "whole"}"#,
        );
        assert_eq!(
            texts(input.as_bytes())?,
            ["cut emoji \u{FFFD} here", "😀 \u{FFFD}\u{FFFD}\u{FFFD}", "whole"]
        );
        Ok(())
    }

    #[test]
    fn fields_that_were_not_asked_for_do_not_matter() -> Result<(), DataError> {
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        for other in [
            "NaN",
            "-Infinity",
            "[1, Infinity]",
            "1e999",
            "{\"text\": 5}",
            "\"a \\\" NaN \\\\\"",
            &deep,
        ] {
            let line = format!("{{\"other\": {other}, \"text\": \"NaN \\\" Infinity\", \"last\": NaN}}");
            assert_eq!(texts(line.as_bytes())?, ["NaN \" Infinity"], "{line}");
        }
        Ok(())
    }

    #[test]
    fn a_field_within_another_is_named_by_both() -> Result<(), DataError> {
        let read = |input: &str| {
            JsonlSegments::new(Path::new("a.jsonl"), input.as_bytes(), "meta.text".to_owned())
                .map(|segment| segment.map(|segment| segment.text))
                .collect::<Result<Vec<_>, _>>()
        };
        assert_eq!(read(r#"{"text": "no", "meta": {"text": "one", "n": [1]}}"#)?, ["one"]);
        assert_eq!(read(r#"{"meta.text": "flat"}"#)?, ["flat"]);
        assert_eq!(read(r#"{"meta": null}"#)?, [""; 0]);
        assert_eq!(read(r#"{"meta": {"text": null}}"#)?, [""; 0]);
        assert!(matches!(read(r#"{"meta": {}}"#), Err(DataError::MissingField { .. })));
        assert!(matches!(read(r#"{"meta": 5}"#), Err(DataError::BadJson { .. })));
        Ok(())
    }

    #[test]
    fn errors_name_the_line() {
        let missing = texts(b"{\"text\": \"a\"}\n{\"body\": \"b\"}\n").unwrap_err();
        assert!(
            matches!(&missing, DataError::MissingField { line: 2, field, .. } if field == "text"),
            "{missing}"
        );
        for (input, at) in [
            (&b"\n{\"text\": \"a\""[..], 2),
            (b"[1]\n", 1),
            (b"{\"text\": 5}\n", 1),
            (b"{\"text\": \"a\"} x\n", 1),
            (b"{\"text\": \"\xED\"}\n", 0),
        ] {
            match texts(input).unwrap_err() {
                DataError::BadJson { line, .. } => assert_eq!(line, at),
                DataError::BadUtf8 { offset, .. } => assert_eq!((offset, at), (10, 0)),
                other => panic!("{other}"),
            }
        }
    }
}
