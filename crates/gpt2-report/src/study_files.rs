//! The files of a study, in its directory.

use crate::error::ReportError;
use crate::figures::{Figure, study_figures};
use crate::page::study_page_with;
use crate::tables;
use gpt2_records::{STUDY_VERSION, Study};
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserialize, Deserializer, IntoDeserializer, Visitor};
use serde_json::Value;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// What a study's other files are made from.
const RESULTS: &str = "results.json";

/// Writes `results.json`, `results.csv`, `results.md`, `index.html` and `figures/` into `dir`, which is created where it is
/// missing. Each file is whole or as it was; the results come first, so that an error later loses none.
///
/// # Errors
/// [`ReportError::Draw`] and [`ReportError::Io`].
pub fn write_study(dir: &Path, study: &Study) -> Result<(), ReportError> {
    create_dir(dir)?;
    let mut json = serde_json::to_vec_pretty(study).unwrap_or_else(|error| unreachable!("a study is JSON: {error}"));
    json.push(b'\n');
    write(&dir.join(RESULTS), &json)?;
    write(&dir.join("results.csv"), &tables::results_csv(study))?;
    let figures = study_figures(study);
    write(&dir.join("results.md"), tables::results_md(study, &figures).as_bytes())?;
    write(&dir.join("index.html"), study_page_with(study, &figures)?.as_bytes())?;
    write_figures(dir, &figures)
}

/// Reads the study in `dir`. A number that was not finite, which JSON cannot hold, comes back as NaN.
///
/// # Errors
/// [`ReportError::NoStudy`], [`ReportError::NotJson`], [`ReportError::OtherVersion`], [`ReportError::NotAStudy`], and
/// [`ReportError::Io`].
pub fn read_study(dir: &Path) -> Result<Study, ReportError> {
    let path = dir.join(RESULTS);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(ReportError::NoStudy { path });
        }
        Err(error) => return Err(ReportError::io("read", path, error)),
    };
    let value: Value = match serde_json::from_str(&text) {
        Ok(value) => value,
        Err(source) => return Err(ReportError::NotJson { path, source }),
    };
    let version = value.get("version");
    if version.and_then(Value::as_u64) != Some(u64::from(STUDY_VERSION)) {
        let found = version.map_or_else(|| "none".to_owned(), Value::to_string);
        let expected = STUDY_VERSION;
        return Err(ReportError::OtherVersion { path, found, expected });
    }
    // Read from the text, an error has its line.
    serde_json::from_str(&text)
        .or_else(|source| Study::deserialize(NanForNull(value)).map_err(|_| ReportError::NotAStudy { path, source }))
}

/// JSON whose nulls are NaN where a number must be: serde_json writes null for what is not finite.
struct NanForNull(Value);

impl<'de> Deserializer<'de> for NanForNull {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(NanForNull))),
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(key, value)| (key, NanForNull(value)));
                visitor.visit_map(MapDeserializer::new(fields))
            }
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Null => visitor.visit_f64(f64::NAN),
            other => other.deserialize_f64(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 char str string bytes byte_buf unit unit_struct newtype_struct seq
        tuple tuple_struct map struct identifier ignored_any
    }
}

impl IntoDeserializer<'_, serde_json::Error> for NanForNull {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

pub(crate) fn create_dir(dir: &Path) -> Result<(), ReportError> {
    fs::create_dir_all(dir).map_err(|source| ReportError::io("create", dir, source))
}

pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    gpt2_base::fs::write(path, bytes).map_err(|source| ReportError::io("write", path, source))
}

/// Each figure as SVG and PNG, in `figures/` below `dir`.
pub(crate) fn write_figures(dir: &Path, figures: &[Figure]) -> Result<(), ReportError> {
    let dir = dir.join("figures");
    create_dir(&dir)?;
    for figure in figures {
        write(&dir.join(figure.name()).with_extension("svg"), figure.svg()?.as_bytes())?;
        write(&dir.join(figure.name()).with_extension("png"), &figure.png()?)?;
    }
    Ok(())
}
