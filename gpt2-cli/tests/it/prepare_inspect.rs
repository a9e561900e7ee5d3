//! `gpt2 data prepare`, `gpt2 data inspect` of what it made, and training on text.

use crate::support::{follow, gpt2, play, prepared, train, write_tiny};
use std::fs;
use tempfile::tempdir;

#[test]
fn a_text_becomes_shards_that_are_sound() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("play.txt"), play()).unwrap();
    let flags = "data prepare --input play.txt --out data --split-documents-on blank-line --val-documents 8";
    let outcome = gpt2(dir.path(), &flags.split(' ').collect::<Vec<_>>());
    assert!(outcome.stderr.contains("tokens_train_000000.bin: "), "{outcome:#?}");
    assert!(outcome.stderr.contains("100 %: "), "{outcome:#?}");
    let summary = outcome.succeeded();
    let row = |split: &str| {
        let line = summary
            .lines()
            .find(|line| line.trim_start().starts_with(split))
            .unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(row("train")[..2], ["train", "32"], "{summary}");
    assert_eq!(row("val")[..2], ["val", "8"], "{summary}");
    assert!(summary.ends_with("\nNext: gpt2 train --data data\n"), "{summary}");

    let report = gpt2(dir.path(), &["data", "inspect", "data"]).succeeded();
    assert!(report.starts_with("data: made by gpt2 "), "{report}");
    assert!(report.contains("tokens_val_000000.bin"), "{report}");
    assert!(
        report.contains("\nThe val text begins:\n\n  <|endoftext|>First Citizen:\n  Speak no words"),
        "{report}"
    );
    assert!(report.ends_with("\nNo damage found.\n"), "{report}");
}

#[test]
fn a_finished_preparation_resumes_to_itself() {
    let dir = tempdir().unwrap();
    prepared(dir.path());
    let flags = "data prepare --input play.txt --out data --split-documents-on blank-line --val-documents 8";
    let flags: Vec<&str> = flags.split(' ').collect();
    gpt2(dir.path(), &flags).refused("data already holds ");
    let summary = gpt2(dir.path(), &[&flags[..], &["--resume"]].concat()).succeeded();
    assert!(
        summary.ends_with("\nIt was complete already.\n\nNext: gpt2 train --data data\n"),
        "{summary}"
    );
}

#[test]
fn without_validation_data_the_next_command_does_not_evaluate() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("play.txt"), play()).unwrap();
    let summary = gpt2(dir.path(), &["data", "prepare", "--input", "play.txt", "--out", "data"]).succeeded();
    assert!(
        summary.ends_with("Next: gpt2 train --data data --eval-every 0\n"),
        "{summary}"
    );
}

#[test]
fn all_damage_is_listed() {
    let dir = tempdir().unwrap();
    let data = prepared(dir.path());
    let val = data.join("tokens_val_000000.bin");
    let bytes = fs::read(&val).unwrap();
    fs::write(&val, &bytes[..bytes.len() - 2]).unwrap();
    fs::write(data.join("notes.bin"), [0; 4]).unwrap();
    let outcome = gpt2(dir.path(), &["data", "inspect", "data"]);
    outcome.refused("data is damaged: data/tokens_val_000000.bin is truncated");
    assert!(outcome.stderr.contains(" (and 1 more, see above)"), "{outcome:#?}");
    let damage = outcome.stdout.split_once("\nDamage:\n").unwrap_or_default().1;
    assert_eq!(damage.lines().count(), 2, "{outcome:#?}");
    assert!(
        damage.contains("tokens_val_000000.bin is truncated") && damage.contains("notes.bin is no shard"),
        "{damage}"
    );
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("play.txt"), play()).unwrap();
    fs::write(dir.path().join("image.png"), [0; 8]).unwrap();
    let refused = |flags: &str, expected: &str| {
        let flags: Vec<&str> = ["data", "prepare", "--out", "data"]
            .into_iter()
            .chain(flags.split(' '))
            .collect();
        gpt2(dir.path(), &flags).refused(expected);
        assert!(!dir.path().join("data/manifest.json").exists());
    };
    refused(
        "--input play.txt --val-fraction 1.5",
        "`val-fraction` is 1.5, expected more than 0 and less than 1",
    );
    refused(
        "--input play.txt --val-fraction -1",
        "`val-fraction` is -1, expected more than 0 and less than 1",
    );
    refused("--input play.txt --shard-tokens 0", "`shard-tokens` is 0");
    refused(
        "--input play.txt --val-tokens 9 --val-documents 1",
        "cannot be used with",
    );
    refused("--input play.txt --threads 0", "invalid value '0' for '--threads <N>'");
    refused("--input none.txt", "input none.txt does not exist");
    refused("--input image.png", "image.png has an unknown extension");
}

#[test]
fn a_text_that_is_all_validation_is_refused() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("play.txt"), play()).unwrap();
    let flags = "data prepare --input play.txt --out data --val-tokens 1000000";
    let outcome = gpt2(dir.path(), &flags.split(' ').collect::<Vec<_>>());
    assert_eq!(outcome.code, Some(1), "{outcome:#?}");
    let last = outcome.stderr.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("error: ") && last.contains("leaves none to train on"),
        "{outcome:#?}"
    );
}

#[test]
fn text_is_trained_on_as_if_it_had_been_prepared() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("play.txt"), play()).unwrap();
    let outcome = train(dir.path(), &["--data", "play.txt", "--run", "a"]);
    assert!(
        outcome.stderr.contains("data/play has the tokens of play.txt: "),
        "{outcome:#?}"
    );
    outcome.succeeded();
    follow(
        dir.path(),
        "gpt2 data prepare --input play.txt --out own --val-fraction 0.1",
    )
    .succeeded();
    for shard in ["tokens_train_000000.bin", "tokens_val_000000.bin"] {
        let [of_train, own] = ["data/play", "own"].map(|data| fs::read(dir.path().join(data).join(shard)).unwrap());
        assert_eq!(of_train, own, "{shard}");
    }
    let shard = dir.path().join("data/play/tokens_train_000000.bin");
    let written = || fs::metadata(&shard).unwrap().modified().unwrap();
    let before = written();
    // Under another name of the file, of several processes at once, and going on.
    train(dir.path(), &["--data", "./play.txt", "--run", "b", "--devices", "2"]).succeeded();
    train(
        dir.path(),
        &["--run", "a", "--resume", "--data", "play.txt", "--steps", "3"],
    )
    .succeeded();
    train(dir.path(), &["--run", "b", "--resume", "--steps", "3"]).succeeded();
    assert_eq!(written(), before, "made once");
}

#[test]
fn texts_in_a_directory_are_trained_on() {
    let dir = tempdir().unwrap();
    write_tiny(dir.path());
    fs::create_dir(dir.path().join("data")).unwrap();
    for name in ["a.txt", "b.txt"] {
        fs::write(dir.path().join("data").join(name), play()).unwrap();
    }
    for (input, tokens) in [
        ("data", "data-tokens"),
        ("data/", "data-tokens"),
        ("data/*.txt", "data/data"),
    ] {
        let outcome = gpt2(dir.path(), &["train", "--config", "tiny.toml", "--data", input]);
        assert!(
            outcome.stderr.contains(&format!("{tokens} has the tokens of ")),
            "{outcome:#?}"
        );
        outcome.succeeded();
    }
    train(dir.path(), &["--data", "no.txt"]).refused("input no.txt does not exist");
}
