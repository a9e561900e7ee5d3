//! `gpt2 sample`, on a run that was trained for it and on weights with a vocabulary of their own.

use crate::support::{gpt2, prepared, run_with_damage, train};
use burn_flex::{Flex, FlexDevice};
use gpt2_model::weights::{read_tensors, save_hf, write_tensors};
use gpt2_model::{Gpt2Config, Variant};
use std::fs;
use std::path::Path;
use tempfile::tempdir;

/// A model with 512 tokens and a block of 64, saved by transformers.
const TINY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../crates/gpt2-backend-tests/tests/fixtures/tiny"
);

fn sample_tiny(flags: &[&str]) -> crate::support::Outcome {
    gpt2(
        Path::new("."),
        &[&["sample", "--backend", "flex", "--init", TINY], flags].concat(),
    )
}

#[test]
fn a_run_is_trained_refused_a_second_time_and_sampled() {
    let dir = tempdir().unwrap();
    prepared(dir.path());
    train(dir.path(), &["--data", "data", "--run", "run", "--plain"]).succeeded();
    let again = train(dir.path(), &["--data", "data", "--run", "run"]);
    again.refused("run directory run already holds a run");
    assert!(
        again
            .stderr
            .contains("hint: `gpt2 train --run run --resume` goes on with it, "),
        "{again:#?}"
    );

    let sample = |flags: &[&str]| {
        let flags = [
            &["sample", "--run", "run", "--backend", "flex", "--max-tokens", "5"],
            flags,
        ]
        .concat();
        gpt2(dir.path(), &flags).succeeded()
    };
    let text = sample(&["--prompt", "First Citizen:"]);
    assert!(text.starts_with("First Citizen:") && text.ends_with('\n'), "{text:?}");
    assert!(text.trim_end().len() > "First Citizen:".len(), "{text:?}");
    assert_eq!(text, sample(&["--prompt", "First Citizen:"]), "the same seed");
    assert!(!sample(&[]).is_empty());
}

#[test]
fn a_checkpoint_that_is_damaged_is_passed_over() {
    let dir = tempdir().unwrap();
    run_with_damage(dir.path());
    let flags = ["sample", "--run", "run", "--backend", "flex", "--max-tokens", "1"];
    let outcome = gpt2(dir.path(), &flags);
    assert!(
        outcome.stderr.contains("warning: checkpoint ") && outcome.stderr.contains("step-00000001"),
        "{outcome:#?}"
    );
    outcome.succeeded();
    fs::remove_dir_all(dir.path().join("run/checkpoints")).unwrap();
    gpt2(dir.path(), &flags).refused("no whole checkpoint in run/checkpoints");
}

#[test]
fn another_vocabulary_is_printed_in_numbers() {
    let outcome = sample_tiny(&["--prompt", "1 2 3", "--max-tokens", "4", "--temperature", "0"]);
    assert!(
        outcome.stderr.contains("the model has 512 tokens, not GPT-2's 50257"),
        "{outcome:#?}"
    );
    let text = outcome.succeeded();
    let tokens: Vec<usize> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!(tokens.len(), 7, "{text}");
    assert_eq!(tokens[..3], [1, 2, 3]);
    assert!(tokens.iter().all(|&token| token < 512), "{text}");
}

/// A small model with random weights.
fn save(vocab_size: usize, dir: &Path) {
    let config = Gpt2Config {
        vocab_size,
        block_size: 16,
        n_layer: 1,
        n_head: 1,
        n_embd: 8,
        dropout: 0.0,
        variant: Variant::default(),
    };
    save_hf(&config.init::<Flex>(1, &FlexDevice).unwrap(), dir).unwrap();
}

#[test]
fn padded_and_added_tokens_leave_the_text_gpt2s() {
    for vocab_size in [50_304, 50_260] {
        let dir = tempdir().unwrap();
        save(vocab_size, dir.path());
        let flags = [
            "sample",
            "--backend",
            "flex",
            "--init",
            ".",
            "--prompt",
            "Hello",
            "--max-tokens",
            "20",
        ];
        let outcome = gpt2(dir.path(), &flags);
        let remark = format!("the model has {vocab_size} tokens: the first 50257 are printed as GPT-2's text");
        assert!(outcome.stderr.contains(&remark), "{outcome:#?}");
        let text = outcome.succeeded();
        assert!(text.starts_with("Hello") && text.ends_with('\n'), "{text:?}");
    }
}

#[test]
fn a_model_whose_logits_are_not_finite_is_refused() {
    let dir = tempdir().unwrap();
    save(50_257, dir.path());
    let path = dir.path().join("model.safetensors");
    let mut tensors = read_tensors(&path).unwrap();
    for tensor in &mut tensors {
        if tensor.name.ends_with("mlp.c_fc.weight") {
            tensor.values[3] = f32::NAN;
        }
    }
    write_tensors(&path, &tensors).unwrap();
    for temperature in ["0", "0.8"] {
        let flags = [
            "sample",
            "--backend",
            "flex",
            "--init",
            ".",
            "--prompt",
            "x",
            "--temperature",
            temperature,
        ];
        let outcome = gpt2(dir.path(), &flags);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:#?}");
        let expected = "error: the model's logits are not finite at token 1: ";
        assert!(outcome.stderr.contains(expected), "{outcome:#?}");
    }
}

#[test]
fn a_prompt_longer_than_the_block_is_cut_and_said() {
    let prompt = "7 ".repeat(65);
    let outcome = sample_tiny(&["--prompt", &prompt, "--max-tokens", "2"]);
    assert!(
        outcome
            .stderr
            .contains("warning: the prompt has 65 tokens, of which the model sees the last 64"),
        "{outcome:#?}"
    );
    assert_eq!(outcome.succeeded().split_whitespace().count(), 67);
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    for value in ["-1", "nan", "inf"] {
        sample_tiny(&["--temperature", value]).refused("--temperature is ");
    }
    for value in ["0", "1.1", "nan"] {
        sample_tiny(&["--top-p", value]).refused("--top-p is ");
    }
    sample_tiny(&["--max-tokens", "0"]).refused("--max-tokens is 0, expected at least 1");
    let outcome = sample_tiny(&["--precision", "tf32"]);
    assert!(
        outcome
            .stderr
            .contains("error: --precision is tf32, expected f32: the kernels"),
        "{outcome:#?}"
    );
    sample_tiny(&["--top-k", "-1"]).refused("invalid value '-1' for '--top-k <K>'");
    gpt2(Path::new("."), &["sample"])
        .refused("the following required arguments were not provided: <--run <DIR>|--init <PATH>>");
    gpt2(Path::new("."), &["sample", "--run", "a", "--init", "b"]).refused("cannot be used with");
}

#[test]
fn weights_that_are_not_there_are_refused() {
    let dir = tempdir().unwrap();
    gpt2(dir.path(), &["sample", "--run", "run"]).refused("run holds no run");
    fs::create_dir(dir.path().join("empty")).unwrap();
    let outcome = gpt2(dir.path(), &["sample", "--backend", "flex", "--init", "empty"]);
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    assert!(
        outcome.stderr.contains("error: empty: no config.json in it, expected "),
        "{outcome:#?}"
    );
    // Nothing waits for somebody to write into a pipe.
    #[cfg(unix)]
    {
        let made = std::process::Command::new("mkfifo")
            .arg(dir.path().join("pipe"))
            .status();
        assert!(made.unwrap().success());
        let outcome = gpt2(dir.path(), &["sample", "--backend", "flex", "--init", "pipe"]);
        assert_eq!(outcome.code, Some(1), "{outcome:#?}");
        assert!(
            outcome.stderr.contains("error: pipe: no regular file: "),
            "{outcome:#?}"
        );
    }
    let outcome = gpt2(
        dir.path(),
        &["sample", "--backend", "flex", "--init", "openai-community/gpt2"],
    );
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    let expected =
        "error: openai-community/gpt2: no such file or directory; it looks like a model on the Hugging Face hub: ";
    let fix = "`hf download openai-community/gpt2 config.json model.safetensors --local-dir gpt2`";
    assert!(
        outcome.stderr.contains(expected) && outcome.stderr.contains(fix),
        "{outcome:#?}"
    );
}
