//! `gpt2 data encode` and `gpt2 data decode`.

use crate::support::{gpt2, gpt2_reading};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const HERE: &str = ".";

fn encode(args: &[&str]) -> String {
    gpt2(Path::new(HERE), &[&["data", "encode"], args].concat()).succeeded()
}

#[test]
fn text_is_encoded_from_the_command_line() {
    assert_eq!(encode(&["Hello world"]), "15496 995\n");
    assert_eq!(encode(&["--special", "a<|endoftext|>b"]), "64 50256 65\n");
    assert!(!encode(&["a<|endoftext|>b"]).contains("50256"));
}

#[test]
fn what_is_encoded_decodes_to_the_last_byte() {
    let text = "Two lines,\n\tnaïve 🦀 and no newline at the end";
    let tokens = gpt2_reading(Path::new(HERE), &["data", "encode"], text.as_bytes()).succeeded();
    assert_eq!(
        gpt2_reading(Path::new(HERE), &["data", "decode"], tokens.as_bytes()).succeeded(),
        text
    );
}

#[test]
fn tokens_are_decoded_from_the_command_line() {
    assert_eq!(
        gpt2(Path::new(HERE), &["data", "decode", "15496", "995"]).succeeded(),
        "Hello world"
    );
    assert_eq!(
        gpt2(Path::new(HERE), &["data", "decode", "15496, 995"]).succeeded(),
        "Hello world"
    );
}

#[test]
fn what_is_no_token_is_refused() {
    let refused = |word: &str| gpt2(Path::new(HERE), &["data", "decode", "0", word]);
    refused("50257").refused("\"50257\" is not a token (word 2): expected a whole number from 0 to 50256");
    refused("one").refused("\"one\" is not a token");
}

#[test]
fn what_is_no_text_is_refused() {
    gpt2_reading(Path::new(HERE), &["data", "encode"], b"\xff\xfe").refused("cannot read standard input");
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gpt2"))
        .args(["data", "encode"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(b"Hello world").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
