//! `config.json` as Hugging Face transformers writes it for a GPT-2. Every key that changes what is computed is judged: it
//! is honoured, or refused by its name.

use super::dtype::Dtype;
use super::safetensors::{io, quoted};
use crate::config::Gpt2Config;
use crate::error::ModelError;
use crate::variant::{Activation, Variant};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

pub(super) const CONFIG_FILE: &str = "config.json";

/// Models of the hub whose names have no owner in front.
const HUB_NAMES: [&str; 5] = [
    "openai-community/gpt2",
    "openai-community/gpt2-medium",
    "openai-community/gpt2-large",
    "openai-community/gpt2-xl",
    "distilbert/distilgpt2",
];

/// What the `config.json` in a directory says that transformers or [`save_hf`](super::save_hf) wrote. Dropout is 0: it
/// belongs to training.
///
/// # Errors
/// [`ModelError::NoModel`] where there is no such directory, [`ModelError::Io`], or [`ModelError::HfConfig`], which names
/// the key whose value this crate does not compute.
pub(super) fn read(dir: &Path) -> Result<Gpt2Config, ModelError> {
    let path = dir.join(CONFIG_FILE);
    let text = std::fs::read_to_string(&path).map_err(|source| io(&path, source))?;
    let wrong = |reason| ModelError::HfConfig {
        path: path.clone(),
        reason,
    };
    let keys: Map<String, Value> =
        serde_json::from_str(&text).map_err(|error| wrong(format!("not a JSON object: {error}")))?;
    let config = Keys(&keys).judge().map_err(wrong)?;
    config.validate()?;
    Ok(config)
}

/// The keys of a `config.json`.
struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    /// Absent keys have transformers' defaults, which are those of GPT-2 124M.
    fn judge(&self) -> Result<Gpt2Config, String> {
        let keys = self;
        keys.require("model_type", &"none".into(), |value| value == "gpt2", "\"gpt2\"")?;
        let model = Gpt2Config {
            vocab_size: keys.size("vocab_size", None, 50_257)?,
            block_size: keys.size("n_positions", Some("max_position_embeddings"), 1024)?,
            n_layer: keys.size("n_layer", Some("num_hidden_layers"), 12)?,
            n_head: keys.size("n_head", Some("num_attention_heads"), 12)?,
            n_embd: keys.size("n_embd", Some("hidden_size"), 768)?,
            dropout: 0.0,
            variant: Variant {
                n_inner: keys.inner_size()?,
                activation_function: keys.activation()?,
                tie_word_embeddings: keys.flag("tie_word_embeddings", true)?,
                scale_attn_weights: keys.flag("scale_attn_weights", true)?,
                scale_attn_by_inverse_layer_idx: keys.flag("scale_attn_by_inverse_layer_idx", false)?,
            },
        };
        keys.require(
            "layer_norm_epsilon",
            &1e-5.into(),
            |value| value.as_f64().is_some_and(|epsilon| (epsilon - 1e-5).abs() <= 1e-9),
            "1e-5",
        )?;
        keys.require(
            "add_cross_attention",
            &false.into(),
            |value| *value == false,
            "false: a GPT-2 has no second text to attend to",
        )?;
        // Only the order and the precision of attention's arithmetic, which this program chooses for itself.
        keys.flag("reorder_and_upcast_attn", false)?;
        keys.require(
            "pruned_heads",
            &Value::Null,
            |value| value.is_null() || value.as_object().is_some_and(Map::is_empty),
            "no pruned heads",
        )?;
        keys.require(
            "quantization_config",
            &Value::Null,
            Value::is_null,
            "weights that are not quantized",
        )?;
        // 4 · n_embd said in words is OpenAI's all the same.
        let is_default = model.variant.n_inner == Some(4 * model.n_embd);
        Ok(Gpt2Config {
            variant: Variant {
                n_inner: model.variant.n_inner.filter(|_| !is_default),
                ..model.variant
            },
            ..model
        })
    }

    fn inner_size(&self) -> Result<Option<usize>, String> {
        match self.0.get("n_inner") {
            None | Some(Value::Null) => Ok(None),
            Some(_) => Ok(Some(self.size("n_inner", None, 0)?)),
        }
    }

    fn activation(&self) -> Result<Activation, String> {
        let named = |value: &Value| Activation::of_hf_name(value.as_str()?);
        let default = Value::from(Activation::default().hf_name());
        let value = self.0.get("activation_function").unwrap_or(&default);
        named(value).ok_or_else(|| {
            format!("`activation_function` is {value}, expected \"gelu_new\" or another name of its tanh form, \"gelu\" or \"relu\"")
        })
    }

    /// Refuses the value of `key`, or its default where it is absent, unless it is `good`.
    fn require(&self, key: &str, default: &Value, good: impl Fn(&Value) -> bool, expected: &str) -> Result<(), String> {
        let value = self.0.get(key).unwrap_or(default);
        if good(value) {
            Ok(())
        } else {
            Err(format!("`{key}` is {value}, expected {expected}"))
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, String> {
        self.require(key, &default.into(), Value::is_boolean, "true or false")?;
        Ok(self.0.get(key).and_then(Value::as_bool).unwrap_or(default))
    }

    /// A size by its GPT-2 name or by the one that transformers gives it in every model.
    fn size(&self, key: &str, alias: Option<&str>, default: usize) -> Result<usize, String> {
        let read = |key: &str| {
            let Some(value) = self.0.get(key) else {
                return Ok(None);
            };
            let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
            size.map(Some)
                .ok_or_else(|| format!("`{key}` is {value}, expected a whole number"))
        };
        let Some(alias) = alias else {
            return Ok(read(key)?.unwrap_or(default));
        };
        match (read(key)?, read(alias)?) {
            (Some(size), Some(other)) if size != other => {
                Err(format!("`{key}` is {size} and `{alias}` is {other}, expected the same"))
            }
            (size, other) => Ok(size.or(other).unwrap_or(default)),
        }
    }
}

/// Why there is nothing at a path, and what to do.
pub(super) fn nothing_at(path: &Path) -> String {
    match hub_name(path) {
        Some((name, model)) => format!(
            "no such file or directory; it looks like a model on the Hugging Face hub: give `hf:{name}`, or get it by \
             `hf download {name} {CONFIG_FILE} model.safetensors --local-dir {}` and give that directory",
            quoted(&model)
        ),
        None => format!(
            "no such file or directory: expected a directory with {CONFIG_FILE} and model.safetensors, a checkpoint of llm.c, or a \
             GGUF file"
        ),
    }
}

/// The path as the name of a model on the hub, if it looks like one, and a directory for it here.
fn hub_name(path: &Path) -> Option<(&str, PathBuf)> {
    let name = path.to_str()?;
    let is_it = |known: &&&str| known.split_once('/').is_some_and(|(_, model)| model == name);
    if let Some(known) = HUB_NAMES.iter().find(is_it) {
        return Some((known, name.into()));
    }
    let (owner, model) = name.split_once('/')?;
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_alphanumeric())
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    // With such a directory here, a path is meant.
    (is_word(owner) && is_word(model) && !Path::new(owner).exists()).then(|| (name, model.into()))
}

/// `config.json` and `generation_config.json` of a model.
pub(super) fn files(config: &Gpt2Config, dtype: Dtype) -> [(&'static str, Value); 2] {
    let end_of_text = config.end_of_text();
    let variant = config.variant;
    let mut model = json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_embd": config.n_embd,
        "activation_function": variant.activation_function.hf_name(),
        "layer_norm_epsilon": 1e-5,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "tie_word_embeddings": variant.tie_word_embeddings,
        "torch_dtype": match dtype {
            Dtype::F32 => "float32",
            Dtype::F16 => "float16",
            Dtype::Bf16 => "bfloat16",
        },
    });
    if let Some(inner) = variant.n_inner {
        model["n_inner"] = inner.into();
    }
    if !variant.scale_attn_weights {
        model["scale_attn_weights"] = false.into();
    }
    if variant.scale_attn_by_inverse_layer_idx {
        model["scale_attn_by_inverse_layer_idx"] = true.into();
    }
    let generation = json!({ "bos_token_id": end_of_text, "eos_token_id": end_of_text });
    [(CONFIG_FILE, model), ("generation_config.json", generation)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(changes: &Value) -> Result<Gpt2Config, ModelError> {
        let dir = tempfile::tempdir().unwrap();
        let tiny = Gpt2Config {
            vocab_size: 61,
            block_size: 16,
            n_layer: 2,
            n_head: 2,
            n_embd: 8,
            dropout: 0.1,
            variant: Variant::default(),
        };
        let [(name, mut config), _] = files(&tiny, Dtype::F32);
        let keys = config.as_object_mut().unwrap();
        for (key, value) in changes.as_object().unwrap() {
            // `"absent"` takes a key out.
            if value == "absent" {
                keys.remove(key);
            } else {
                keys.insert(key.clone(), value.clone());
            }
        }
        std::fs::write(dir.path().join(name), config.to_string()).unwrap();
        read(dir.path())
    }

    #[test]
    fn a_key_that_changes_what_is_computed_is_refused_by_its_name() {
        for (changes, expected) in [
            (
                json!({"model_type": "gpt_neo"}),
                "`model_type` is \"gpt_neo\", expected \"gpt2\"",
            ),
            (
                json!({"model_type": "absent"}),
                "`model_type` is \"none\", expected \"gpt2\"",
            ),
            (
                json!({"activation_function": "silu"}),
                "`activation_function` is \"silu\", expected \"gelu_new\"",
            ),
            (
                json!({"activation_function": 7}),
                "`activation_function` is 7, expected",
            ),
            (
                json!({"layer_norm_epsilon": 1e-6}),
                "`layer_norm_epsilon` is 1e-6, expected 1e-5",
            ),
            (
                json!({"layer_norm_epsilon": "1e-5"}),
                "`layer_norm_epsilon` is \"1e-5\", expected 1e-5",
            ),
            (
                json!({"add_cross_attention": true}),
                "`add_cross_attention` is true, expected false",
            ),
            (
                json!({"reorder_and_upcast_attn": 1}),
                "`reorder_and_upcast_attn` is 1, expected true or false",
            ),
            (
                json!({"tie_word_embeddings": null}),
                "`tie_word_embeddings` is null, expected true or false",
            ),
            (
                json!({"pruned_heads": {"0": [1]}}),
                "`pruned_heads` is {\"0\":[1]}, expected no pruned heads",
            ),
            (
                json!({"quantization_config": {"bits": 4}}),
                "`quantization_config` is {\"bits\":4}, expected",
            ),
            (json!({"n_inner": -1}), "`n_inner` is -1, expected a whole number"),
            (
                json!({"scale_attn_weights": 1}),
                "`scale_attn_weights` is 1, expected true or false",
            ),
            (json!({"n_layer": -1}), "`n_layer` is -1, expected a whole number"),
            (json!({"n_head": null}), "`n_head` is null, expected a whole number"),
            (
                json!({"hidden_size": 16}),
                "`n_embd` is 8 and `hidden_size` is 16, expected the same",
            ),
        ] {
            let Err(error) = judged(&changes) else {
                panic!("{changes} is taken");
            };
            let message = error.to_string();
            assert!(message.contains(&format!("config.json: {expected}")), "{message}");
        }
    }

    #[test]
    fn a_key_at_its_default_is_taken() {
        for changes in [
            json!({}),
            json!({"n_inner": null, "pruned_heads": {}, "quantization_config": null}),
            json!({"n_inner": 32, "scale_attn_weights": true, "scale_attn_by_inverse_layer_idx": false}),
            json!({"activation_function": "gelu_pytorch_tanh", "add_cross_attention": false}),
            json!({"reorder_and_upcast_attn": true, "use_cache": false, "summary_type": "mean"}),
            json!({"hidden_size": 8, "n_embd": "absent"}),
        ] {
            let config = judged(&changes).unwrap();
            assert_eq!(config.variant, Variant::default());
            assert_eq!((config.n_embd, config.dropout), (8, 0.0), "{changes}");
        }
        let defaults = ["vocab_size", "n_positions", "n_layer", "n_head", "n_embd"].map(|key| (key, json!("absent")));
        let config = judged(&defaults.into_iter().collect()).unwrap();
        assert_eq!(config, Gpt2Config::preset("gpt2").unwrap());
    }

    #[test]
    fn what_differs_from_openais_is_read_and_written() {
        let changes = json!({
            "n_inner": 24,
            "activation_function": "gelu",
            "tie_word_embeddings": false,
            "scale_attn_weights": false,
            "scale_attn_by_inverse_layer_idx": true,
        });
        let config = judged(&changes).unwrap();
        let expected = Variant {
            n_inner: Some(24),
            activation_function: Activation::Gelu,
            tie_word_embeddings: false,
            scale_attn_weights: false,
            scale_attn_by_inverse_layer_idx: true,
        };
        assert_eq!(config.variant, expected);
        let [(_, written), _] = files(&config, Dtype::Bf16);
        for (key, value) in changes.as_object().unwrap() {
            assert_eq!(&written[key], value, "{key}");
        }
        assert_eq!(written["torch_dtype"], "bfloat16");
    }

    #[test]
    fn a_configuration_that_cannot_be_is_refused() {
        let message = |changes| judged(&changes).err().unwrap().to_string();
        assert!(message(json!({"n_head": 3})).contains("`n_embd` is 8, expected a multiple of n_head (3)"));
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), "{").unwrap();
        let message = read(dir.path()).unwrap_err().to_string();
        assert!(message.contains("config.json: not a JSON object: EOF"), "{message}");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let message = |path: &str| nothing_at(Path::new(path));
        assert_eq!(
            message("openai-community/gpt2"),
            "no such file or directory; it looks like a model on the Hugging Face hub: give `hf:openai-community/gpt2`, or get \
             it by `hf download openai-community/gpt2 config.json model.safetensors --local-dir gpt2` and give that directory"
        );
        assert!(message("distilgpt2").contains("`hf download distilbert/distilgpt2 "));
        // `src` is here: this is a path with a fault.
        for path in ["src/gpt2", "runs/a/checkpoints", "/no/where", "../gpt2"] {
            assert!(message(path).starts_with("no such file or directory: expected a directory with config.json"));
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Err(ModelError::Io { .. })));
    }
}
