//! Documents from JSON lines: one field of one object a line.

use std::fmt;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};

use super::segments::Segment;
use crate::DataError;

/// The documents of a JSONL file. Blank lines and documents without text are passed over.
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
            })?;
            let line = line.trim_start_matches('\u{feff}');
            if line.trim().is_empty() {
                continue;
            }
            let text = self.text_of(line)?;
            if !text.is_empty() {
                return Ok(Some(text));
            }
        }
    }

    fn text_of(&self, line: &str) -> Result<String, DataError> {
        let bad_json = |source| DataError::BadJson {
            path: self.path.clone(),
            line: self.line,
            source,
        };
        let mut parser = serde_json::Deserializer::from_str(line);
        let text = Field(&self.field).deserialize(&mut parser).map_err(bad_json)?;
        parser.end().map_err(bad_json)?;
        text.ok_or_else(|| DataError::MissingField {
            path: self.path.clone(),
            line: self.line,
            field: self.field.clone(),
        })
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

/// Takes one field out of an object without building the rest of it.
struct Field<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut text = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0 {
                text = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(text)
    }
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
