//! Models and text of the Hugging Face hub, whose part a server on the loopback address plays.

use crate::fake_hub::{FakeHub, TOKEN};
use crate::support::{follow, play, write_tiny};
use burn_flex::{Flex, FlexDevice};
use gpt2_model::weights::save_hf;
use gpt2_model::{Gpt2Config, Variant};
use std::fs;
use std::path::Path;

/// The variables of a user whose hub this is.
fn variables(hub: &FakeHub) -> String {
    format!("NO_PROXY=127.0.0.1 HF_HOME=hub HF_ENDPOINT={}", hub.url())
}

fn save_model(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let config = Gpt2Config {
        vocab_size: 50_257,
        block_size: 32,
        n_layer: 1,
        n_head: 2,
        n_embd: 32,
        dropout: 0.0,
        variant: Variant::default(),
    };
    save_hf(&config.init::<Flex>(1, &FlexDevice).unwrap(), dir).unwrap();
}

#[test]
fn a_model_that_was_pushed_writes_the_same_text() {
    let dir = tempfile::tempdir().unwrap();
    save_model(&dir.path().join("model"));
    let mut hub = FakeHub::start();
    let variables = variables(&hub);
    let sample = |weights: &str, more: &str| {
        let line = format!(
            "{variables} {more} gpt2 sample --init {weights} --backend flex --max-tokens 8 --temperature 0 --prompt Speak"
        );
        follow(dir.path(), &line).succeeded()
    };

    let refused = follow(dir.path(), &format!("{variables} gpt2 push model hf:me/stories"));
    refused.failed("HF_TOKEN");
    let push = format!("{variables} HF_TOKEN={TOKEN} gpt2 push model hf:me/stories --message 'A small one'");
    let pushed = follow(dir.path(), &push);
    assert!(pushed.stderr.contains("/me/stories: commit "), "{pushed:#?}");
    pushed.succeeded();

    let own = sample("model", "");
    assert_eq!(sample("hf:me/stories", ""), own);
    hub.stop();
    assert_eq!(sample("hf:me/stories", "HF_HUB_OFFLINE=1"), own);
}

#[test]
fn text_of_a_data_set_is_prepared() {
    let dir = tempfile::tempdir().unwrap();
    let hub = FakeHub::start();
    let play = play();
    let texts: [(&str, &[u8]); 3] = [
        ("a.txt", play.as_bytes()),
        ("b.txt", b"The second."),
        ("notes.md", b"No text."),
    ];
    hub.commit("datasets/me/books", &texts);
    let prepare = |pattern: &str, out: &str| {
        let variables = variables(&hub);
        let line = format!("{variables} gpt2 data prepare --input 'hf:datasets/me/books/{pattern}' --out {out}");
        follow(dir.path(), &line)
    };
    prepare("*.txt", "data").succeeded();
    fs::write(dir.path().join("a.txt"), texts[0].1).unwrap();
    fs::write(dir.path().join("b.txt"), texts[1].1).unwrap();
    follow(dir.path(), "gpt2 data prepare --input a.txt b.txt --out own").succeeded();
    let shard = |out: &str| {
        let mut entries = fs::read_dir(dir.path().join(out)).unwrap().flatten();
        let shard = entries.find(|entry| entry.file_name().to_string_lossy().ends_with("_train_000000.bin"));
        fs::read(shard.unwrap().path()).unwrap()
    };
    assert_eq!(shard("data"), shard("own"));
    prepare("*.jsonl", "none").failed("*.jsonl");

    write_tiny(dir.path());
    let line = "gpt2 train --config tiny.toml --data 'hf:datasets/me/books/*.txt'";
    let outcome = follow(dir.path(), &format!("{} {line}", variables(&hub)));
    assert!(outcome.stderr.contains("data/books has the tokens of "), "{outcome:#?}");
    outcome.succeeded();
}
