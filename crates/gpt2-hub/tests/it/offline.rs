//! `HF_HUB_OFFLINE`: the cache, and no connection.

use crate::fake_hub::FakeHub;
use crate::{SILENT, address, client, offline};
use gpt2_hub::{HubError, Push};
use serde_json::json;
use std::fs;

const FILES: [(&str, &[u8]); 2] = [("config.json", b"{}"), ("model.safetensors", b"weights")];

#[test]
fn what_was_fetched_is_found() {
    let (hub, home) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let commit = hub.commit("models/a/b", &FILES);
    let online = client(&hub, home.path()).weights(&address("hf:a/b"), SILENT).unwrap();
    hub.lines();
    let client = offline(&hub, home.path());
    for revision in ["", "@main", &format!("@{commit}")] {
        let found = client.weights(&address(&format!("hf:a/b{revision}")), SILENT);
        assert_eq!(found.unwrap(), online);
    }
    assert!(hub.lines().0.is_empty());
}

#[test]
fn what_is_missing_is_named() {
    let (hub, home) = (FakeHub::start(), tempfile::tempdir().unwrap());
    hub.commit("models/a/b", &FILES);
    let client_offline = offline(&hub, home.path());
    let error = client_offline
        .weights(&address("hf:a/b@v1"), SILENT)
        .unwrap_err()
        .to_string();
    assert!(error.contains("a/b at revision v1 is not in the cache at "), "{error}");
    assert!(error.contains("models--a--b"), "{error}");
    assert!(error.contains("HF_HUB_OFFLINE unset"), "{error}");

    let directory = client(&hub, home.path()).weights(&address("hf:a/b"), SILENT).unwrap();
    fs::remove_file(directory.join("model.safetensors")).unwrap();
    hub.lines();
    let error = client_offline.weights(&address("hf:a/b"), SILENT).unwrap_err();
    assert!(
        matches!(&error, HubError::Offline { what, .. } if what == "model.safetensors"),
        "{error}"
    );
    assert!(hub.lines().0.is_empty());
}

#[test]
fn what_python_fetched_is_found() {
    let (hub, home) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let repo = home.path().join("hub/models--a--b");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let snapshot = repo.join("snapshots").join(commit);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repo.join("refs")).unwrap();
    fs::write(repo.join("refs/main"), commit).unwrap();
    fs::write(snapshot.join("config.json"), "{}").unwrap();
    let client = offline(&hub, home.path());
    let error = client.weights(&address("hf:a/b"), SILENT).unwrap_err();
    assert!(matches!(error, HubError::NoWeights { .. }), "{error}");
    fs::write(snapshot.join("model.safetensors"), "weights").unwrap();
    assert_eq!(client.weights(&address("hf:a/b"), SILENT).unwrap(), snapshot);

    // Of the listing that Python keeps the sizes are known.
    let hash = "a".repeat(64);
    let weights = json!({ "size": 8, "blob_id": commit, "lfs_sha256": hash, "lfs_size": 8, "xet_hash": hash });
    let files = json!({ "config.json": { "size": 2, "blob_id": commit }, "model.safetensors": weights });
    let listing = json!({ "format_version": 1, "files": files }).to_string();
    fs::create_dir_all(repo.join("trees")).unwrap();
    fs::write(repo.join("trees").join(format!("{commit}.json")), listing).unwrap();
    let error = client.weights(&address("hf:a/b"), SILENT).unwrap_err();
    assert!(
        matches!(&error, HubError::Offline { what, .. } if what == "model.safetensors"),
        "{error}"
    );
    fs::write(snapshot.join("model.safetensors"), "weights!").unwrap();
    assert_eq!(client.weights(&address("hf:a/b"), SILENT).unwrap(), snapshot);
}

#[test]
fn the_files_of_a_pattern_are_all_there_or_named() {
    let (mut hub, home) = (FakeHub::start(), tempfile::tempdir().unwrap());
    hub.commit(
        "datasets/a/d",
        &[("t/1.txt", b"one"), ("t/2.txt", b"two"), ("x.md", b"x")],
    );
    let text = address("hf:datasets/a/d/t/*.txt");
    let online = client(&hub, home.path()).text(&text, SILENT).unwrap();
    let client_offline = offline(&hub, home.path());
    assert_eq!(client_offline.text(&text, SILENT).unwrap(), online);

    fs::remove_file(&online[1]).unwrap();
    let error = client_offline.text(&text, SILENT).unwrap_err();
    assert!(
        matches!(&error, HubError::Offline { what, .. } if what == "t/2.txt"),
        "{error}"
    );

    // As if offline, but for what is said.
    hub.stop();
    let error = client(&hub, home.path()).text(&text, SILENT).unwrap_err();
    assert!(matches!(&error, HubError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("t/2.txt is not in the cache"), "{error}");
}

#[test]
fn nothing_is_sent() {
    let (hub, home) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let push = Push {
        summary: "Weights".to_owned(),
        private: None,
    };
    let error = offline(&hub, home.path())
        .push(home.path(), &address("hf:a/b"), &push, SILENT)
        .unwrap_err();
    assert!(matches!(error, HubError::SendOffline { .. }), "{error}");
    assert!(hub.lines().0.is_empty());
}
