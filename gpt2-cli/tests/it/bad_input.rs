//! What cannot be trained on is refused in one line, with exit code 1, before anything is written.

use crate::support::{Outcome, gpt2, play, prepared, shard, train};
use burn_flex::{Flex, FlexDevice};
use gpt2_data::{LLAMA3_MAGIC, SHARD_MAGIC, SHARD_VERSION};
use gpt2_model::weights::{read_tensors, save_hf, write_tensors};
use gpt2_model::{Gpt2Config, Variant};
use gpt2_train::run_dir::RunDir;
use std::fs;
use std::path::Path;
use tempfile::{TempDir, tempdir};

/// Trains on data whose only training shard is `bytes`. The validation shard is sound.
fn train_on(bytes: &[u8]) -> Outcome {
    let dir = tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("x_train_000000.bin"), bytes).unwrap();
    fs::write(
        data.join("x_val_000000.bin"),
        shard(SHARD_MAGIC, SHARD_VERSION, 100, &[1; 100]),
    )
    .unwrap();
    let outcome = train(dir.path(), &["--data", "data", "--run", "run"]);
    assert!(!dir.path().join("run/plan.toml").exists(), "a run was begun");
    outcome
}

/// A directory with prepared data.
fn with_data() -> TempDir {
    let dir = tempdir().unwrap();
    prepared(dir.path());
    dir
}

fn train_with(dir: &Path, flags: &str) -> Outcome {
    let flags = flags.split_whitespace();
    train(dir, &["--data", "data"].into_iter().chain(flags).collect::<Vec<_>>())
}

/// Asserts that a run with `flags` and its dry run are refused in the same words, and that nothing is left of either.
#[track_caller]
fn refused_in_both(dir: &Path, flags: &str, expected: &str) {
    for flags in [format!("--run run {flags}"), format!("--run run {flags} --dry-run")] {
        train_with(dir, &flags).refused(expected);
        assert!(!dir.join("run").exists(), "{flags}");
    }
}

#[test]
fn an_empty_shard() {
    train_on(b"").refused("x_train_000000.bin is empty");
    train_on(&shard(SHARD_MAGIC, SHARD_VERSION, 0, &[])).refused("x_train_000000.bin is empty");
}

#[test]
fn a_truncated_shard() {
    let outcome = train_on(&shard(SHARD_MAGIC, SHARD_VERSION, 100, &[1; 99]));
    outcome.refused("x_train_000000.bin is truncated: its header promises 100 tokens, which is 1224 bytes");
    assert!(
        outcome
            .stderr
            .ends_with("hint: `gpt2 data inspect data` lists all that is wrong\n"),
        "{outcome:#?}"
    );
}

#[test]
fn a_file_of_an_odd_size() {
    train_on(&[7; 2001]).refused("x_train_000000.bin has an odd size (2001 bytes)");
}

#[test]
fn a_foreign_file() {
    train_on(
        "PNG and no token file at all, for every two letters are a number. \u{FFFF}\u{FFFF}"
            .repeat(9)
            .as_bytes(),
    )
    .refused("x_train_000000.bin is not a token file");
}

#[test]
fn a_shard_with_another_magic_number() {
    // llm.c's checkpoints.
    train_on(&shard(20_240_326, 3, 100, &[1; 100])).refused("is not a token shard: its magic number is 20240326");
}

#[test]
fn a_shard_of_another_version() {
    train_on(&shard(SHARD_MAGIC, 9, 100, &[1; 100])).refused("is a token shard of version 9, expected 1");
}

#[test]
fn a_llama_3_shard() {
    train_on(&shard(LLAMA3_MAGIC, 7, 50, &[1; 100])).refused("holds Llama 3 tokens");
}

#[test]
fn a_token_beyond_the_vocabulary() {
    let mut tokens = [1; 100];
    tokens[42] = 50_257;
    let outcome = train_on(&shard(SHARD_MAGIC, SHARD_VERSION, 100, &tokens));
    outcome.refused("x_train_000000.bin holds token 50257 at position 42");
}

#[test]
fn a_missing_shard() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("play.txt"), play()).unwrap();
    let flags = "data prepare --input play.txt --out data --shard-tokens 300";
    gpt2(dir.path(), &flags.split(' ').collect::<Vec<_>>()).succeeded();
    fs::remove_file(dir.path().join("data/tokens_train_000001.bin")).unwrap();
    train_with(dir.path(), "--run run").refused("tokens_train_000001.bin is missing, though the manifest");
}

#[test]
fn missing_data() {
    let dir = tempdir().unwrap();
    let outcome = train_with(dir.path(), "--run run");
    outcome.refused("data is not a directory");
    assert!(
        outcome
            .stderr
            .ends_with("hint: `gpt2 data prepare --help` tells how to make data from text\n"),
        "{outcome:#?}"
    );
    fs::create_dir(dir.path().join("data")).unwrap();
    train_with(dir.path(), "--run run").refused("data has no shards named *train*.bin");
}

#[test]
fn data_shorter_than_a_batch() {
    let short = shard(SHARD_MAGIC, SHARD_VERSION, 20, &[1; 20]);
    train_on(&short).refused("`batch` is 2, expected 32 tokens a batch to be fewer than the 20");
}

#[test]
fn a_sequence_longer_than_the_block() {
    let dir = with_data();
    train_with(dir.path(), "--seq 33 --run run").refused("`seq` is 33, expected 1 to `block-size` (32)");
}

#[test]
fn a_batch_that_cannot_fit() {
    let dir = tempdir().unwrap();
    train(dir.path(), &["--batch", "100000000"]).refused("`batch` is 100000000, expected ");
    // Terabytes of activations, which no host has.
    let outcome = gpt2(
        dir.path(),
        &"train --backend flex --model gpt2-xl --batch 1900 --run run"
            .split(' ')
            .collect::<Vec<_>>(),
    );
    outcome.refused("batch 1900 of 1024 tokens does not fit into memory");
    assert!(!dir.path().join("run").exists());
}

#[test]
fn unknown_names() {
    let dir = with_data();
    train_with(dir.path(), "--model gpt2-medum").refused("unknown model preset `gpt2-medum`");
    train_with(dir.path(), "--backend gpu").refused("invalid value 'gpu' for '--backend <NAME>'");
    train_with(dir.path(), "--n-layers 3").refused("unexpected argument '--n-layers' found");
    fs::write(dir.path().join("mine.toml"), "# mine\nn_layer = 3\n").unwrap();
    gpt2(dir.path(), &["train", "--config", "mine.toml"])
        .refused("mine.toml:2: unknown key `n_layer`; did you mean `n-layer`?");
    gpt2(dir.path(), &["train", "--config", "none.toml"]).refused("cannot read none.toml");
}

#[test]
fn a_device_that_is_not_there() {
    let dir = with_data();
    let outcome = train_with(dir.path(), "--device 99");
    outcome.refused("backend flex has no device 99");
    assert!(
        outcome.stderr.ends_with("hint: `gpt2 devices` lists what there is\n"),
        "{outcome:#?}"
    );
}

#[test]
fn a_precision_that_the_backend_has_not() {
    let dir = with_data();
    train_with(dir.path(), "--precision tf32 --run run").refused("`precision` is tf32, expected f32 or bf16 on ");
    train_with(dir.path(), "--precision bf16 --dropout 0.1 --run run")
        .refused("`precision` is bf16, expected f32 on the flex backend with a dropout of 0.1");
}

#[test]
fn a_dry_run_refuses_what_the_run_would_refuse() {
    let dir = with_data();
    // 1.8 TB of weights, gradients and moments.
    refused_in_both(dir.path(), "--n-layer 1000000", "does not fit into memory (");
    refused_in_both(dir.path(), "--threads 100000", "`threads` is 100000, expected 1 to ");
    // On a processor without a unit for bf16, which is what the device says in both cases.
    let outcome = train_with(dir.path(), "--precision bf16 --run run --dry-run");
    if outcome.code != Some(0) {
        outcome.refused("`precision` is bf16, expected f32 on flex (");
        train_with(dir.path(), "--precision bf16 --run run").refused("`precision` is bf16, expected f32 on flex (");
        assert!(!dir.path().join("run").exists());
    }
}

#[test]
fn weights_that_cannot_be_loaded() {
    let dir = with_data();
    let config = Gpt2Config {
        vocab_size: 50_257,
        block_size: 32,
        n_layer: 1,
        n_head: 1,
        n_embd: 8,
        dropout: 0.0,
        variant: Variant::default(),
    };
    let weights = dir.path().join("weights");
    fs::create_dir(&weights).unwrap();
    save_hf(&config.init::<Flex>(1, &FlexDevice).unwrap(), &weights).unwrap();
    train_with(dir.path(), "--init weights --run run --dry-run").succeeded();
    assert!(!dir.path().join("run").exists());

    let refused = |expected: &str| refused_in_both(dir.path(), "--init weights", expected);
    let file = weights.join("model.safetensors");
    let mut tensors = read_tensors(&file).unwrap();
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 5]).unwrap();
    refused("not a readable safetensors file");
    let turned = tensors
        .iter_mut()
        .find(|tensor| tensor.name.ends_with("h.0.attn.c_attn.weight"));
    turned.unwrap().shape.reverse();
    write_tensors(&file, &tensors).unwrap();
    refused("tensor `h.0.attn.c_attn.weight` is [24, 8], expected [8, 24]");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
    fs::write(&file, pointer).unwrap();
    refused("a Git LFS pointer, not the file that it stands for");
    fs::remove_file(&file).unwrap();
    refused("no weights in it: expected model.safetensors");
    fs::write(weights.join("pytorch_model.bin"), "PK\x03\x04").unwrap();
    refused("but pytorch_model.bin, a pickle of PyTorch's");
    let index = "{\"weight_map\": {\"transformer.wte.weight\": \"model-00001-of-00001.safetensors\"}}";
    fs::write(weights.join("model.safetensors.index.json"), index).unwrap();
    refused("model-00001-of-00001.safetensors: No such file");
}

#[test]
fn a_run_directory_that_cannot_be_made() {
    let dir = with_data();
    // Below a file, which stops root too.
    for flags in ["--run play.txt/run", "--run play.txt/run --dry-run"] {
        train_with(dir.path(), flags).refused("run directory play.txt/run is not writable: Not a directory");
    }
    // Those above it that were missing are not left behind either.
    train_with(dir.path(), "--run runs/a/b --dry-run").succeeded();
    assert!(!dir.path().join("runs").exists());
}

#[test]
fn a_run_directory_in_use() {
    let dir = with_data();
    let _held = RunDir::create(dir.path().join("run")).unwrap();
    let process = format!("run directory run is in use by process {}", std::process::id());
    train_with(dir.path(), "--run run").refused(&process);
    train_with(dir.path(), "--run run --dry-run").refused(&process);
}

#[test]
fn a_run_that_is_not_there_to_resume() {
    let dir = with_data();
    train_with(dir.path(), "--run run --resume").refused("run holds no run: plan.toml is missing");
    assert!(!dir.path().join("run").exists());
}
