//! What the hub refuses, and what it must not be given.

use crate::fake_hub::{FakeHub, TOKEN};
use crate::server::{Answer, Server};
use crate::{SILENT, address, client, client_with_token, config};
use gpt2_hub::{Hub, HubError};
use serde_json::json;

const FILES: [(&str, &[u8]); 2] = [("config.json", b"{}"), ("model.safetensors", b"weights")];

#[test]
fn no_such_repository() {
    let (hub, home) = (FakeHub::start(), tempfile::tempdir().unwrap());
    for client in [client(&hub, home.path()), client_with_token(&hub, home.path(), TOKEN)] {
        let error = client.weights(&address("hf:a/none"), SILENT).unwrap_err();
        assert!(matches!(error, HubError::NoRepository { .. }), "{error}");
        assert!(error.to_string().contains("does not exist or is private"), "{error}");
        assert!(error.to_string().contains("set HF_TOKEN"), "{error}");
    }
    assert!(!home.path().join("hub").exists(), "nothing is written for it");
}

#[test]
fn a_private_repository_needs_the_token() {
    let (hub, home) = (FakeHub::start(), tempfile::tempdir().unwrap());
    hub.commit("models/a/b", &FILES);
    hub.state().repositories.get_mut("models/a/b").unwrap().is_private = true;
    let error = client(&hub, home.path())
        .weights(&address("hf:a/b"), SILENT)
        .unwrap_err();
    assert!(
        matches!(error, HubError::NoRepository { with_token: false, .. }),
        "{error}"
    );
    client_with_token(&hub, home.path(), TOKEN)
        .weights(&address("hf:a/b"), SILENT)
        .unwrap();
}

#[test]
fn no_such_revision() {
    let (hub, home) = (FakeHub::start(), tempfile::tempdir().unwrap());
    hub.commit("models/a/b", &FILES);
    let error = client(&hub, home.path())
        .weights(&address("hf:a/b@v9"), SILENT)
        .unwrap_err();
    assert!(
        matches!(&error, HubError::NoRevision { revision, .. } if revision == "v9"),
        "{error}"
    );
    assert!(error.to_string().contains("/a/b/tree/main lists them"), "{error}");
}

#[test]
fn a_gated_repository_says_where_its_conditions_are() {
    let (hub, home) = (FakeHub::start(), tempfile::tempdir().unwrap());
    hub.commit("models/a/b", &FILES);
    hub.state().repositories.get_mut("models/a/b").unwrap().is_gated = true;
    for (client, fix) in [
        (client(&hub, home.path()), "then set HF_TOKEN"),
        (
            client_with_token(&hub, home.path(), TOKEN),
            "of the account that accepted them",
        ),
    ] {
        let error = client.weights(&address("hf:a/b"), SILENT).unwrap_err();
        assert!(matches!(error, HubError::Gated { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&format!("accept its conditions at {}/a/b", hub.url())),
            "{text}"
        );
        assert!(text.contains(fix), "{text}");
    }
}

#[test]
fn a_token_that_the_hub_does_not_know() {
    let (hub, home) = (FakeHub::start(), tempfile::tempdir().unwrap());
    hub.commit("models/a/b", &FILES);
    let client = client_with_token(&hub, home.path(), "hf_wrong");
    let error = client.weights(&address("hf:a/b"), SILENT).unwrap_err();
    assert!(matches!(error, HubError::TokenRefused { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("/settings/tokens") && text.contains("Invalid credentials"),
        "{text}"
    );
    assert!(
        !text.contains("hf_wrong") && !format!("{client:?}{error:?}").contains("hf_wrong"),
        "{text}"
    );
}

#[test]
fn a_pickle_is_refused() {
    let (hub, home) = (FakeHub::start(), tempfile::tempdir().unwrap());
    hub.commit(
        "models/a/b",
        &[("config.json", b"{}"), ("pytorch_model.bin", b"pickle")],
    );
    let error = client(&hub, home.path())
        .weights(&address("hf:a/b"), SILENT)
        .unwrap_err();
    assert!(matches!(error, HubError::PickleOnly { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("runs any code") && text.contains("spaces/safetensors/convert"),
        "{text}"
    );
    let (asked, _) = hub.lines();
    assert!(!asked.iter().any(|line| line.contains("resolve")), "{asked:?}");
}

/// A hub that answers the same to everything.
fn refusal_of(answer: fn() -> Answer) -> HubError {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(move |_| answer());
    let client = Hub::new(config(server.url(), home.path())).unwrap();
    client.weights(&address("hf:a/b"), SILENT).unwrap_err()
}

#[test]
fn other_answers_are_told_as_they_are() {
    let error = refusal_of(|| Answer::new(503).body("<html>down</html>"));
    assert!(matches!(error, HubError::Status { status: 503, .. }), "{error}");
    let error = refusal_of(|| Answer::new(400).body(r#"{"error": "of  the\nhub"}"#));
    assert!(error.to_string().contains("answered 400: of the hub"), "{error}");
    for answer in [
        || Answer::new(200).body("<html>"),
        || Answer::json(&json!({ "sha": "../../etc" })),
        || Answer::new(302).header("Location", "/again"),
        || Answer::new(302),
        || Answer::new(302).header("Location", "ftp://a"),
    ] {
        let error = refusal_of(answer);
        assert!(matches!(error, HubError::BadAnswer { .. }), "{error}");
    }
}

#[test]
fn names_and_hashes_of_a_list_cannot_leave_the_cache() {
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for (path, oid, is_name) in [
        ("../../x", commit, true),
        ("/etc/x", commit, true),
        ("a\\..\\x", commit, true),
        ("config.json", "../x", false),
        ("config.json", "", false),
    ] {
        let home = tempfile::tempdir().unwrap();
        let server = Server::start(move |request| {
            if request.path.contains("/tree/") {
                Answer::json(&json!([{ "type": "file", "oid": oid, "size": 1, "path": path }]))
            } else {
                Answer::json(&json!({ "sha": commit }))
            }
        });
        let client = Hub::new(config(server.url(), home.path())).unwrap();
        let error = client.weights(&address("hf:a/b"), SILENT).unwrap_err();
        assert_eq!(matches!(error, HubError::UnsafeName { .. }), is_name, "{error}");
        assert_eq!(matches!(error, HubError::BadAnswer { .. }), !is_name, "{error}");
    }
}

#[test]
fn a_renamed_repository_is_followed() {
    let (hub, home) = (FakeHub::start(), tempfile::tempdir().unwrap());
    hub.commit("models/a/b", &FILES);
    let target = hub.url().to_owned();
    // Of the old name the hub redirects to the new one, here on another port: the token stays behind.
    let server = Server::start(move |request| {
        let path = request.path.replace("old/name", "a/b");
        Answer::new(307).header("Location", format!("{target}{path}?{}", request.query))
    });
    let mut config = config(server.url(), home.path());
    config.token = gpt2_hub::Token::new("hf_of_the_endpoint");
    let directory = Hub::new(config)
        .unwrap()
        .weights(&address("hf:old/name"), SILENT)
        .unwrap();
    assert_eq!(std::fs::read(directory.join("model.safetensors")).unwrap(), b"weights");
    assert!(
        hub.hub
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
    let asked = server.requests();
    assert!(
        asked
            .iter()
            .all(|request| request.header("authorization") == Some("Bearer hf_of_the_endpoint"))
    );
}
