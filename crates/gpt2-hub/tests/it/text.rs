//! Files of data sets by patterns.

use crate::fake_hub::FakeHub;
use crate::{SILENT, address, client};
use gpt2_hub::HubError;
use std::fs;
use std::path::PathBuf;

const DATA: &str = "datasets/a/d";

fn with_data() -> FakeHub {
    let hub = FakeHub::start();
    hub.commit(
        DATA,
        &[
            ("README.md", b"# D"),
            ("TinyStories-train.txt", b"once"),
            ("TinyStories-valid.txt", b"upon"),
            ("data/en/train 0.jsonl", b"{}"),
            ("data/en/train 1.jsonl", &[b' '; 1000]),
            ("data/fr/train 0.jsonl", b"[]"),
        ],
    );
    hub
}

#[test]
fn files_by_patterns() {
    let (hub, home) = (with_data(), tempfile::tempdir().unwrap());
    let client = client(&hub, home.path());
    let commit = hub.state().repositories[DATA].references["main"].clone();
    let snapshot = home.path().join("hub/datasets--a--d/snapshots").join(commit);
    let text = |pattern: &str| {
        client
            .text(&address(&format!("hf:datasets/a/d/{pattern}")), SILENT)
            .unwrap()
    };
    let paths = |names: &[&str]| -> Vec<PathBuf> { names.iter().map(|name| snapshot.join(name)).collect() };

    assert_eq!(text("TinyStories-valid.txt"), paths(&["TinyStories-valid.txt"]));
    assert_eq!(
        text("*.txt"),
        paths(&["TinyStories-train.txt", "TinyStories-valid.txt"])
    );
    let english = text("data/en/*.jsonl");
    assert_eq!(english, paths(&["data/en/train 0.jsonl", "data/en/train 1.jsonl"]));
    assert_eq!(fs::read(&english[1]).unwrap(), [b' '; 1000]);
    let all = paths(&[
        "data/en/train 0.jsonl",
        "data/en/train 1.jsonl",
        "data/fr/train 0.jsonl",
    ]);
    assert_eq!(text("**/train*"), all);
    assert_eq!(text("data/[ef]?/train 0.jsonl"), [all[0].clone(), all[2].clone()]);
}

#[test]
fn a_list_comes_page_by_page_and_is_kept() {
    let (hub, home) = (with_data(), tempfile::tempdir().unwrap());
    hub.state().page = Some(3);
    let client = client(&hub, home.path());
    let text = |pattern: &str| client.text(&address(&format!("hf:datasets/a/d@main/{pattern}")), SILENT);
    assert_eq!(text("data/**/*.jsonl").unwrap().len(), 3);
    let listed = || {
        let lines = hub.lines().0;
        lines.iter().filter(|line| line.contains("/tree/")).count()
    };
    assert_eq!(listed(), 3);
    assert_eq!(text("*.txt").unwrap().len(), 2);
    assert_eq!(listed(), 0);
}

#[test]
fn a_pattern_that_matches_nothing_says_what_there_is() {
    let (hub, home) = (with_data(), tempfile::tempdir().unwrap());
    let client = client(&hub, home.path());
    let error = |pattern: &str| {
        client
            .text(&address(&format!("hf:datasets/a/d/{pattern}")), SILENT)
            .unwrap_err()
    };
    let misspelt = error("TinyStory-train.txt");
    assert!(matches!(misspelt, HubError::NothingMatches { .. }), "{misspelt}");
    let text = misspelt.to_string();
    assert!(text.contains("did you mean TinyStories-train.txt?"), "{text}");
    assert!(
        text.contains("it has README.md, TinyStories-train.txt, ") && text.ends_with(" and 1 more"),
        "{text}"
    );

    // The directory is what is not there.
    let directory = error("dota/en/train 0.jsonl").to_string();
    assert!(directory.contains("did you mean data/en/train 0.jsonl?"), "{directory}");
    let pattern = error("data/[a");
    assert!(matches!(pattern, HubError::BadPattern { .. }), "{pattern}");
}

#[test]
fn a_model_is_no_text() {
    let (hub, home) = (with_data(), tempfile::tempdir().unwrap());
    let client = client(&hub, home.path());
    let error = client.text(&address("hf:a/d"), SILENT).unwrap_err();
    assert!(
        error.to_string().contains("expected hf:datasets/OWNER/NAME/PATTERN"),
        "{error}"
    );
    let error = client.weights(&address("hf:datasets/a/d/*"), SILENT).unwrap_err();
    assert!(error.to_string().contains("expected a model: hf:OWNER/NAME"), "{error}");
}
