//! Weights into the cache.

use crate::fake_hub::{FakeHub, TOKEN};
use crate::{SILENT, address, client, client_with_token, config};
use gpt2_base::fs::sha256;
use gpt2_hub::{Hub, HubError, HubEvent};
use serde_json::json;
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

const MODEL: &str = "models/a/b";

/// Longer than what is read at once.
pub(crate) fn large() -> Vec<u8> {
    (0..1_000_000_u32).map(|number| (number % 251) as u8).collect()
}

fn with_model() -> FakeHub {
    let hub = FakeHub::start();
    hub.commit(
        MODEL,
        &[
            ("README.md", b"# B"),
            ("config.json", b"{}"),
            ("merges.txt", b"a b"),
            ("model.safetensors", &large()),
            ("pytorch_model.bin", b"pickle"),
        ],
    );
    hub
}

fn blobs(home: &Path) -> PathBuf {
    home.join("hub/models--a--b/blobs")
}

#[test]
fn weights_arrive_in_pythons_layout() {
    let (hub, home) = (with_model(), tempfile::tempdir().unwrap());
    let events = RefCell::new(Vec::new());
    let directory = client(&hub, home.path())
        .weights(&address("hf:a/b"), &|event| {
            events.borrow_mut().push(format!("{event:?}"));
        })
        .unwrap();

    let repo = home.path().join("hub/models--a--b");
    let commit = hub.state().repositories[MODEL].references["main"].clone();
    assert_eq!(directory, repo.join("snapshots").join(&commit));
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), commit);
    assert_eq!(fs::read(directory.join("model.safetensors")).unwrap(), large());
    assert_eq!(fs::read(directory.join("config.json")).unwrap(), b"{}");
    let mut names: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["config.json", "merges.txt", "model.safetensors"]);
    let hash = sha256(&large());
    assert_eq!(fs::read(repo.join("blobs").join(&hash)).unwrap(), large());
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(directory.join("model.safetensors")).unwrap(),
        Path::new("../../blobs").join(&hash)
    );

    let listing = fs::read(repo.join("trees").join(format!("{commit}.json"))).unwrap();
    let listing: serde_json::Value = serde_json::from_slice(&listing).unwrap();
    assert_eq!(listing["format_version"], 1);
    let config = &sha256(b"{}")[..40];
    assert_eq!(listing["files"]["config.json"], json!({ "size": 2, "blob_id": config }));
    let weights = json!({
        "size": 1_000_000,
        "blob_id": &hash[..40],
        "lfs_sha256": hash,
        "lfs_size": 1_000_000,
        "xet_hash": "0".repeat(64),
    });
    assert_eq!(listing["files"]["model.safetensors"], weights);

    let events = events.into_inner();
    assert_eq!(events[0], "Begin { files: 3, bytes: 1000005 }");
    let last = r#"Progress { file: "model.safetensors", bytes: 1000000, total: 1000000 }"#;
    assert_eq!(events.last().unwrap(), last);
    assert!(events.len() > 6, "{events:?}");
}

#[test]
fn what_is_there_is_not_fetched_again() {
    let (mut hub, home) = (with_model(), tempfile::tempdir().unwrap());
    let client = client(&hub, home.path());
    let first = client.weights(&address("hf:a/b"), SILENT).unwrap();
    hub.lines();
    let second = client.weights(&address("hf:a/b"), SILENT).unwrap();
    assert_eq!(first, second);
    let (asked, stored) = hub.lines();
    assert_eq!(asked, ["GET /api/models/a/b/revision/main"]);
    assert!(stored.is_empty());

    // A commit by its name needs no request.
    let commit = hub.state().repositories[MODEL].references["main"].clone();
    assert_eq!(
        client.weights(&address(&format!("hf:a/b@{commit}")), SILENT).unwrap(),
        first
    );
    assert!(hub.lines().0.is_empty());

    // Without a connection what is there is enough.
    hub.stop();
    let events = RefCell::new(Vec::new());
    let third = client.weights(&address("hf:a/b"), &|event| {
        events.borrow_mut().push(format!("{event:?}"));
    });
    assert_eq!(third.unwrap(), first);
    assert!(events.borrow().last().unwrap().starts_with("FromCache"), "{events:?}");
}

#[test]
fn another_commit_shares_what_is_the_same() {
    let (hub, home) = (with_model(), tempfile::tempdir().unwrap());
    let client = client(&hub, home.path());
    let first = client.weights(&address("hf:a/b"), SILENT).unwrap();
    hub.commit(MODEL, &[("config.json", b"{ }"), ("model.safetensors", &large())]);
    hub.lines();
    let second = client.weights(&address("hf:a/b"), SILENT).unwrap();
    assert_ne!(first, second);
    assert_eq!(fs::read(first.join("config.json")).unwrap(), b"{}");
    assert_eq!(fs::read(second.join("config.json")).unwrap(), b"{ }");
    assert_eq!(fs::read(second.join("model.safetensors")).unwrap(), large());
    assert!(hub.lines().1.is_empty(), "the weights are those of the first commit");
}

#[test]
fn a_broken_connection_is_gone_on_with() {
    let (hub, home) = (with_model(), tempfile::tempdir().unwrap());
    hub.state().cuts = vec![300_000, 400_000];
    let retries = RefCell::new(Vec::new());
    let on_event = |event: HubEvent<'_>| {
        if let HubEvent::Retry { bytes, .. } = event {
            retries.borrow_mut().push(bytes);
        }
    };
    let directory = client(&hub, home.path())
        .weights(&address("hf:a/b"), &on_event)
        .unwrap();
    assert_eq!(fs::read(directory.join("model.safetensors")).unwrap(), large());
    assert_eq!(retries.into_inner(), [400_000, 700_000]);
    let requests = hub.cdn.requests();
    let ranges: Vec<_> = requests.iter().map(|request| request.header("range")).collect();
    assert_eq!(ranges, [None, Some("bytes=400000-"), Some("bytes=700000-")]);
}

#[test]
fn an_interrupted_download_is_gone_on_with_by_the_next() {
    let (mut hub, home) = (with_model(), tempfile::tempdir().unwrap());
    hub.state().cuts = vec![0, 0, 400_000];
    let error = client(&hub, home.path())
        .weights(&address("hf:a/b"), SILENT)
        .unwrap_err();
    let is_expected = matches!(
        &error,
        HubError::Interrupted { file, bytes: 400_000, total: 1_000_000, .. } if file == "model.safetensors"
    );
    assert!(is_expected, "{error}");
    assert!(
        error.to_string().contains("run again: it goes on where it stopped"),
        "{error}"
    );

    // Nothing is there as if it were whole.
    let hash = sha256(&large());
    assert!(!blobs(home.path()).join(&hash).exists());
    assert_eq!(
        fs::metadata(blobs(home.path()).join(format!("{hash}.incomplete")))
            .unwrap()
            .len(),
        400_000
    );
    assert!(!home.path().join("hub/models--a--b/refs/main").exists());
    hub.cdn.requests();

    let directory = client(&hub, home.path()).weights(&address("hf:a/b"), SILENT).unwrap();
    assert_eq!(fs::read(directory.join("model.safetensors")).unwrap(), large());
    assert_eq!(hub.cdn.requests()[0].header("range"), Some("bytes=400000-"));
    assert!(!blobs(home.path()).join(format!("{hash}.incomplete")).exists());

    // The hub may have stopped as well.
    let home = tempfile::tempdir().unwrap();
    hub.stop();
    let error = client(&hub, home.path())
        .weights(&address("hf:a/b"), SILENT)
        .unwrap_err();
    assert!(matches!(&error, HubError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("HF_HUB_OFFLINE=1"), "{error}");
}

#[test]
fn a_server_that_ignores_ranges_sends_all_again() {
    let (hub, home) = (with_model(), tempfile::tempdir().unwrap());
    hub.state().cuts = vec![400_000];
    hub.state().ignores_ranges = true;
    let directory = client(&hub, home.path()).weights(&address("hf:a/b"), SILENT).unwrap();
    assert_eq!(fs::read(directory.join("model.safetensors")).unwrap(), large());
}

#[test]
fn what_an_earlier_attempt_left_need_not_be_right() {
    let (hub, home) = (with_model(), tempfile::tempdir().unwrap());
    fs::create_dir_all(blobs(home.path())).unwrap();
    let incomplete = blobs(home.path()).join(format!("{}.incomplete", sha256(&large())));
    // Longer than the file: it is begun again.
    fs::write(&incomplete, vec![0; 2_000_000]).unwrap();
    let directory = client(&hub, home.path()).weights(&address("hf:a/b"), SILENT).unwrap();
    assert_eq!(fs::read(directory.join("model.safetensors")).unwrap(), large());

    // As long, or a part, and other bytes: it is refused and removed, and the next attempt is right.
    for length in [1_000_000, 500_000] {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(blobs(home.path())).unwrap();
        let incomplete = blobs(home.path()).join(format!("{}.incomplete", sha256(&large())));
        fs::write(&incomplete, vec![0; length]).unwrap();
        let error = client(&hub, home.path())
            .weights(&address("hf:a/b"), SILENT)
            .unwrap_err();
        assert!(matches!(error, HubError::HashDiffers { .. }), "{error}");
        assert!(!incomplete.exists());
        client(&hub, home.path()).weights(&address("hf:a/b"), SILENT).unwrap();
    }
}

#[test]
fn other_bytes_than_were_listed_are_refused() {
    let (hub, home) = (with_model(), tempfile::tempdir().unwrap());
    hub.state().is_damaged = true;
    let error = client(&hub, home.path())
        .weights(&address("hf:a/b"), SILENT)
        .unwrap_err();
    let is_expected = matches!(
        &error,
        HubError::HashDiffers { file, expected, .. } if file == "model.safetensors" && *expected == sha256(&large())
    );
    assert!(is_expected, "{error}");
    let names: Vec<_> = fs::read_dir(blobs(home.path()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names.len(), 2, "config.json and merges.txt: {names:?}");

    // Fewer bytes, or more.
    for bytes in [large()[1..].to_vec(), [large(), vec![1]].concat()] {
        let home = tempfile::tempdir().unwrap();
        hub.state().is_damaged = false;
        hub.state().storage.insert(sha256(&large()), bytes);
        let error = client(&hub, home.path())
            .weights(&address("hf:a/b"), SILENT)
            .unwrap_err();
        let is_expected = matches!(error, HubError::SizeDiffers { .. } | HubError::Interrupted { .. });
        assert!(is_expected, "{error}");
        assert!(!blobs(home.path()).join(sha256(&large())).exists());
    }
}

#[test]
fn a_file_that_was_cut_in_the_cache_is_fetched_again() {
    let (hub, home) = (with_model(), tempfile::tempdir().unwrap());
    let client = client(&hub, home.path());
    let directory = client.weights(&address("hf:a/b"), SILENT).unwrap();
    let blob = blobs(home.path()).join(sha256(&large()));
    fs::write(&blob, &large()[..10]).unwrap();
    client.weights(&address("hf:a/b"), SILENT).unwrap();
    assert_eq!(fs::read(directory.join("model.safetensors")).unwrap(), large());
}

#[test]
fn a_listing_that_cannot_be_kept_is_asked_for_again() {
    let (hub, home) = (with_model(), tempfile::tempdir().unwrap());
    let repo = home.path().join("hub/models--a--b");
    fs::create_dir_all(&repo).unwrap();
    fs::write(repo.join("trees"), "no directory").unwrap();
    let client = client(&hub, home.path());
    client.weights(&address("hf:a/b"), SILENT).unwrap();
    hub.lines();
    client.weights(&address("hf:a/b"), SILENT).unwrap();
    assert_eq!(hub.lines().0.len(), 2);
}

#[test]
fn the_token_goes_to_the_endpoint_only() {
    let (hub, home) = (with_model(), tempfile::tempdir().unwrap());
    let client = client_with_token(&hub, home.path(), TOKEN);
    client.weights(&address("hf:a/b"), SILENT).unwrap();
    let token = format!("Bearer {TOKEN}");
    let asked = hub.hub.requests();
    assert!(asked.len() > 3);
    for request in asked {
        assert_eq!(
            request.header("authorization"),
            Some(token.as_str()),
            "{}",
            request.line()
        );
    }
    // The same address but for the port.
    let stored = hub.cdn.requests();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].header("authorization"), None);
}

#[test]
fn a_revision_is_a_branch_a_tag_or_a_commit() {
    let (hub, home) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let old = hub.commit(MODEL, &[("config.json", b"old"), ("model.safetensors", b"1")]);
    let new = hub.commit(MODEL, &[("config.json", b"new"), ("model.safetensors", b"2")]);
    for reference in ["v1", "refs/pr/3"] {
        let mut state = hub.state();
        let references = &mut state.repositories.get_mut(MODEL).unwrap().references;
        references.insert(reference.to_owned(), old.clone());
    }
    let client = client(&hub, home.path());
    let config = |revision: &str| {
        let directory = client.weights(&address(&format!("hf:a/b{revision}")), SILENT).unwrap();
        fs::read_to_string(directory.join("config.json")).unwrap()
    };
    assert_eq!(config(""), "new");
    assert_eq!(config("@main"), "new");
    assert_eq!(config("@v1"), "old");
    assert_eq!(config("@refs/pr/3"), "old");
    assert_eq!(config(&format!("@{old}")), "old");
    assert_eq!(config(&format!("@{new}")), "new");
    let reference = home.path().join("hub/models--a--b/refs/refs/pr/3");
    assert_eq!(fs::read_to_string(reference).unwrap(), old);
}

#[test]
fn sharded_weights_arrive_with_all_their_shards() {
    let (hub, home) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let index = br#"{"weight_map": {"wte": "model-1.safetensors", "wpe": "model-2.safetensors"}}"#;
    let files: [(&str, &[u8]); 5] = [
        ("config.json", b"{}"),
        ("model-1.safetensors", b"one"),
        ("model-2.safetensors", &large()),
        ("model-3.safetensors", b"of something else"),
        ("model.safetensors.index.json", index),
    ];
    hub.commit(MODEL, &files);
    let directory = client(&hub, home.path()).weights(&address("hf:a/b"), SILENT).unwrap();
    for (name, bytes) in &files[1..3] {
        assert_eq!(fs::read(directory.join(name)).unwrap(), *bytes);
    }
    assert!(!directory.join("model-3.safetensors").exists());

    let other = [files[0], files[1], files[4]];
    hub.commit("models/a/c", &other);
    let error = client(&hub, home.path())
        .weights(&address("hf:a/c"), SILENT)
        .unwrap_err();
    assert!(
        matches!(&error, HubError::ShardMissing { shard, .. } if shard == "model-2.safetensors"),
        "{error}"
    );
}

#[test]
fn several_at_once_fetch_a_file_once() {
    let (hub, home) = (with_model(), tempfile::tempdir().unwrap());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let client = Hub::new(config(hub.url(), home.path())).unwrap();
                let directory = client.weights(&address("hf:a/b"), SILENT).unwrap();
                assert_eq!(fs::read(directory.join("model.safetensors")).unwrap(), large());
            });
        }
    });
    assert_eq!(hub.cdn.requests().len(), 1);
}

/// A disk on which nothing has room.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told() {
    let (hub, home) = (with_model(), tempfile::tempdir().unwrap());
    fs::create_dir_all(blobs(home.path())).unwrap();
    let incomplete = blobs(home.path()).join(format!("{}.incomplete", sha256(&large())));
    std::os::unix::fs::symlink("/dev/full", incomplete).unwrap();
    let error = client(&hub, home.path())
        .weights(&address("hf:a/b"), SILENT)
        .unwrap_err();
    assert!(
        matches!(&error, HubError::DiskFull { needed: 1_000_000, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("1000000 more bytes are needed"), "{error}");
}
