//! `gpt2 export` and `gpt2 import`, of a run that was trained for it.

use crate::support::{gpt2, prepared, train};
use burn_flex::{Flex, FlexDevice};
use gpt2_model::weights::save_hf;
use gpt2_model::{Gpt2Config, Variant};
use std::fs;
use std::path::Path;
use tempfile::{TempDir, tempdir};

/// A directory with a run `run` of two steps.
fn with_run() -> TempDir {
    let dir = tempdir().unwrap();
    prepared(dir.path());
    train(dir.path(), &["--data", "data", "--run", "run"]).succeeded();
    dir
}

fn command(dir: &Path, line: &str) -> crate::support::Outcome {
    gpt2(dir, &line.split(' ').collect::<Vec<_>>())
}

/// What the model at `weights` writes, the same tokens for the same model.
fn text(dir: &Path, weights: &str) -> String {
    let line = format!("sample {weights} --backend flex --max-tokens 8 --temperature 0 --prompt Speak");
    command(dir, &line).succeeded()
}

#[test]
fn a_run_is_exported_in_each_format_and_read_again() {
    let dir = with_run();
    let dir = dir.path();
    let expected = text(dir, "--run run");
    for (format, out) in [("hf", "hf"), ("llmc", "m.bin"), ("gguf", "m.gguf")] {
        let outcome = command(dir, &format!("export run --format {format} --out {out}"));
        assert!(outcome.stderr.contains(&format!("as {format} in f32")), "{outcome:#?}");
        outcome.succeeded();
        assert_eq!(text(dir, &format!("--init {out}")), expected, "{format}");
    }
    // Through another program's format and back, to the last bit.
    command(dir, "import m.bin --out imported").succeeded();
    command(dir, "export imported --format llmc --out again.bin").succeeded();
    assert!(fs::read(dir.join("m.bin")).unwrap() == fs::read(dir.join("again.bin")).unwrap());
    command(dir, "import m.gguf --out from-gguf").succeeded();
    let weights = |name: &str| fs::read(dir.join(name).join("model.safetensors")).unwrap();
    assert!(weights("from-gguf") == weights("hf"));
    assert!(weights("hf") == weights("run/checkpoints/step-00000002"));

    // Complete for transformers, with what is known of the training.
    for name in [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
    ] {
        assert!(dir.join("hf").join(name).is_file(), "{name}");
    }
    let card = fs::read_to_string(dir.join("hf/README.md")).unwrap();
    for part in [
        "library_name: transformers",
        "| optimizer steps | 2 |",
        "| validation loss | 1",
        "| data | data |",
    ] {
        assert!(card.contains(part), "{part:?} in {card}");
    }
    // Half the bytes.
    command(dir, "export run --format gguf --dtype f16 --out made/half.gguf").succeeded();
    command(dir, "export run --dtype bf16 --out half").succeeded();
    let size = |name: &str| fs::metadata(dir.join(name)).unwrap().len();
    assert!(size("half/model.safetensors") < size("hf/model.safetensors") * 51 / 100);
    assert!(size("made/half.gguf") < size("m.gguf"));
}

#[test]
fn training_begins_from_every_format() {
    let dir = with_run();
    let dir = dir.path();
    let flags = [
        "--data",
        "data",
        "--init",
        "run/checkpoints/step-00000002",
        "--run",
        "hf",
    ];
    train(dir, &flags).succeeded();
    let weights = |run: &str| fs::read(dir.join(run).join("checkpoints/step-00000002/model.safetensors")).unwrap();
    for (format, out) in [("llmc", "m.bin"), ("gguf", "m.gguf")] {
        command(dir, &format!("export run --format {format} --out {out}")).succeeded();
        train(dir, &["--data", "data", "--init", out, "--run", format]).succeeded();
        assert!(weights(format) == weights("hf"), "{format}");
    }
}

#[test]
fn a_model_that_differs_from_openais_is_trained_resumed_and_exported() {
    let dir = with_run();
    let dir = dir.path();
    let config = Gpt2Config {
        vocab_size: 50_257,
        block_size: 32,
        n_layer: 2,
        n_head: 2,
        n_embd: 8,
        dropout: 0.0,
        variant: Variant {
            n_inner: Some(24),
            scale_attn_by_inverse_layer_idx: true,
            ..Variant::default()
        },
    };
    fs::create_dir(dir.join("other")).unwrap();
    save_hf(&config.init::<Flex>(1, &FlexDevice).unwrap(), &dir.join("other")).unwrap();
    let line = "train --init other --data data --run mine --backend flex --threads 1 --seq 16 --batch 2 --steps 2 \
                --eval-batches 1 --sample-every 0";
    let said = command(dir, line);
    let expected = "the factor on attention's scores in plain tensors, slower: the kernels divide them by";
    assert!(said.stderr.contains(expected), "{said:#?}");
    said.succeeded();
    command(dir, "train --run mine --resume --steps 4").succeeded();
    let config = fs::read_to_string(dir.join("mine/checkpoints/step-00000004/config.json")).unwrap();
    assert!(config.contains("\"scale_attn_by_inverse_layer_idx\": true") && config.contains("\"n_inner\": 24"));
    command(dir, "export mine --out exported").succeeded();
    assert_eq!(text(dir, "--init exported"), text(dir, "--run mine"));
    let refused = command(dir, "export mine --format gguf --out mine.gguf");
    refused.refused("GGUF has no `scale_attn_by_inverse_layer_idx` of true, expected false; write the format hf");
    assert!(!dir.join("mine.gguf").exists());
}

#[test]
fn what_cannot_be_exported_is_refused() {
    let dir = with_run();
    let dir = dir.path();
    let refused = |line: &str, expected: &str| command(dir, line).refused(expected);
    refused(
        "export run --out data",
        "--out is data, which is there already, expected a path where nothing is yet",
    );
    refused(
        "export run --format llmc --dtype f16 --out a",
        "llm.c has no `dtype` of f16, expected f32 or bf16",
    );
    refused("export nowhere --out a", "nowhere: no such file or directory");
    refused(
        "import play.txt --out a",
        "play.txt: no weights of a GPT-2: expected a directory with config.json",
    );
    refused(
        "export run --format onnx --out a",
        "invalid value 'onnx' for '--format <FORMAT>'",
    );
    assert!(!dir.join("a").exists());
}
