//! Which files of a model are its weights, and what belongs to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::address::Address;
use crate::cache::is_safe;
use crate::error::HubError;
use crate::listing::{Entry, Listing};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Fetched where they are: what transformers needs to open the directory too.
const COMPANIONS: [&str; 7] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
];

/// The files that are fetched first.
#[derive(Debug)]
pub(crate) struct Needed<'a> {
    pub(crate) entries: Vec<&'a Entry>,
    /// Whether the shards that the index lists come after them.
    pub(crate) is_sharded: bool,
}

/// Chooses among the files of a model.
///
/// # Errors
/// What is missing.
pub(crate) fn needed<'a>(address: &Address, listing: &'a Listing) -> Result<Needed<'a>, HubError> {
    let files = || listing.paths();
    let config = listing.find(CONFIG).ok_or_else(|| HubError::NoConfig {
        address: address.to_string(),
        files: files(),
    })?;
    let whole = listing.find(WEIGHTS);
    let Some(weights) = whole.or_else(|| listing.find(INDEX)) else {
        return Err(match listing.entries.iter().find(|entry| is_pickle(&entry.path)) {
            Some(pickle) => HubError::PickleOnly {
                address: address.to_string(),
                file: pickle.path.clone(),
            },
            None => HubError::NoWeights {
                address: address.to_string(),
                files: files(),
            },
        });
    };
    let companions = COMPANIONS.iter().filter_map(|name| listing.find(name));
    let mut entries = vec![config];
    entries.extend(companions);
    // The largest last: what is wrong with the others is known sooner.
    entries.push(weights);
    Ok(Needed {
        entries,
        is_sharded: whole.is_none(),
    })
}

/// What Python's `pickle` wrote, by its name at the top of a model.
fn is_pickle(path: &str) -> bool {
    let is_named = |ending: &str| path.ends_with(ending);
    !path.contains('/')
        && [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".bin.index.json"]
            .into_iter()
            .any(is_named)
}

/// What transformers writes, as far as it is used.
#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The shards that the index in a snapshot lists.
///
/// # Errors
/// That the index is none, or lists what the model does not have.
pub(crate) fn shards<'a>(address: &Address, listing: &'a Listing, snapshot: &Path) -> Result<Vec<&'a Entry>, HubError> {
    let path = snapshot.join(INDEX);
    let json = fs::read(&path).map_err(HubError::io("read", &path))?;
    let bad = |reason: String| HubError::BadIndex {
        path: path.clone(),
        reason,
    };
    let index: Index = serde_json::from_slice(&json).map_err(|error| bad(error.to_string()))?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    if names.is_empty() {
        return Err(bad("it lists none".to_owned()));
    }
    let find = |name: &String| {
        if !is_safe(name) {
            return Err(bad(format!("{name:?} is no name of a file")));
        }
        listing.find(name).ok_or_else(|| HubError::ShardMissing {
            address: address.to_string(),
            shard: name.clone(),
        })
    };
    names.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(paths: &[&str]) -> Listing {
        let entry = |path: &&str| Entry {
            path: (*path).to_owned(),
            content: None,
        };
        Listing {
            commit: String::new(),
            entries: paths.iter().map(entry).collect(),
        }
    }

    fn choose(paths: &[&str]) -> Result<Vec<String>, HubError> {
        let address = "hf:a/b".parse().unwrap();
        let listing = listing(paths);
        let needed = needed(&address, &listing)?;
        Ok(needed.entries.iter().map(|entry| entry.path.clone()).collect())
    }

    #[test]
    fn weights_and_what_belongs_to_them() {
        let all = [
            "README.md",
            "config.json",
            "flax_model.msgpack",
            "merges.txt",
            "model.safetensors",
            "onnx/model.onnx",
            "pytorch_model.bin",
            "vocab.json",
        ];
        assert_eq!(
            choose(&all).unwrap(),
            ["config.json", "vocab.json", "merges.txt", "model.safetensors"]
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |paths: &[&str]| choose(paths).unwrap_err().to_string();
        let pickle = error(&["config.json", "pytorch_model.bin", "tf_model.h5"]);
        assert!(pickle.contains("pickle only (pytorch_model.bin)"), "{pickle}");
        assert!(pickle.contains("hf:a/b@refs/pr/NUMBER"), "{pickle}");
        let sharded = error(&["config.json", "pytorch_model.bin.index.json"]);
        assert!(sharded.contains("pickle only"), "{sharded}");
        let other = error(&["config.json", "tf_model.h5"]);
        assert!(other.contains("it has config.json, tf_model.h5"), "{other}");
        let no_config = error(&["model.safetensors"]);
        assert!(no_config.contains("has no config.json"), "{no_config}");
    }

    #[test]
    fn an_index_lists_files_of_the_model() {
        let dir = tempfile::tempdir().unwrap();
        let address = "hf:a/b".parse().unwrap();
        let listing = listing(&["config.json", "s-1.safetensors", "s-2.safetensors"]);
        let shards = |json: &str| {
            fs::write(dir.path().join(INDEX), json).unwrap();
            let shards = shards(&address, &listing, dir.path())?;
            Ok::<_, HubError>(shards.iter().map(|entry| entry.path.clone()).collect::<Vec<_>>())
        };
        let names =
            shards(r#"{"weight_map": {"c": "s-2.safetensors", "a": "s-1.safetensors", "b": "s-1.safetensors"}}"#);
        assert_eq!(names.unwrap(), ["s-1.safetensors", "s-2.safetensors"]);
        for (json, problem) in [
            ("{", "is not a list of shards"),
            (r#"{"weight_map": {}}"#, "lists none"),
            (r#"{"weight_map": {"a": "../x"}}"#, "no name of a file"),
            (
                r#"{"weight_map": {"a": "s-3.safetensors"}}"#,
                "s-3.safetensors is missing",
            ),
        ] {
            let error = shards(json).unwrap_err().to_string();
            assert!(error.contains(problem), "{json}: {error}");
        }
    }
}
