//! Runs the command in a directory of its own, and makes the files that it is given.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// How the command ended and what it printed.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Its output, if it succeeded.
    #[track_caller]
    pub(crate) fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.stdout
    }

    /// Asserts that it refused its input: exit code 1, and one line `error: …` that contains `expected`, with nothing
    /// but hints beside it.
    #[track_caller]
    pub(crate) fn refused(&self, expected: &str) {
        self.failed(expected);
        let extra = self
            .stderr
            .lines()
            .find(|line| !line.starts_with("error: ") && !line.starts_with("hint: "));
        assert_eq!(extra, None, "{self:#?}");
    }
}

/// What a line of standard error that begins with `label` goes on with.
fn said<'a>(outcome: &'a Outcome, label: &str) -> Vec<&'a str> {
    outcome
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix(label))
        .collect()
}

impl Outcome {
    /// Asserts that it ended with exit code 1 and one line `error: …` that contains `expected`, whatever it said
    /// before.
    #[track_caller]
    pub(crate) fn failed(&self, expected: &str) {
        assert_eq!(self.code, Some(1), "{self:#?}");
        let errors = said(self, "error: ");
        assert_eq!(errors.len(), 1, "{self:#?}");
        assert!(errors[0].contains(expected), "expected {expected:?} in {self:#?}");
    }

    /// Its hint.
    #[track_caller]
    pub(crate) fn hint(&self) -> &str {
        let hints = said(self, "hint: ");
        assert_eq!(hints.len(), 1, "{self:#?}");
        hints[0]
    }

    /// Its warnings.
    pub(crate) fn warnings(&self) -> Vec<&str> {
        said(self, "warning: ")
    }
}

/// Types `line` in `dir`, as a hint is followed.
pub(crate) fn follow(dir: &Path, line: &str) -> Outcome {
    let programs = Path::new(env!("CARGO_BIN_EXE_gpt2")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(programs.to_path_buf()).chain(std::env::split_paths(&path));
    let mut shell = Command::new("sh");
    shell
        .args(["-c", line])
        .env("PATH", std::env::join_paths(paths).unwrap())
        .stdin(Stdio::null());
    outcome(shell.current_dir(dir).env_remove("RUST_BACKTRACE").output().unwrap())
}

fn outcome(output: Output) -> Outcome {
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the command in `dir`.
pub(crate) fn gpt2(dir: &Path, args: &[&str]) -> Outcome {
    gpt2_reading(dir, args, b"")
}

/// Runs the command in `dir` with `input` on its standard input.
pub(crate) fn gpt2_reading(dir: &Path, args: &[&str], input: &[u8]) -> Outcome {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gpt2"))
        .args(args)
        .current_dir(dir)
        .env_remove("COLUMNS")
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads nothing may have closed its end already.
    let _ = child.stdin.take().unwrap().write_all(input);
    outcome(child.wait_with_output().unwrap())
}

/// `gpt2 train` with a model and a run small enough for a test. The settings are a run file, so that `more` wins over them.
pub(crate) fn train(dir: &Path, more: &[&str]) -> Outcome {
    write_tiny(dir);
    gpt2(dir, &[&["train", "--config", "tiny.toml"], more].concat())
}

/// Writes the settings of a model and a run small enough for a test to `tiny.toml`.
pub(crate) fn write_tiny(dir: &Path) {
    const TINY: &str = "
        backend = \"flex\"
        threads = 1
        n-layer = 1
        n-head = 1
        n-embd = 8
        block-size = 32
        seq = 16
        batch = 2
        steps = 2
        eval-batches = 1
    ";
    fs::write(dir.join("tiny.toml"), TINY).unwrap();
}

/// A play of 40 speeches with blank lines between them.
pub(crate) fn play() -> String {
    let speech = |words| ["First Citizen:\nSpeak ", words, " words, and let the tide answer.\n\n"].concat();
    let numbers = ["no", "two", "twelve", "fifty"];
    numbers.into_iter().cycle().take(40).map(speech).collect()
}

/// Prepares the play in `dir/data` with a validation split.
pub(crate) fn prepared(dir: &Path) -> PathBuf {
    fs::write(dir.join("play.txt"), play()).unwrap();
    let flags = "data prepare --input play.txt --out data --split-documents-on blank-line --val-documents 8";
    gpt2(dir, &flags.split(' ').collect::<Vec<_>>()).succeeded();
    dir.join("data")
}

/// Trains `run` on prepared data, with a checkpoint after each of two steps, and damages the second.
pub(crate) fn run_with_damage(dir: &Path) {
    prepared(dir);
    train(dir, &["--data", "data", "--run", "run", "--checkpoint-every", "1"]).succeeded();
    fs::write(dir.join("run/checkpoints/step-00000002/model.safetensors"), "damaged").unwrap();
}

/// A file of 256 header numbers and 16-bit tokens, as llm.c lays shards out.
pub(crate) fn shard(magic: i32, version: i32, count: i32, tokens: &[u16]) -> Vec<u8> {
    let mut header = [0_i32; 256];
    header[..3].copy_from_slice(&[magic, version, count]);
    let mut bytes: Vec<u8> = header.into_iter().flat_map(i32::to_le_bytes).collect();
    bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
    bytes
}
