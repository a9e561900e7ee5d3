//! `cargo xtask ci`: everything that must pass before a change lands, cheapest first.
//! `cargo xtask fixtures`: how the golden values of the tests are made.

#[cfg(test)]
mod structure;

use std::process::{Command, ExitCode};

/// The tests are built with wgpu, which a software Vulkan device runs on any machine; CUDA is only looked at.
const CARGO_CHECKS: [&[&str]; 5] = [
    &["fmt", "--all", "--check"],
    &[
        "clippy",
        "--release",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ],
    &[
        "clippy",
        "--release",
        "--workspace",
        "--all-targets",
        "--features",
        "gpt2-cli/full",
        "--",
        "-D",
        "warnings",
    ],
    &["test", "--release", "--workspace", "--features", "gpt2-cli/wgpu"],
    &["doc", "--release", "--workspace", "--no-deps"],
];

/// Checks by tools that do not come with Rust: the command, and what installs it.
const TOOL_CHECKS: [(&[&str], &str); 2] = [
    (&["typos"], "cargo install typos-cli"),
    (
        &["cargo-deny", "--log-level", "error", "check"],
        "cargo install cargo-deny",
    ),
];

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("ci") => ci(),
        Some("fixtures") => {
            print!("{}", include_str!("fixtures.md"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: cargo xtask ci | fixtures");
            ExitCode::FAILURE
        }
    }
}

fn ci() -> ExitCode {
    for (command, install) in TOOL_CHECKS {
        match run(command[0], &command[1..]) {
            Outcome::Passed => {}
            Outcome::Failed => return ExitCode::FAILURE,
            Outcome::Missing => {
                eprintln!("{} is not installed; `{install}`", command[0]);
                return ExitCode::FAILURE;
            }
        }
    }
    for arguments in CARGO_CHECKS {
        if !matches!(run("cargo", arguments), Outcome::Passed) {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

enum Outcome {
    Passed,
    Failed,
    Missing,
}

fn run(program: &str, arguments: &[&str]) -> Outcome {
    eprintln!("$ {program} {}", arguments.join(" "));
    match Command::new(program)
        .args(arguments)
        .env("RUSTDOCFLAGS", "-D warnings")
        .status()
    {
        Ok(status) if status.success() => Outcome::Passed,
        Ok(_) => Outcome::Failed,
        Err(_) => Outcome::Missing,
    }
}
