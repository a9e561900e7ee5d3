//! Weights in files: what is written is read, and every way in which a file can be wrong is named.

use crate::support::{DEVICE, Inference, TINY, bits, small};
use gpt2_model::weights::{NamedTensor, Weights, load_config, parameters, read_tensors, save_hf, write_tensors};
use gpt2_model::{Gpt2, Gpt2Config, ModelError};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A directory with a model.
fn saved() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    save_hf(&small().init::<Inference>(1, &DEVICE).unwrap(), dir.path()).unwrap();
    dir
}

/// A directory with a model whose tensors were changed.
fn saved_with(change: impl FnOnce(&mut Vec<NamedTensor>)) -> TempDir {
    let dir = saved();
    let path = dir.path().join(WEIGHTS);
    let mut tensors = read_tensors(&path).unwrap();
    change(&mut tensors);
    write_tensors(&path, &tensors).unwrap();
    dir
}

fn load(dir: &TempDir) -> Result<Gpt2<Inference>, ModelError> {
    Gpt2::load(dir.path(), &DEVICE)
}

/// Asserts that the directory's weights are those of [`saved`], to the last bit.
#[track_caller]
fn assert_loads(dir: &TempDir) {
    let expected = parameters(&small().init::<Inference>(1, &DEVICE).unwrap());
    let found = parameters(&load(dir).unwrap());
    assert_eq!(found.len(), 28);
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!((&found.name, &found.shape), (&expected.name, &expected.shape));
        assert_eq!(bits(&found.values), bits(&expected.values), "{}", found.name);
    }
}

#[track_caller]
fn message(dir: &TempDir) -> String {
    let message = load(dir).expect_err("wrong weights").to_string();
    assert!(
        message.starts_with(&dir.path().display().to_string()) && !message.contains('\n'),
        "{message}"
    );
    message
}

fn set_config(dir: &Path, key: &str, value: Value) {
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

fn find<'a>(tensors: &'a mut [NamedTensor], name: &str) -> &'a mut NamedTensor {
    tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
}

#[test]
fn what_is_saved_is_loaded() {
    assert_loads(&saved());
}

#[test]
fn the_prefix_may_be_absent() {
    assert_loads(&saved_with(|tensors| {
        for tensor in tensors {
            tensor.name = tensor.name.strip_prefix("transformer.").unwrap().to_owned();
        }
    }));
}

#[test]
fn narrow_types_are_widened() {
    let dir = saved();
    let path = dir.path().join(WEIGHTS);
    let tensors = read_tensors(&path).unwrap();
    let halves: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|tensor| {
            let halves = tensor
                .values
                .iter()
                .flat_map(|&value| half::bf16::from_f32(value).to_le_bytes());
            (tensor.name.clone(), tensor.shape.clone(), halves.collect())
        })
        .collect();
    let views = halves
        .iter()
        .map(|(name, shape, bytes)| (name, TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap()));
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let expected = parameters(&small().init::<Inference>(1, &DEVICE).unwrap());
    for (found, expected) in parameters(&load(&dir).unwrap()).iter().zip(expected) {
        let expected: Vec<f32> = expected
            .values
            .iter()
            .map(|&value| half::bf16::from_f32(value).to_f32())
            .collect();
        assert_eq!(bits(&found.values), bits(&expected));
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let missing = saved_with(|tensors| tensors.retain(|tensor| tensor.name != "transformer.h.1.mlp.c_fc.bias"));
    let expected = "tensor `h.1.mlp.c_fc.bias` is missing: expected the 28 parameters of a GPT-2 with 2 layers";
    assert!(message(&missing).ends_with(expected), "{}", message(&missing));

    for name in ["transformer.h.2.ln_1.weight", "score.weight"] {
        let unexpected = saved_with(|tensors| {
            tensors.push(NamedTensor {
                name: name.into(),
                shape: vec![8],
                values: vec![1.0; 8],
            });
        });
        let name = name.trim_start_matches("transformer.");
        let expected = format!("tensor `{name}` is no parameter of this GPT-2");
        assert!(message(&unexpected).ends_with(&expected), "{}", message(&unexpected));
    }

    let turned = saved_with(|tensors| find(tensors, "transformer.h.0.attn.c_attn.weight").shape = vec![24, 8]);
    let expected = "tensor `h.0.attn.c_attn.weight` is [24, 8], expected [8, 24]";
    assert!(message(&turned).ends_with(expected), "{}", message(&turned));

    let longer = saved();
    set_config(longer.path(), "vocab_size", json!(60));
    let expected = "tensor `wte.weight` is [61, 8], expected [60, 8]";
    assert!(message(&longer).ends_with(expected), "{}", message(&longer));

    let twice = saved_with(|tensors| {
        let mut copy = find(tensors, "transformer.wpe.weight").clone();
        copy.name = "wpe.weight".into();
        tensors.push(copy);
    });
    assert!(
        message(&twice).ends_with("wpe.weight` is no parameter of this GPT-2"),
        "{}",
        message(&twice)
    );
}

#[test]
fn weights_of_another_configuration_are_refused() {
    let config = Gpt2Config { n_embd: 16, ..small() };
    let weights = Weights::open(saved().path()).unwrap();
    let error = weights.load::<Inference>(&config, &DEVICE).unwrap_err();
    assert!(matches!(error, ModelError::TensorMismatch { .. }), "{error}");
}

#[test]
fn buffers_are_passed_over_whatever_their_type() {
    for dtype in [Dtype::U8, Dtype::BOOL, Dtype::I64, Dtype::F32, Dtype::F64] {
        let dir = saved();
        let path = dir.path().join(WEIGHTS);
        let tensors = read_tensors(&path).unwrap();
        let mask = vec![0_u8; 16 * 16 * dtype.bitsize() / 8];
        let buffer = |name: &str| {
            let view = TensorView::new(dtype, vec![1, 1, 16, 16], &mask).unwrap();
            (format!("transformer.h.1.attn.{name}"), view)
        };
        let parameters = tensors.iter().map(|tensor| {
            let bytes = bytemuck::cast_slice(&tensor.values);
            (
                tensor.name.clone(),
                TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).unwrap(),
            )
        });
        let views = parameters.chain(["bias", "masked_bias"].map(buffer));
        fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        assert_loads(&dir);
    }
}

#[test]
fn integers_are_refused_before_any_value_is_read() {
    let dir = saved();
    let path = dir.path().join(WEIGHTS);
    let tensors = read_tensors(&path).unwrap();
    let views = tensors.iter().map(|tensor| {
        // As many bytes as those of the floats.
        let dtype = match tensor.name.as_str() {
            "transformer.wpe.weight" => Dtype::I32,
            _ => Dtype::F32,
        };
        let view = TensorView::new(dtype, tensor.shape.clone(), bytemuck::cast_slice(&tensor.values));
        (tensor.name.clone(), view.unwrap())
    });
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    let error = Weights::open(dir.path()).unwrap_err().to_string();
    let expected = "tensor `transformer.wpe.weight` is I32, expected F64, F32, F16 or BF16";
    assert!(error.ends_with(expected), "{error}");
    assert_eq!(message(&dir), error);
}

#[test]
fn a_tied_classifier_is_the_token_embedding() {
    let with_head = |change: fn(&mut Vec<f32>)| {
        saved_with(|tensors| {
            let mut head = find(tensors, "transformer.wte.weight").clone();
            head.name = "lm_head.weight".into();
            change(&mut head.values);
            tensors.push(head);
        })
    };
    assert_loads(&with_head(|_| ()));

    let other = with_head(|values| values[3] += 1.0);
    let expected =
        "the classifier `lm_head.weight` differs from the token embedding, and config.json says that it is tied";
    assert!(message(&other).contains(expected), "{}", message(&other));
    // One of its own is a parameter more.
    set_config(other.path(), "tie_word_embeddings", json!(false));
    let found = parameters(&load(&other).unwrap());
    assert_eq!((found.len(), found[28].name.as_str()), (29, "lm_head.weight"));
    assert_ne!(found[28].values, found[0].values);

    let missing = saved();
    set_config(missing.path(), "tie_word_embeddings", json!(false));
    let expected = "tensor `lm_head.weight` is missing";
    assert!(message(&missing).contains(expected), "{}", message(&missing));
}

#[test]
fn a_single_file_is_read_with_the_configuration_next_to_it() {
    let dir = saved();
    let expected = parameters(&small().init::<Inference>(1, &DEVICE).unwrap());
    let found = parameters(&Gpt2::<Inference>::load(dir.path().join(WEIGHTS), &DEVICE).unwrap());
    assert_eq!(found, expected);
}

/// The model in two files and an index.
fn sharded() -> TempDir {
    let dir = saved();
    let path = dir.path().join(WEIGHTS);
    let tensors = read_tensors(&path).unwrap();
    fs::remove_file(path).unwrap();
    let mut map = serde_json::Map::new();
    for (i, part) in tensors.chunks(tensors.len().div_ceil(2)).enumerate() {
        let file = format!("model-0000{}-of-00002.safetensors", i + 1);
        write_tensors(&dir.path().join(&file), part).unwrap();
        map.extend(part.iter().map(|tensor| (tensor.name.clone(), json!(file))));
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(dir.path().join(INDEX), index.to_string()).unwrap();
    dir
}

#[test]
fn several_files_with_an_index_are_one_model() {
    let dir = sharded();
    assert_loads(&dir);
    fs::remove_file(dir.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert!(
        message(&dir).contains("model-00002-of-00002.safetensors: No such file"),
        "{}",
        message(&dir)
    );
    for (index, expected) in [
        (
            json!({}),
            "not an index of safetensors files (`weight_map`): missing field `weight_map`",
        ),
        (
            json!({"weight_map": {"transformer.wte.weight": "../other.safetensors"}}),
            "`weight_map` names \"../other.safetensors\", expected a file in the same directory",
        ),
    ] {
        fs::write(dir.path().join(INDEX), index.to_string()).unwrap();
        assert!(message(&dir).contains(expected), "{}", message(&dir));
    }
}

#[test]
fn weights_of_another_kind_are_named_with_what_to_do() {
    let dir = saved();
    fs::remove_file(dir.path().join(WEIGHTS)).unwrap();
    let expected = "no weights in it: expected model.safetensors, or model.safetensors.index.json with the files";
    assert!(message(&dir).contains(expected), "{}", message(&dir));
    fs::write(dir.path().join("pytorch_model.bin"), "PK\x03\x04").unwrap();
    let converted = format!("save_pretrained(sys.argv[1])' {}`", dir.path().display());
    let found = message(&dir);
    assert!(
        found.contains("but pytorch_model.bin, a pickle of PyTorch's") && found.ends_with(&converted),
        "{found}"
    );

    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 548105171\n";
    fs::write(dir.path().join(WEIGHTS), pointer).unwrap();
    let expected = format!(
        "a Git LFS pointer, not the file that it stands for: get that by `git -C {} lfs pull`",
        dir.path().display()
    );
    assert!(message(&dir).ends_with(&expected), "{}", message(&dir));
}

#[test]
fn a_directory_is_complete_for_transformers_but_for_the_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let config = Gpt2Config {
        vocab_size: 50_304,
        ..small()
    };
    save_hf(&config.init::<Inference>(1, &DEVICE).unwrap(), dir.path()).unwrap();
    let json = |name: &str| -> Value { serde_json::from_slice(&fs::read(dir.path().join(name)).unwrap()).unwrap() };
    // The end of the text is GPT-2's, not a padded token.
    let generation = json!({"bos_token_id": 50_256, "eos_token_id": 50_256});
    assert_eq!(json("generation_config.json"), generation);
    let found = json("config.json");
    assert_eq!(
        (&found["eos_token_id"], &found["vocab_size"]),
        (&json!(50_256), &json!(50_304))
    );
    assert_eq!(load_config(dir.path()).unwrap(), config);
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["config.json", "generation_config.json", WEIGHTS],
        "nothing temporary is left"
    );
}

#[cfg(unix)]
#[test]
fn modes_follow_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    let dir = saved();
    let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
    fs::write(dir.path().join("plain"), "").unwrap();
    for name in [WEIGHTS, "config.json", "generation_config.json"] {
        assert_eq!(mode(name), mode("plain"), "{name}");
    }
}

#[test]
fn what_transformers_saved_is_loaded() {
    let model: Gpt2<Inference> = Gpt2::load(TINY, &DEVICE).unwrap();
    assert_eq!(model.config.n_embd, 32);
}
