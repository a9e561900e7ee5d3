//! Settings as words: for people, in file names, and in the commands of other programs.

use gpt2_train::config::RunConfig;
use std::collections::BTreeMap;

/// The settings that a run's configuration makes, for people.
pub(crate) fn settings(config: &RunConfig) -> BTreeMap<String, String> {
    let words = serde_json::to_value(config).expect("settings are plain values");
    let serde_json::Value::Object(fields) = words else {
        unreachable!("a struct is an object")
    };
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| match value {
            serde_json::Value::String(text) => (key, text),
            other => (key, other.to_string()),
        })
        .collect()
}

/// A name as part of a file's.
pub(crate) fn file_name(name: &str) -> String {
    let words: Vec<String> = name
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '.'))
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    words.join("-")
}

/// What stands for the setting `key` in a peer's command: `{grad_accum}` for `grad-accum`.
pub(crate) fn placeholder(key: &str) -> String {
    format!("{{{}}}", key.replace('-', "_"))
}

/// A peer's command with the settings in their places. Of two values of one setting the first counts.
pub(crate) fn filled(command: &str, settings: impl IntoIterator<Item = (String, String)>) -> String {
    settings.into_iter().fold(command.to_owned(), |command, (key, value)| {
        command.replace(&placeholder(&key), &value)
    })
}
