//! `cargo xtask ci`: everything that must pass before a change lands, cheapest first.
//! `cargo xtask fixtures OUT`: makes the golden values of the tests, and compares them with those in the repository.

#![allow(clippy::print_stderr, reason = "it is a command")]

#[cfg(test)]
mod structure;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

const FIXTURES: &str = "crates/gpt2-backend-tests/tests/fixtures";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["ci"] => ci(),
        ["fixtures", out] => run(&["python3", "fixtures/make.py", out, FIXTURES], "Python 3"),
        _ => Err("usage: cargo xtask ci | fixtures OUT".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn ci() -> Result<(), String> {
    let clippy = ["cargo", "clippy", "--release", "--workspace", "--all-targets"];
    let full = ["--features", "gpt2-cli/full,gpt2-fuzz/targets"];
    let deny_warnings = ["--", "-D", "warnings"];

    cargo(&["cargo", "fmt", "--all", "--check"])?;
    run(&["typos"], "`pip install typos`")?;
    let sources = tracked(&["*.cu", "*.cuh"])?;
    let format = ["clang-format", "--dry-run", "-Werror"].into_iter();
    let format: Vec<&str> = format.chain(sources.iter().map(String::as_str)).collect();
    run(&format, "`pip install clang-format`")?;
    if found("cargo-deny") {
        cargo(&["cargo", "deny", "--log-level", "error", "check"])?;
    } else {
        eprintln!("cargo-deny is not installed (`cargo install cargo-deny`): licences and sources are not checked");
    }
    cargo(&[&clippy[..], &full, &deny_warnings].concat())?;
    cargo(
        &test_command(&read("README.md")?)?
            .split_whitespace()
            .collect::<Vec<_>>(),
    )?;
    // With the features of clippy, whose work it goes on with.
    cargo(&[&["cargo", "doc", "--release", "--workspace", "--no-deps"][..], &full].concat())
}

fn cargo(command: &[&str]) -> Result<(), String> {
    run(command, "Rust from https://rustup.rs")
}

/// Runs a program and says how long it took.
fn run(command: &[&str], install: &str) -> Result<(), String> {
    let line = command.join(" ");
    eprintln!("$ {line}");
    let start = Instant::now();
    let status = Command::new(command[0])
        .args(&command[1..])
        .env("RUSTDOCFLAGS", "-D warnings")
        .status()
        .map_err(|error| format!("cannot run `{}`: {error}; it comes with {install}", command[0]))?;
    eprintln!("  {} s", start.elapsed().as_secs());
    if status.success() {
        Ok(())
    } else {
        Err(format!("failed: {line}"))
    }
}

fn found(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// Files under version control that match one of `patterns`.
fn tracked(patterns: &[&str]) -> Result<Vec<String>, String> {
    let listed = Command::new("git").arg("ls-files").args(patterns).output();
    let listed = listed.map_err(|error| format!("cannot run `git ls-files`: {error}"))?;
    let files: Vec<String> = String::from_utf8_lossy(&listed.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    if files.is_empty() {
        return Err(format!("`git ls-files` knows no {}", patterns.join(", ")));
    }
    Ok(files)
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(Path::new(path)).map_err(|error| format!("{path}: {error}"))
}

/// The command for the tests, as the README gives it to a reader.
fn test_command(readme: &str) -> Result<&str, String> {
    let line = readme.lines().find(|line| line.starts_with("cargo test "));
    let line = line.ok_or("README.md: no line begins with `cargo test`")?;
    Ok(line.split_once('#').map_or(line, |(command, _)| command).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = include_str!("../../README.md");

    #[test]
    fn the_readme_says_how_to_run_the_tests() {
        let command = test_command(README).unwrap();
        assert!(
            command.contains("--workspace") && command.contains("--release"),
            "{command}"
        );
    }

    #[test]
    fn the_figures_of_the_readme_come_from_one_commit() {
        let commits: std::collections::BTreeSet<&str> = README
            .split(|letter: char| !letter.is_ascii_alphanumeric())
            .filter(|word| word.len() == 7 && word.chars().all(|letter| letter.is_ascii_hexdigit()))
            .filter(|word| word.chars().any(|letter| letter.is_ascii_digit()))
            .collect();
        assert_eq!(commits.len(), 1, "{commits:?}");
    }
}
