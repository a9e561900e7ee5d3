//! A directory as a commit.

use crate::download::large;
use crate::fake_hub::{FakeHub, TOKEN};
use crate::{SILENT, address, client, client_with_token};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gpt2_base::fs::sha256;
use gpt2_hub::{HubError, HubEvent, Push, Pushed};
use serde_json::json;
use std::cell::RefCell;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn push() -> Push {
    Push {
        summary: "Weights of step 10".to_owned(),
        private: None,
    }
}

fn model() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), r#"{"model_type": "gpt2"}"#).unwrap();
    fs::write(dir.path().join("README.md"), "# Ünïcode\n").unwrap();
    fs::write(dir.path().join("empty.safetensors"), "").unwrap();
    fs::write(dir.path().join("ignored.txt"), "x").unwrap();
    fs::write(dir.path().join("model.safetensors"), large()).unwrap();
    fs::create_dir(dir.path().join("more")).unwrap();
    fs::write(dir.path().join("more/copy.safetensors"), large()).unwrap();
    dir
}

fn send(hub: &FakeHub, directory: &Path) -> Result<Pushed, HubError> {
    let home = tempfile::tempdir().unwrap();
    client_with_token(hub, home.path(), TOKEN).push(directory, &address("hf:a/b"), &push(), SILENT)
}

#[test]
fn a_directory_arrives_as_one_commit() {
    let (hub, home, model) = (FakeHub::start(), tempfile::tempdir().unwrap(), model());
    let events = RefCell::new(Vec::new());
    let on_event = |event: HubEvent<'_>| events.borrow_mut().push(format!("{event:?}"));
    let client = client_with_token(&hub, home.path(), TOKEN);
    let private = Push {
        private: Some(true),
        ..push()
    };
    let pushed = client
        .push(model.path(), &address("hf:a/b"), &private, &on_event)
        .unwrap();
    assert_eq!(
        pushed,
        Pushed {
            page: format!("{}/a/b", hub.url()),
            commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            files: 5,
            sent_bytes: 1_000_000,
        }
    );

    let asked = hub.hub.requests();
    let lines: Vec<_> = asked.iter().map(crate::server::Request::line).collect();
    assert_eq!(
        lines,
        [
            "POST /api/repos/create",
            "POST /api/models/a/b/preupload/main",
            "POST /a/b.git/info/lfs/objects/batch",
            "POST /verify",
            "POST /api/models/a/b/commit/main",
        ]
    );
    assert_eq!(
        asked[0].json(),
        json!({ "name": "b", "organization": "a", "private": true })
    );
    let of_config = asked[1].json()["files"][1].clone();
    assert_eq!(
        (&of_config["path"], &of_config["size"]),
        (&json!("config.json"), &json!(22))
    );
    assert_eq!(of_config["sample"], STANDARD.encode(r#"{"model_type": "gpt2"}"#));
    let token = format!("Bearer {TOKEN}");
    assert!(
        asked
            .iter()
            .all(|request| request.header("authorization") == Some(token.as_str()))
    );

    // The bytes are the same, arrive once for both names, and the storage is not shown the token.
    let hash = sha256(&large());
    let stored = hub.cdn.requests();
    assert_eq!(
        stored.iter().map(crate::server::Request::line).collect::<Vec<_>>(),
        [format!("PUT /{hash}")]
    );
    assert_eq!(stored[0].header("authorization"), None);
    assert_eq!(hub.state().storage[&hash], large());

    let commit = hub.state().sent_commits.pop().unwrap();
    let content = |text: &str| STANDARD.encode(text);
    let file = |path: &str, text: &str| {
        let value = json!({ "content": content(text), "path": path, "encoding": "base64" });
        json!({ "key": "file", "value": value })
    };
    let lfs = |path: &str| {
        let value = json!({ "path": path, "algo": "sha256", "oid": hash, "size": 1_000_000 });
        json!({ "key": "lfsFile", "value": value })
    };
    assert_eq!(
        commit,
        [
            json!({ "key": "header", "value": { "summary": "Weights of step 10", "description": "" } }),
            file("README.md", "# Ünïcode\n"),
            file("config.json", r#"{"model_type": "gpt2"}"#),
            file("empty.safetensors", ""),
            lfs("model.safetensors"),
            lfs("more/copy.safetensors"),
        ]
    );

    let events = events.into_inner();
    assert_eq!(events[0], "Begin { files: 1, bytes: 1000000 }");
    assert!(
        events.last().unwrap().contains("bytes: 1000000, total: 1000000"),
        "{events:?}"
    );
}

#[test]
fn what_the_hub_has_is_not_sent_again() {
    let (hub, model) = (FakeHub::start(), model());
    send(&hub, model.path()).unwrap();
    hub.lines();
    // The repository is there as well.
    let pushed = send(&hub, model.path()).unwrap();
    assert_eq!((pushed.files, pushed.sent_bytes), (5, 0));
    assert!(hub.lines().1.is_empty());
    assert_eq!(hub.state().sent_commits.len(), 2);
}

#[test]
fn a_large_file_goes_in_parts() {
    let (hub, model) = (FakeHub::start(), model());
    hub.state().part_bytes = Some(90_000);
    send(&hub, model.path()).unwrap();
    let hash = sha256(&large());
    let stored = hub.cdn.requests();
    let lines: Vec<_> = stored.iter().map(crate::server::Request::line).collect();
    let expected: Vec<_> = (1..=12).map(|number| format!("PUT /{hash}-{number}")).collect();
    assert_eq!(lines, expected);
    assert_eq!(stored[11].body.len(), 10_000);
    assert_eq!(hub.state().storage[&hash], large());
    assert!(hub.lines().0.contains(&format!("POST /complete/{hash}")));
}

#[test]
fn a_storage_that_fails_is_tried_again() {
    let (hub, model) = (FakeHub::start(), model());
    hub.state().failures = vec![503];
    send(&hub, model.path()).unwrap();
    assert_eq!(hub.state().storage[&sha256(&large())], large());

    let hub = FakeHub::start();
    hub.state().failures = vec![503; 9];
    let error = send(&hub, model.path()).unwrap_err();
    assert!(matches!(error, HubError::Status { status: 503, .. }), "{error}");
    assert!(!error.to_string().contains("signature"), "{error}");
    assert!(hub.state().sent_commits.is_empty());

    let hub = FakeHub::start();
    hub.state().failures = vec![403];
    let error = send(&hub, model.path()).unwrap_err();
    assert!(
        matches!(&error, HubError::FileRefused { file, .. } if file.ends_with(".safetensors")),
        "{error}"
    );
}

#[test]
fn a_file_that_the_storage_refuses_is_named() {
    let (hub, dir) = (FakeHub::start(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("x.safetensors"), "13 characters").unwrap();
    let error = send(&hub, dir.path()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("x.safetensors: the hub does not take it: no thirteen bytes"),
        "{error}"
    );
    assert!(hub.state().sent_commits.is_empty());
}

#[test]
fn nothing_is_sent_without_a_token_that_may_write() {
    let (hub, home, model) = (FakeHub::start(), tempfile::tempdir().unwrap(), model());
    let to = address("hf:a/b");
    let error = client(&hub, home.path())
        .push(model.path(), &to, &push(), SILENT)
        .unwrap_err();
    assert!(matches!(error, HubError::NoToken { .. }), "{error}");
    assert!(error.to_string().contains("/settings/tokens"), "{error}");
    let error = client(&hub, home.path()).check_push(&to).unwrap_err();
    assert!(matches!(error, HubError::NoToken { .. }), "{error}");
    client_with_token(&hub, home.path(), TOKEN).check_push(&to).unwrap();
    assert!(hub.lines().0.is_empty());

    let wrong = client_with_token(&hub, home.path(), "hf_wrong");
    let error = wrong.push(model.path(), &to, &push(), SILENT).unwrap_err();
    assert!(matches!(error, HubError::TokenRefused { .. }), "{error}");

    hub.state().is_read_only = true;
    let error = send(&hub, model.path()).unwrap_err();
    assert!(matches!(error, HubError::Forbidden { action: "write", .. }), "{error}");
    assert!(error.to_string().contains("You don't have the rights"), "{error}");
    assert!(hub.state().sent_commits.is_empty());
}

#[test]
fn a_data_set_or_nothing_is_not_sent() {
    let (hub, home) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let error = send(&hub, home.path()).unwrap_err();
    assert!(matches!(error, HubError::NothingToSend { .. }), "{error}");
    let client = client_with_token(&hub, home.path(), TOKEN);
    let error = client
        .push(home.path(), &address("hf:datasets/a/b/c"), &push(), SILENT)
        .unwrap_err();
    assert!(matches!(error, HubError::BadAddress { .. }), "{error}");
    assert!(hub.lines().0.is_empty());
}

#[test]
fn what_was_sent_can_be_fetched() {
    let (hub, home, model) = (FakeHub::start(), tempfile::tempdir().unwrap(), model());
    send(&hub, model.path()).unwrap();
    let weights = hub.state().storage[&sha256(&large())].clone();
    hub.commit("models/a/b", &[("config.json", b"{}"), ("model.safetensors", &weights)]);
    let directory = client(&hub, home.path()).weights(&address("hf:a/b"), SILENT).unwrap();
    assert_eq!(fs::read(directory.join("model.safetensors")).unwrap(), large());
}
