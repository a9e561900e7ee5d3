//! `gpt2 eval` on a run that was trained for it and on weights with a vocabulary of their own, and
//! `gpt2 data prepare-hellaswag`.

use crate::support::{Outcome, gpt2, prepared, run_with_damage, train};
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::{TempDir, tempdir};

/// A model with 512 tokens and a block of 64, saved by transformers, and examples in its tokens.
const TINY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../crates/gpt2-backend-tests/tests/fixtures/tiny"
);

const HELLASWAG: &str = r#"{"ind": 1, "ctx": "First Citizen: Speak", "label": 0, "endings": ["no words.", "two.", "of tides, and then of nothing", "it"]}
{"ind": 2, "ctx": "Let the tide", "label": "3", "endings": ["sing", "go on and on", "be", "answer."]}
{"ind": 3, "ctx": "A man of twelve", "label": 2, "endings": ["eats", "walks away slowly", "words", "is"]}
"#;

const LAMBADA: &str = r#"{"text": "Speak no words, and let the tide answer"}
{"text": "First Citizen: Speak two words"}
"#;

fn words(flags: &str) -> Vec<&str> {
    flags.split_whitespace().collect()
}

fn eval(dir: &Path, flags: &str) -> Outcome {
    gpt2(dir, &[&["eval", "--backend", "flex"], &words(flags)[..]].concat())
}

/// Evaluates what is expected to succeed, with its JSON.
fn scores(dir: &Path, flags: &str) -> Value {
    eval(dir, &format!("{flags} --json scores.json")).succeeded();
    json(&dir.join("scores.json"))
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The lines of a file of examples.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The numbers in all of `value`, in order.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Number(number) => vec![number.as_f64().unwrap()],
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        Value::Object(values) => values.values().flat_map(numbers).collect(),
        _ => Vec::new(),
    }
}

/// Asserts that two files hold the same but for rounding.
#[track_caller]
fn assert_close(found: &[Value], expected: &[Value]) {
    let [found, expected] = [found, expected].map(|lines| lines.iter().flat_map(numbers).collect::<Vec<_>>());
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= 1e-5 * expected.abs().max(1.0),
            "{found} {expected}"
        );
    }
}

/// A directory with data, a run that was trained on it, and examples of both tasks.
fn with_run() -> TempDir {
    let dir = tempdir().unwrap();
    prepared(dir.path());
    train(dir.path(), &["--data", "data", "--run", "run", "--quiet"]).succeeded();
    fs::write(dir.path().join("hellaswag.jsonl"), HELLASWAG).unwrap();
    fs::write(dir.path().join("lambada.jsonl"), LAMBADA).unwrap();
    dir
}

#[test]
fn a_run_is_scored_on_every_task() {
    let dir = with_run();
    let dir = dir.path();
    let all = "run --data data --seq 16 --hellaswag hellaswag.jsonl --lambada lambada.jsonl";
    let outcome = eval(dir, &format!("{all} --json scores.json --per-example examples.jsonl"));
    assert!(
        outcome.stderr.starts_with("run/checkpoints/step-00000002 on flex "),
        "{outcome:#?}"
    );
    assert_eq!(
        outcome.stderr.lines().count(),
        1,
        "no bar where there is no terminal: {outcome:#?}"
    );
    let table = outcome.succeeded();
    let rows: Vec<Vec<&str>> = table.lines().map(words).collect();
    let names: Vec<_> = rows.iter().skip(1).map(|row| row[0]).collect();
    let expected = [
        "loss",
        "loss",
        "loss",
        "hellaswag",
        "hellaswag",
        "lambada",
        "lambada",
        "lambada",
    ];
    assert_eq!(names, expected, "{table}");

    let report = json(&dir.join("scores.json"));
    assert_eq!(report["weights"], "run/checkpoints/step-00000002");
    assert_eq!((&report["backend"], &report["batch"]), (&"flex".into(), &32.into()));
    let [loss, hellaswag, lambada] = &report["results"].as_array().unwrap()[..] else {
        panic!("{report}");
    };
    assert_eq!((&loss["task"], &loss["source"]), (&"loss".into(), &"data".into()));
    let nats = loss["loss"].as_f64().unwrap();
    assert!((loss["perplexity"].as_f64().unwrap() / nats.exp() - 1.0).abs() < 1e-9);
    assert!((9.0..12.0).contains(&nats), "{nats}");
    assert_eq!(hellaswag["examples"], 3);
    assert_eq!(lambada["examples"], 2);

    let examples = lines(&dir.join("examples.jsonl"));
    assert_eq!(examples.len(), loss["windows"].as_u64().unwrap() as usize + 3 + 2);
    assert_eq!(examples.last().unwrap()["task"], "lambada");
    let choices: Vec<_> = examples.iter().filter(|line| line["task"] == "hellaswag").collect();
    let right = |key: &str| choices.iter().filter(|line| line[key] == line["label"]).count() as f64;
    assert_eq!(hellaswag["acc"], right("prediction") / 3.0);
    assert_eq!(hellaswag["acc_norm"], right("prediction_norm") / 3.0);
}

#[test]
fn the_loss_is_that_of_the_runs_own_evaluation() {
    let dir = with_run();
    let records = lines(&dir.path().join("run/metrics.jsonl"));
    let last = records.last().unwrap();
    // tiny.toml: one batch of two windows of 16 tokens.
    let report = scores(dir.path(), "run --data data --seq 16 --batch 2 --max-batches 1");
    let loss = &report["results"][0];
    assert_eq!((&loss["windows"], &loss["tokens"]), (&2.into(), &32.into()));
    for (ours, theirs) in [("loss", "val_loss"), ("bits_per_byte", "val_bpb")] {
        let [ours, theirs] = [&loss[ours], &last[theirs]].map(|value| value.as_f64().unwrap());
        assert!((ours - theirs).abs() < 1e-5, "{ours} {theirs}");
    }
    // The whole checkpoint is the same model, and a copy of it elsewhere.
    let again = scores(
        dir.path(),
        "run/checkpoints/step-00000002 --data data --seq 16 --batch 2 --max-batches 1",
    );
    assert_eq!(again["results"], report["results"]);
}

#[test]
fn text_and_tokens_give_the_same_scores() {
    let dir = with_run();
    let dir = dir.path();
    let prepare = "data prepare-hellaswag --input hellaswag.jsonl --out hellaswag.bin";
    let said = gpt2(dir, &words(prepare)).succeeded();
    assert!(
        said.starts_with("3 examples, ") && said.ends_with("--hellaswag hellaswag.bin\n"),
        "{said}"
    );
    let bytes = fs::read(dir.join("hellaswag.bin")).unwrap();
    let number = |at: usize| i32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    assert_eq!([number(0), number(4), number(8)], [20_240_522, 1, 3]);
    let mut results = ["hellaswag.jsonl", "hellaswag.bin"].map(|file| {
        eval(dir, &format!("run --hellaswag {file} --per-example examples.jsonl")).succeeded();
        lines(&dir.join("examples.jsonl"))
    });
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0].len(), 3);

    eval(
        dir,
        "run --hellaswag hellaswag.bin --limit 2 --per-example examples.jsonl",
    )
    .succeeded();
    results[0].pop();
    assert_close(&lines(&dir.join("examples.jsonl")), &results[0]);
}

#[test]
fn the_batch_changes_no_score() {
    let dir = with_run();
    let dir = dir.path();
    let flags =
        "run --data data --seq 16 --hellaswag hellaswag.jsonl --lambada lambada.jsonl --per-example examples.jsonl";
    let [one, seven] = [1, 7].map(|batch| {
        eval(dir, &format!("{flags} --batch {batch}")).succeeded();
        lines(&dir.join("examples.jsonl"))
    });
    assert_close(&one, &seven);
}

#[test]
fn another_vocabulary_is_scored_on_its_own_tokens_alone() {
    let dir = with_run();
    let dir = dir.path();
    let on_tiny = |flags: &str| eval(dir, &format!("{TINY} {flags}"));
    let outcome = on_tiny(&format!("--hellaswag {TINY}/evaluation.bin"));
    assert_eq!(
        outcome.warnings(),
        ["2 of the 16 examples of hellaswag are longer than the model's block of 64: of those it saw the end"]
    );
    outcome.succeeded();
    for (task, flag) in [
        ("loss", "--data data"),
        ("hellaswag", "--hellaswag hellaswag.jsonl"),
        ("lambada", "--lambada lambada.jsonl"),
    ] {
        let expected = format!("task {task} is of GPT-2's 50257 tokens, but the model has 512 others: ");
        on_tiny(flag).refused(&expected);
    }
    gpt2(
        dir,
        &words("data prepare-hellaswag --input hellaswag.jsonl --out a.bin"),
    )
    .succeeded();
    let outcome = on_tiny("--hellaswag a.bin");
    outcome.failed("example 0 of hellaswag has token ");
    assert!(
        outcome
            .stderr
            .contains("expected one below 512, the model's vocabulary"),
        "{outcome:#?}"
    );
}

#[test]
fn what_cannot_be_evaluated_is_refused() {
    let dir = with_run();
    let dir = dir.path();
    let refused = |flags: &str, expected: &str| eval(dir, flags).refused(expected);
    refused(
        "run",
        "there is nothing to evaluate on, expected at least one of --data, --hellaswag and --lambada",
    );
    refused(
        "run --tasks loss",
        "task loss needs prepared data: give it by --data DIR",
    );
    refused("run --tasks hellaswag --data data", "give it by --hellaswag FILE");
    refused(
        "run --tasks loss,lambada --data data",
        "task lambada needs LAMBADA's .jsonl: give it by --lambada FILE",
    );
    refused(
        "run --tasks lambda --data data",
        "unknown task `lambda` in --tasks, expected loss, hellaswag, lambada; did",
    );
    for flag in ["--batch", "--limit", "--seq", "--max-batches"] {
        refused(
            &format!("run --data data {flag} 0"),
            &format!("{flag} is 0, expected at least 1"),
        );
    }
    refused(
        "run --data data --seq 33",
        "--seq is 33, expected at most 32, the model's block",
    );
    refused(
        "run --data data --json no/a.json",
        "--json is no/a.json, expected a file in a directory that exists",
    );
    refused(
        "run --data data --per-example run",
        "--per-example is run, expected a file in",
    );
    refused(
        "run --hellaswag play.txt",
        "play.txt: unknown kind of file, expected HellaSwag's .jsonl, or a .bin of llm.c",
    );
    refused("run --hellaswag none.bin", "cannot read none.bin: ");
    refused("run --data none", "none is not a directory");
    refused(
        "run --lambada hellaswag.jsonl",
        "hellaswag.jsonl line 1: missing field `text`",
    );
    refused(
        "run --hellaswag lambada.jsonl",
        "lambada.jsonl line 1: missing field `ctx`",
    );
    fs::copy(dir.join("data/tokens_val_000000.bin"), dir.join("shard.bin")).unwrap();
    refused(
        "run --hellaswag shard.bin",
        "shard.bin is not a sound multiple-choice file of llm.c: at byte 0 is the magic number 20240520 of a token shard",
    );
    refused(
        "data --lambada lambada.jsonl",
        "data: no config.json in it, expected a directory of Hugging Face's files or a checkpoint",
    );
    refused("none --lambada lambada.jsonl", "none: no such file or directory");
    let outcome = eval(dir, "run --data data --seq 16 --precision tf32");
    outcome.failed("--precision is tf32, expected f32: the kernels");

    let refused = |flags: &str, expected: &str| gpt2(dir, &words(flags)).refused(expected);
    refused(
        "data prepare-hellaswag --input hellaswag.jsonl --out ./hellaswag.jsonl",
        "--out is ./hellaswag.jsonl, expected another file than --input",
    );
    let three = r#"{"ctx": "a", "label": 0, "endings": ["b", "c", "d"]}"#;
    fs::write(dir.join("three.jsonl"), three).unwrap();
    refused(
        "data prepare-hellaswag --input three.jsonl --out a.bin",
        "example 0 does not fit llm.c's file: it has 3 endings, expected 4",
    );
    assert!(!dir.join("a.bin").exists());
}

#[test]
fn a_checkpoint_that_is_damaged_is_refused_or_passed_over() {
    let dir = tempdir().unwrap();
    run_with_damage(dir.path());
    let outcome = eval(dir.path(), "run --data data");
    assert!(outcome.warnings()[0].contains("step-00000002"), "{outcome:#?}");
    assert!(
        outcome.stderr.contains("run/checkpoints/step-00000001 on flex"),
        "{outcome:#?}"
    );
    outcome.succeeded();
    eval(dir.path(), "run/checkpoints/step-00000002 --data data").failed("step-00000002");
}
