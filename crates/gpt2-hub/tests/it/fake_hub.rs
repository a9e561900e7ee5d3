//! What the hub answers, by its documented API, as far as the crate asks.

use crate::server::{Answer, Request, Server};
use base64::prelude::{BASE64_STANDARD, Engine};
use gpt2_base::fs::sha256;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The token that the hub knows.
pub(crate) const TOKEN: &str = "hf_secret";

/// A file, and whether it is in Git LFS.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_lfs: bool,
}

impl Stored {
    fn hash(&self) -> String {
        let hash = sha256(&self.bytes);
        if self.is_lfs { hash } else { hash[..40].to_owned() }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Repository {
    /// Branches and tags.
    pub(crate) references: BTreeMap<String, String>,
    pub(crate) commits: BTreeMap<String, BTreeMap<String, Stored>>,
    pub(crate) is_private: bool,
    pub(crate) is_gated: bool,
}

/// What the hub has, and what it does wrong.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// By `models/OWNER/NAME` and `datasets/OWNER/NAME`.
    pub(crate) repositories: BTreeMap<String, Repository>,
    /// Where large files are: by their hash.
    pub(crate) storage: BTreeMap<String, Vec<u8>>,
    pub(crate) parts: BTreeMap<String, Vec<u8>>,
    /// Of the next answers with a large file, bytes after which the connection is closed.
    pub(crate) cuts: Vec<usize>,
    pub(crate) ignores_ranges: bool,
    pub(crate) is_damaged: bool,
    /// Files on a page of a list.
    pub(crate) page: Option<usize>,
    /// Bytes from which a file is sent in parts of so many.
    pub(crate) part_bytes: Option<usize>,
    /// Whether the token may write.
    pub(crate) is_read_only: bool,
    /// Status of the next answers of the storage.
    pub(crate) failures: Vec<u16>,
    /// Lines of the commits that were sent.
    pub(crate) sent_commits: Vec<Vec<Value>>,
}

/// The hub, and on another port the host that its large files are at.
pub(crate) struct FakeHub {
    pub(crate) hub: Server,
    pub(crate) cdn: Server,
    state: Arc<Mutex<State>>,
}

impl FakeHub {
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let cdn = Server::start({
            let state = Arc::clone(&state);
            move |request| storage(&mut state.lock().unwrap(), request)
        });
        let hub = Server::start({
            let (state, cdn) = (Arc::clone(&state), cdn.url().to_owned());
            move |request| answer(&mut state.lock().unwrap(), request, &cdn)
        });
        Self { hub, cdn, state }
    }

    pub(crate) fn url(&self) -> &str {
        self.hub.url()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Adds a commit to `main` and returns its name. Files of more than 100 bytes are in Git LFS.
    pub(crate) fn commit(&self, repository: &str, files: &[(&str, &[u8])]) -> String {
        let file = |(path, bytes): &(&str, &[u8])| {
            let stored = Stored {
                bytes: bytes.to_vec(),
                is_lfs: bytes.len() > 100,
            };
            ((*path).to_owned(), stored)
        };
        let files: BTreeMap<String, Stored> = files.iter().map(file).collect();
        let mut state = self.state();
        for stored in files.values().filter(|stored| stored.is_lfs) {
            state.storage.insert(stored.hash(), stored.bytes.clone());
        }
        let commit = sha256(format!("{files:?}").as_bytes())[..40].to_owned();
        let repository = state.repositories.entry(repository.to_owned()).or_default();
        repository.references.insert("main".to_owned(), commit.clone());
        repository.commits.insert(commit.clone(), files);
        commit
    }

    pub(crate) fn stop(&mut self) {
        self.hub.stop();
        self.cdn.stop();
    }

    /// What was asked of the hub and of the other host since the last time, as `METHOD PATH`.
    pub(crate) fn lines(&self) -> (Vec<String>, Vec<String>) {
        let lines = |server: &Server| server.requests().iter().map(Request::line).collect();
        (lines(&self.hub), lines(&self.cdn))
    }
}

fn error(status: u16, code: &str, message: &str) -> Answer {
    let answer = Answer::new(status).header("X-Error-Message", message);
    if code.is_empty() {
        answer
    } else {
        answer.header("X-Error-Code", code)
    }
}

fn answer(state: &mut State, request: &Request, cdn: &str) -> Answer {
    let token = request.header("authorization");
    let is_known = token == Some(&format!("Bearer {TOKEN}"));
    if token.is_some() && !is_known {
        return error(401, "", "Invalid credentials in Authorization header");
    }
    if request.method == "POST" {
        return if is_known && !state.is_read_only {
            post(state, request, cdn)
        } else if is_known {
            error(
                403,
                "",
                "You don't have the rights to create a model under this namespace",
            )
        } else {
            error(401, "", "Invalid username or password.")
        };
    }
    let path = request.path.trim_start_matches('/');
    let (key, rest) = match path.strip_prefix("api/") {
        Some(path) => split(path),
        None if path.starts_with("datasets/") => split(path),
        None => split(&format!("models/{path}")),
    };
    let Some(repository) = state.repositories.get(&key) else {
        return if is_known {
            error(404, "RepoNotFound", "Repository not found")
        } else {
            error(401, "RepoNotFound", "Invalid username or password.")
        };
    };
    if repository.is_private && !is_known {
        return error(401, "RepoNotFound", "Invalid username or password.");
    }
    let (method, rest) = rest.split_once('/').unwrap_or((rest.as_str(), ""));
    let (revision, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let revision = revision.replace("%2F", "/");
    let commit = repository.references.get(&revision).unwrap_or(&revision);
    let Some(files) = repository.commits.get(commit) else {
        return error(404, "RevisionNotFound", "Invalid rev id");
    };
    match method {
        "revision" => Answer::json(&json!({ "sha": commit, "id": key, "siblings": [] })),
        "tree" => tree(state, files, request),
        "resolve" if repository.is_gated && !is_known => error(401, "GatedRepo", "Access to model is restricted"),
        "resolve" if repository.is_gated => error(403, "GatedRepo", "You are not in the authorized list"),
        "resolve" => match files.get(&rest.replace("%20", " ")) {
            None => error(404, "EntryNotFound", "Entry not found"),
            Some(file) if file.is_lfs => Answer::new(302)
                .header("Location", format!("{cdn}/{}?signature=abc", file.hash()))
                .header("X-Repo-Commit", commit)
                .header("X-Linked-Etag", format!("\"{}\"", file.hash()))
                .header("X-Linked-Size", file.bytes.len().to_string()),
            Some(file) => Answer::new(200)
                .header("X-Repo-Commit", commit)
                .header("ETag", format!("\"{}\"", file.hash()))
                .body(file.bytes.clone()),
        },
        _ => Answer::new(404),
    }
}

/// `models/OWNER/NAME`, and what comes after it.
fn split(path: &str) -> (String, String) {
    let parts: Vec<&str> = path.splitn(4, '/').collect();
    let rest = parts.get(3).copied().unwrap_or_default();
    (parts[..3.min(parts.len())].join("/"), rest.to_owned())
}

fn tree(state: &State, files: &BTreeMap<String, Stored>, request: &Request) -> Answer {
    let mut items: Vec<Value> = vec![json!({ "type": "directory", "oid": "0", "size": 0, "path": "a-directory" })];
    for (path, file) in files {
        let oid = &sha256(&file.bytes)[..40];
        let mut item = json!({ "type": "file", "oid": oid, "size": file.bytes.len(), "path": path });
        if file.is_lfs {
            item["lfs"] = json!({ "oid": file.hash(), "size": file.bytes.len(), "pointerSize": 130 });
            item["xetHash"] = "0".repeat(64).into();
        }
        items.push(item);
    }
    let from = request
        .query
        .split_once("cursor=")
        .map_or(0, |(_, at)| at.parse().unwrap());
    let page = state.page.unwrap_or(items.len());
    let some: Vec<Value> = items.iter().skip(from).take(page).cloned().collect();
    let answer = Answer::json(&some.into());
    if from + page >= items.len() {
        return answer;
    }
    let host = request.header("host").unwrap();
    let next = format!("<http://{host}{}?cursor={}>; rel=\"next\"", request.path, from + page);
    answer.header("Link", next)
}

fn post(state: &mut State, request: &Request, cdn: &str) -> Answer {
    let host = request.header("host").unwrap();
    if request.path == "/api/repos/create" {
        let body = request.json();
        let text = |key: &str| body[key].as_str().unwrap().to_owned();
        let id = format!("{}/{}", text("organization"), text("name"));
        let key = format!("models/{id}");
        if state.repositories.contains_key(&key) {
            return error(409, "", "You already created this model repo");
        }
        let is_private = body["private"] == true;
        let repository = Repository {
            is_private,
            ..Repository::default()
        };
        state.repositories.insert(key, repository);
        return Answer::json(&json!({ "url": format!("http://{host}/{id}") }));
    }
    if request.path.ends_with(".git/info/lfs/objects/batch") {
        return batch(state, &request.json(), host, cdn);
    }
    if let Some(oid) = request.path.strip_prefix("/complete/") {
        let parts = request.json()["parts"].as_array().unwrap().clone();
        let mut whole = Vec::new();
        for (number, part) in (1..).zip(&parts) {
            assert_eq!(part["partNumber"], number);
            assert_eq!(part["etag"], format!("\"etag-{number}\""));
            whole.extend(state.parts.remove(&format!("{oid}-{number}")).unwrap());
        }
        assert_eq!(sha256(&whole), oid);
        state.storage.insert(oid.to_owned(), whole);
        return Answer::json(&json!({}));
    }
    if request.path == "/verify" {
        let body = request.json();
        let stored = state.storage.get(body["oid"].as_str().unwrap());
        assert_eq!(stored.map(|bytes| bytes.len() as u64), body["size"].as_u64());
        return Answer::json(&json!({}));
    }
    if request.path.contains("/preupload/") {
        let mode = |file: &Value| {
            let is_lfs = file["path"].as_str().unwrap().ends_with(".safetensors");
            let should_ignore = file["path"] == "ignored.txt";
            json!({
                "path": file["path"],
                "uploadMode": if is_lfs { "lfs" } else { "regular" },
                "shouldIgnore": should_ignore,
            })
        };
        let files: Vec<Value> = request.json()["files"].as_array().unwrap().iter().map(mode).collect();
        return Answer::json(&json!({ "files": files }));
    }
    assert!(request.path.contains("/commit/"), "{}", request.path);
    assert_eq!(request.header("content-type"), Some("application/x-ndjson"));
    let body = String::from_utf8(request.body.clone()).unwrap();
    let lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let files = lines.iter().filter_map(|line| sent_file(state, line)).collect();
    state.sent_commits.push(lines);
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let id = request
        .path
        .split("/commit/")
        .next()
        .unwrap()
        .trim_start_matches("/api/models/");
    let repository = state.repositories.entry(format!("models/{id}")).or_default();
    repository.references.insert("main".to_owned(), commit.to_owned());
    repository.commits.insert(commit.to_owned(), files);
    let url = format!("http://{host}/{id}/commit/{commit}");
    Answer::json(&json!({ "success": true, "commitOid": commit, "commitUrl": url }))
}

/// The file of a line of a commit.
fn sent_file(state: &State, line: &Value) -> Option<(String, Stored)> {
    let value = &line["value"];
    let is_lfs = line["key"] == "lfsFile";
    let bytes = match line["key"].as_str() {
        Some("file") => BASE64_STANDARD.decode(value["content"].as_str().unwrap()).unwrap(),
        Some("lfsFile") => state.storage.get(value["oid"].as_str().unwrap())?.clone(),
        _ => return None,
    };
    Some((value["path"].as_str().unwrap().to_owned(), Stored { bytes, is_lfs }))
}

fn batch(state: &State, body: &Value, host: &str, cdn: &str) -> Answer {
    assert_eq!(body["operation"], "upload");
    assert_eq!(body["hash_algo"], "sha256");
    let object = |object: &Value| {
        let oid = object["oid"].as_str().unwrap();
        let size = object["size"].as_u64().unwrap() as usize;
        if size == 13 {
            return json!({ "oid": oid, "error": { "code": 422, "message": "no thirteen bytes" } });
        }
        if state.storage.contains_key(oid) {
            return json!({ "oid": oid, "size": size });
        }
        let verify = json!({ "href": format!("http://{host}/verify"), "header": {} });
        let upload = match state.part_bytes {
            Some(part) if size > part => {
                let mut header = json!({ "chunk_size": part.to_string() });
                for number in 1..=size.div_ceil(part) {
                    header[format!("{number:05}")] = format!("{cdn}/{oid}-{number}?signature=abc").into();
                }
                json!({ "href": format!("http://{host}/complete/{oid}"), "header": header })
            }
            _ => json!({ "href": format!("{cdn}/{oid}?signature=abc"), "header": { "x-of-storage": "yes" } }),
        };
        json!({ "oid": oid, "size": size, "actions": { "upload": upload, "verify": verify } })
    };
    let objects: Vec<Value> = body["objects"].as_array().unwrap().iter().map(object).collect();
    Answer::json(&json!({ "transfer": "basic", "objects": objects }))
}

/// The other host: it has large files, and takes them.
fn storage(state: &mut State, request: &Request) -> Answer {
    assert_eq!(request.query, "signature=abc");
    if let Some(status) = state.failures.pop() {
        return Answer::new(status);
    }
    let name = request.path.trim_start_matches('/');
    if request.method == "PUT" {
        if let Some((_, number)) = name.split_once('-') {
            state.parts.insert(name.to_owned(), request.body.clone());
            return Answer::new(200).header("ETag", format!("\"etag-{number}\""));
        }
        assert_eq!(request.header("x-of-storage"), Some("yes"));
        state.storage.insert(name.to_owned(), request.body.clone());
        return Answer::new(200);
    }
    let mut bytes = state.storage[name].clone();
    if state.is_damaged {
        bytes[0] ^= 1;
    }
    let range = request.header("range").filter(|_| !state.ignores_ranges);
    let start = range.map(|range| {
        range
            .strip_prefix("bytes=")
            .unwrap()
            .trim_end_matches('-')
            .parse()
            .unwrap()
    });
    let mut answer = match start {
        None => Answer::new(200).body(bytes),
        Some(start) => {
            let content = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            Answer::new(206).header("Content-Range", content).body(&bytes[start..])
        }
    };
    answer.cut = state.cuts.pop();
    answer
}
