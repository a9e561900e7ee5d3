//! Every `gpt2` command in the documents can be typed.

use crate::cli::Cli;
use clap::Parser;

const DOCUMENTS: [(&str, &str); 9] = [
    ("README.md", include_str!("../../README.md")),
    ("ARCHITECTURE.md", include_str!("../../ARCHITECTURE.md")),
    ("CONTRIBUTING.md", include_str!("../../CONTRIBUTING.md")),
    ("docs/backends.md", include_str!("../../docs/backends.md")),
    ("docs/benchmarks.md", include_str!("../../docs/benchmarks.md")),
    ("docs/evaluation.md", include_str!("../../docs/evaluation.md")),
    ("docs/multi-gpu.md", include_str!("../../docs/multi-gpu.md")),
    ("docs/run-directory.md", include_str!("../../docs/run-directory.md")),
    ("docs/studies.md", include_str!("../../docs/studies.md")),
];

/// Commands in blocks of code and within sentences, without the comments behind them.
fn commands(document: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for (index, part) in document.split("```").enumerate() {
        let codes: Vec<String> = if index % 2 == 1 {
            part.lines().map(str::to_owned).collect()
        } else {
            let codes = part.split('`').skip(1).step_by(2);
            codes
                .map(|code| code.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect()
        };
        for code in codes {
            let code = code.split(" #").next().expect("splitting gives one part at least");
            let code = code.replace("cargo run --release --", "gpt2");
            if code.starts_with("gpt2 ") {
                commands.push(code.trim().to_owned());
            }
        }
    }
    commands
}

#[test]
fn every_command_parses() {
    for (name, document) in DOCUMENTS {
        for command in commands(document) {
            let words = shlex::split(&command).unwrap_or_else(|| panic!("{name}: `{command}` has an open quote"));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{name}: `{command}`: {error}");
            }
        }
    }
}

#[test]
fn commands_are_found_in_blocks_and_in_sentences() {
    let document =
        "Run `gpt2\ndevices`.\n```sh\ncargo run --release -- train    # the demo\nls\n```\n`gpt2 bench step`";
    assert_eq!(commands(document), ["gpt2 devices", "gpt2 train", "gpt2 bench step"]);
    assert!(commands(DOCUMENTS[0].1).len() >= 6);
}
