//! Help and version: kept as snapshots, since they are what a newcomer reads first.

use crate::support::gpt2;
use insta::assert_snapshot;
use std::path::Path;

fn shown(args: &[&str]) -> String {
    gpt2(Path::new("."), args).succeeded()
}

#[test]
fn no_command_shows_the_help() {
    assert_snapshot!(shown(&[]));
    assert_eq!(shown(&[]), shown(&["--help"]));
}

#[test]
fn the_help_of_each_command() {
    assert_snapshot!("sample", shown(&["sample", "-h"]));
    assert_snapshot!("eval", shown(&["eval", "-h"]));
    assert_snapshot!("bench", shown(&["bench"]));
    assert_snapshot!("bench_step", shown(&["bench", "step", "-h"]));
    assert_snapshot!("bench_operations", shown(&["bench", "operations", "-h"]));
    assert_snapshot!("bench_fixed_work", shown(&["bench", "fixed-work", "-h"]));
    assert_snapshot!("bench_scaling", shown(&["bench", "scaling", "-h"]));
    assert_snapshot!("bench_threads", shown(&["bench", "threads", "-h"]));
    assert_snapshot!("bench_sweep", shown(&["bench", "sweep", "-h"]));
    assert_snapshot!("profile", shown(&["profile", "-h"]));
    assert_snapshot!("report", shown(&["report"]));
    assert_snapshot!("data", shown(&["data"]));
    assert_snapshot!("export", shown(&["export", "-h"]));
    assert_snapshot!("import", shown(&["import", "-h"]));
    assert_snapshot!("push", shown(&["push", "-h"]));
    assert_snapshot!("prepare", shown(&["data", "prepare", "-h"]));
    assert_snapshot!("prepare_hellaswag", shown(&["data", "prepare-hellaswag", "-h"]));
    assert_snapshot!("inspect", shown(&["data", "inspect", "-h"]));
    assert_snapshot!("encode", shown(&["data", "encode", "-h"]));
    assert_snapshot!("decode", shown(&["data", "decode", "-h"]));
}

#[test]
fn train_has_the_flags_of_the_run_file_and_its_own() {
    let help = shown(&["train", "--help"]);
    for flag in gpt2_train::config::RunConfig::keys() {
        assert!(help.contains(&format!("--{flag} ")), "--{flag} is not in\n{help}");
    }
    for flag in [
        "--config <FILE>",
        "--resume",
        "--plain",
        "--quiet",
        "--dry-run",
        "--tensorboard",
    ] {
        assert!(help.contains(flag), "{flag} is not in\n{help}");
    }
}

#[test]
fn the_version_says_what_the_binary_was_built_from() {
    let commit = env!("GPT2_COMMIT");
    assert!(commit == "unknown" || commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let burn = include_str!("../../../Cargo.lock")
        .split("\nname = \"burn\"\nversion = \"")
        .nth(1);
    let burn = burn.and_then(|rest| rest.split('"').next()).unwrap();
    let expected = format!("gpt2 {} (commit {commit}, Burn {burn})\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(shown(&["--version"]), expected);
}

#[test]
fn a_mistake_is_one_line_and_a_hint() {
    let outcome = gpt2(Path::new("."), &["trian"]);
    outcome.refused("unrecognized subcommand 'trian'");
    assert!(
        outcome.stderr.ends_with("hint: a similar subcommand exists: 'train'\n"),
        "{outcome:#?}"
    );
}

#[test]
fn the_command_line_is_described_for_other_programs() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = shown(&["completions", shell]);
        assert!(script.contains("gpt2") && script.contains("global-batch"), "{shell}");
    }
    assert!(shown(&["man"]).contains(".TH gpt2 1"));
    let dir = tempfile::tempdir().unwrap();
    gpt2(dir.path(), &["man", "--out", "man/man1"]).succeeded();
    let page = std::fs::read_to_string(dir.path().join("man/man1/gpt2-train.1")).unwrap();
    assert!(page.contains("\\-\\-global\\-batch"), "{page}");
    let schema: serde_json::Value = serde_json::from_str(&shown(&["schema"])).unwrap();
    assert_eq!(
        schema["properties"]["steps"]["description"],
        "Stop after so many optimizer steps."
    );
}
