//! A directory as one commit of a model's repository.
//!
//! The hub is asked to make the repository, which it may have, and which of the files it wants in Git LFS. Those are
//! sent to the storage that it names, but for what is there already. The commit then names them by their hashes and has
//! the small files in it. Nothing is seen of it before the commit, and a push that was interrupted sends no large file
//! again that had arrived.

mod files;
mod lfs;

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use crate::config::HubConfig;
use crate::error::HubError;
use crate::event::HubEvent;
use crate::http::{Client, encode, read_json};
use crate::refusal::Attempt;
use files::LocalFile;

const JSON: &str = "application/json";

/// Files that the hub is asked about at once, as in Python's `huggingface_hub`.
const FILES_AT_ONCE: usize = 256;

/// How a directory is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// The first line of the commit's message.
    pub summary: String,
    /// Whether a repository that is made is private; `None` for the account's default. One that is there stays as it
    /// is.
    pub private: Option<bool>,
}

/// What there is on the hub now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The page of the repository.
    pub page: String,
    /// The commit.
    pub commit: String,
    /// Files in it.
    pub files: usize,
    /// Bytes of large files that were sent; what the hub had is not.
    pub sent_bytes: u64,
}

/// What sends everything.
struct Upload<'a> {
    client: &'a Client,
    config: &'a HubConfig,
    attempt: Attempt<'a>,
    on_event: &'a dyn Fn(HubEvent<'_>),
}

/// Sends a directory, with a token.
///
/// # Errors
/// What the hub, its storage, the network or the disk refuses.
pub(crate) fn run(
    client: &Client,
    config: &HubConfig,
    attempt: Attempt<'_>,
    directory: &Path,
    push: &Push,
    on_event: &dyn Fn(HubEvent<'_>),
) -> Result<Pushed, HubError> {
    let files = files::find(directory)?;
    let upload = Upload {
        client,
        config,
        attempt,
        on_event,
    };
    upload.create(push.private)?;
    let modes = upload.modes(&files)?;
    let is_wanted = |file: &&LocalFile| modes.get(&file.name) != Some(&Mode::Ignored);
    let wanted: Vec<&LocalFile> = files.iter().filter(is_wanted).collect();
    let is_large = |file: &&&LocalFile| modes.get(&file.name) == Some(&Mode::Lfs);
    let (large, small): (Vec<&LocalFile>, Vec<&LocalFile>) = wanted.iter().partition(is_large);
    let sent_bytes = upload.lfs(&large)?;
    let commit = upload.commit(&push.summary, &small, &large)?;
    Ok(Pushed {
        page: attempt.address.page(attempt.endpoint),
        commit,
        files: wanted.len(),
        sent_bytes,
    })
}

/// Where the hub wants a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// In the commit.
    Regular,
    /// In the storage of large files.
    Lfs,
    /// Nowhere, by the repository's `.gitignore`.
    Ignored,
}

/// The answer to `preupload`.
#[derive(Debug, Deserialize)]
struct Modes {
    files: Vec<ModeOf>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModeOf {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
}

/// The answer to `commit`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Committed {
    commit_oid: String,
}

impl Upload<'_> {
    /// Makes the repository if there is none.
    fn create(&self, private: Option<bool>) -> Result<(), HubError> {
        let (owner, name) = self.attempt.address.id().split_once('/').unwrap_or_default();
        let mut body = json!({ "name": name, "organization": owner });
        if let Some(private) = private {
            body["private"] = private.into();
        }
        let url = format!("{}/api/repos/create", self.attempt.endpoint);
        let answer = self.client.post(&url, JSON, &[], body.to_string().as_bytes())?;
        match answer.status().as_u16() {
            // It is there.
            409 => Ok(()),
            // The token may not make repositories, but write to this one, if it is there: what follows will tell.
            403 if self.exists()? => Ok(()),
            _ => self.attempt.check(&url, answer).map(|_| ()),
        }
    }

    fn exists(&self) -> Result<bool, HubError> {
        let url = self.attempt.address.api(self.attempt.endpoint);
        Ok(self.client.get(&url, &[])?.status().is_success())
    }

    fn modes(&self, files: &[LocalFile]) -> Result<BTreeMap<String, Mode>, HubError> {
        let url = self.revision_url("preupload");
        let mut modes = BTreeMap::new();
        for some in files.chunks(FILES_AT_ONCE) {
            let question = |file: &LocalFile| {
                json!({
                    "path": file.name,
                    "size": file.bytes,
                    "sample": STANDARD.encode(&file.sample),
                })
            };
            let body = json!({ "files": some.iter().map(question).collect::<Vec<_>>() });
            let answer = self.client.post(&url, JSON, &[], body.to_string().as_bytes())?;
            let answer: Modes = read_json(&url, self.attempt.check(&url, answer)?)?;
            for file in answer.files {
                let mode = match file.upload_mode.as_str() {
                    _ if file.should_ignore => Mode::Ignored,
                    "lfs" => Mode::Lfs,
                    _ => Mode::Regular,
                };
                modes.insert(file.path, mode);
            }
        }
        // Git LFS has no empty files.
        for file in files.iter().filter(|file| file.bytes == 0) {
            modes.insert(file.name.clone(), Mode::Regular);
        }
        if let Some(file) = files.iter().find(|file| !modes.contains_key(&file.name)) {
            return Err(HubError::BadAnswer {
                url,
                reason: format!("it says nothing of {}", file.name),
            });
        }
        Ok(modes)
    }

    /// Makes the commit; its name.
    fn commit(&self, summary: &str, small: &[&LocalFile], large: &[&LocalFile]) -> Result<String, HubError> {
        let mut lines = vec![json!({ "key": "header", "value": { "summary": summary, "description": "" } })];
        for file in small {
            let content = STANDARD.encode(file.read()?);
            let value = json!({ "content": content, "path": file.name, "encoding": "base64" });
            lines.push(json!({ "key": "file", "value": value }));
        }
        for file in large {
            let value = json!({ "path": file.name, "algo": "sha256", "oid": file.sha256, "size": file.bytes });
            lines.push(json!({ "key": "lfsFile", "value": value }));
        }
        let mut body = String::new();
        for line in lines {
            body.push_str(&line.to_string());
            body.push('\n');
        }
        let url = self.revision_url("commit");
        let answer = self.client.post(&url, "application/x-ndjson", &[], body.as_bytes())?;
        let committed: Committed = read_json(&url, self.attempt.check(&url, answer)?)?;
        Ok(committed.commit_oid)
    }

    fn revision_url(&self, method: &str) -> String {
        let address = self.attempt.address;
        format!(
            "{}/{method}/{}",
            address.api(self.attempt.endpoint),
            encode(address.revision())
        )
    }
}
