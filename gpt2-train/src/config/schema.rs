//! The JSON schema of run files, by which editors check and complete them.

use super::RunConfig;
use gpt2_backend::BackendChoice;
use gpt2_model::{Operations, Precision, Recompute};
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;

impl RunConfig {
    /// The JSON schema of a run file: every key with its meaning and its type. What the values must be besides is judged
    /// with the plan.
    pub fn json_schema() -> Value {
        let mut schema = SchemaSettings::draft07()
            .into_generator()
            .into_root_schema_for::<Self>();
        schema.insert("title".to_owned(), "A run file of gpt2".into());
        // Every key may be left out.
        schema.remove("required");
        schema.to_value()
    }
}

fn one_of(words: impl IntoIterator<Item = impl ToString>) -> Schema {
    let words: Vec<String> = words.into_iter().map(|word| word.to_string()).collect();
    json_schema!({ "type": "string", "enum": words })
}

pub(super) fn backend(_: &mut SchemaGenerator) -> Schema {
    one_of(BackendChoice::ALL)
}

pub(super) fn precision(_: &mut SchemaGenerator) -> Schema {
    one_of(Precision::ALL)
}

pub(super) fn recompute(_: &mut SchemaGenerator) -> Schema {
    one_of(Recompute::ALL)
}

pub(super) fn operations(_: &mut SchemaGenerator) -> Schema {
    one_of(Operations::ALL)
}

/// A number, or `auto`.
pub(super) fn batch_size(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [{ "type": "integer", "minimum": 1 }, { "const": "auto" }]
    })
}

/// A count, or numbers with commas.
pub(super) fn devices(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            { "type": "integer", "minimum": 1 },
            { "type": "string", "pattern": "^[0-9]+(,[0-9]*)*$" },
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ScheduleKind;

    #[test]
    fn every_key_of_a_run_file_is_in_its_schema() {
        let schema = RunConfig::json_schema();
        let properties = schema["properties"].as_object().unwrap();
        let mut keys: Vec<&String> = properties.keys().collect();
        let mut expected = RunConfig::keys();
        keys.sort_unstable();
        expected.sort_unstable();
        assert!(keys.into_iter().eq(expected.iter()));
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema.get("required"), None);
        for (key, property) in properties {
            assert!(property["description"].is_string(), "{key}");
        }
        for (key, word) in [
            ("backend", "flex"),
            ("precision", "bf16"),
            ("recompute", "gelu,ln"),
            ("operations", "reference"),
        ] {
            let words = properties[key]["enum"].as_array().unwrap();
            assert!(words.iter().any(|known| known == word), "{key}: {words:?}");
        }
        let text = schema.to_string();
        assert!(text.contains(&format!("\"{}\"", ScheduleKind::Wsd)), "{text}");
    }
}
