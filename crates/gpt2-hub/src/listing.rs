//! Which files a revision has: asked of the hub, or what the cache knows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::cache::{RepoCache, is_commit, is_safe};
use crate::error::HubError;
use crate::http::{Client, encode, header, read_json, without_query};
use crate::refusal::Attempt;

/// Pages that are asked for at most: a million files.
const PAGES: usize = 1000;

/// The version of the file in which Python's `huggingface_hub` keeps a listing.
const FORMAT_VERSION: u32 = 1;

/// A file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its path in the repository.
    pub(crate) path: String,
    /// What the hub knows of its content; `None` for what the cache has without a listing.
    pub(crate) content: Option<Content>,
}

/// What is known of a file's content, as Python's `huggingface_hub` keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    size: u64,
    /// Git's name of it, or of the pointer to it.
    blob_id: String,
    /// SHA-256 of a file in Git LFS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lfs_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lfs_size: Option<u64>,
    /// Kept for Python, which fetches by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    xet_hash: Option<String>,
}

impl Content {
    /// The name of the content in the cache: SHA-256, else Git's. The hub sends the same as its `ETag`.
    pub(crate) fn hash(&self) -> &str {
        self.lfs_sha256.as_deref().unwrap_or(&self.blob_id)
    }

    /// SHA-256 of the bytes, if the hub knows it.
    pub(crate) fn sha256(&self) -> Option<&str> {
        self.lfs_sha256.as_deref()
    }

    /// Its size.
    pub(crate) fn bytes(&self) -> u64 {
        self.lfs_size.unwrap_or(self.size)
    }

    /// Whether the hashes are hashes: one becomes the name of a file.
    fn is_sound(&self) -> bool {
        let is_hash = |hash: &str, length| {
            hash.len() == length && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        is_hash(&self.blob_id, 40) && self.lfs_sha256.as_ref().is_none_or(|hash| is_hash(hash, 64))
    }
}

/// A listing as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    format_version: u32,
    files: BTreeMap<String, Content>,
}

/// The files of a commit.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) commit: String,
    pub(crate) entries: Vec<Entry>,
}

impl Listing {
    pub(crate) fn find(&self, path: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.path == path)
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.entries.iter().map(|entry| entry.path.clone()).collect()
    }
}

/// What `GET /api/models/ID/revision/REVISION` answers, as far as it is used.
#[derive(Debug, Deserialize)]
struct Revision {
    sha: String,
}

/// An item of `GET /api/models/ID/tree/REVISION`.
#[derive(Debug, Deserialize)]
struct TreeItem {
    #[serde(rename = "type")]
    kind: String,
    oid: String,
    size: u64,
    path: String,
    lfs: Option<TreeLfs>,
    #[serde(rename = "xetHash")]
    xet_hash: Option<String>,
}

#[derive(Debug, Deserialize)]
struct TreeLfs {
    oid: String,
    size: u64,
}

/// Asks the hub; of a commit that was asked for before, the cache.
///
/// # Errors
/// That there is no such repository or revision, or that the hub cannot be reached.
pub(crate) fn ask(client: &Client, attempt: &Attempt<'_>, cache: &RepoCache) -> Result<Listing, HubError> {
    let address = attempt.address;
    let commit = if is_commit(address.revision()) {
        address.revision().to_owned()
    } else {
        commit_of(client, attempt)?
    };
    if let Some(entries) = kept(cache, &commit) {
        return Ok(Listing { commit, entries });
    }
    let files = tree(client, attempt, &commit)?;
    let kept = Kept {
        format_version: FORMAT_VERSION,
        files,
    };
    let json = serde_json::to_vec_pretty(&kept).unwrap_or_default();
    // It only spares the next request; a cache that others have filled may be closed to us.
    let _ = cache.write_listing(&commit, &json);
    let entries = entries(kept);
    Ok(Listing { commit, entries })
}

/// What the cache knows: the listing that was kept, else the files that are there, which another program fetched.
///
/// # Errors
/// [`HubError::Offline`], if it knows nothing.
pub(crate) fn recall(address: &Address, cache: &RepoCache) -> Result<Listing, HubError> {
    let nothing = || HubError::Offline {
        address: address.to_string(),
        what: format!("{} at revision {}", address.id(), address.revision()),
        cache: cache.directory(),
    };
    let commit = cache.commit().ok_or_else(nothing)?;
    if let Some(entries) = kept(cache, &commit) {
        return Ok(Listing { commit, entries });
    }
    let paths = cache.files(&commit);
    if paths.is_empty() {
        return Err(nothing());
    }
    let entry = |path| Entry { path, content: None };
    Ok(Listing {
        commit,
        entries: paths.into_iter().map(entry).collect(),
    })
}

fn kept(cache: &RepoCache, commit: &str) -> Option<Vec<Entry>> {
    let kept: Kept = serde_json::from_slice(&cache.read_listing(commit)?).ok()?;
    // Another program may have written it; what a name may do is not left to it.
    let mut files = kept.files.iter();
    let is_sound = kept.format_version == FORMAT_VERSION && files.all(|(path, file)| is_safe(path) && file.is_sound());
    is_sound.then(|| entries(kept))
}

/// In the order of their names.
fn entries(kept: Kept) -> Vec<Entry> {
    let entry = |(path, content)| Entry {
        path,
        content: Some(content),
    };
    kept.files.into_iter().map(entry).collect()
}

fn commit_of(client: &Client, attempt: &Attempt<'_>) -> Result<String, HubError> {
    let address = attempt.address;
    let url = format!(
        "{}/revision/{}",
        address.api(attempt.endpoint),
        encode(address.revision())
    );
    let answer = attempt.check(&url, client.get(&url, &[])?)?;
    let Revision { sha } = read_json(&url, answer)?;
    if is_commit(&sha) {
        Ok(sha)
    } else {
        Err(HubError::BadAnswer {
            url,
            reason: format!("the commit is {sha:?}"),
        })
    }
}

/// All files, page by page.
fn tree(client: &Client, attempt: &Attempt<'_>, commit: &str) -> Result<BTreeMap<String, Content>, HubError> {
    let api = attempt.address.api(attempt.endpoint);
    let mut url = format!("{api}/tree/{commit}?recursive=true");
    let mut files = BTreeMap::new();
    for _ in 0..PAGES {
        let answer = attempt.check(&url, client.get(&url, &[])?)?;
        let next = next_page(&answer);
        for item in read_json::<Vec<TreeItem>>(&url, answer)? {
            if item.kind == "file" {
                let (path, content) = file(attempt.address, item, &url)?;
                files.insert(path, content);
            }
        }
        let Some(next) = next else { return Ok(files) };
        url = next;
    }
    Err(HubError::BadAnswer {
        url: without_query(&url),
        reason: "the list of files does not end".to_owned(),
    })
}

fn file(address: &Address, item: TreeItem, url: &str) -> Result<(String, Content), HubError> {
    if !is_safe(&item.path) {
        return Err(HubError::UnsafeName {
            address: address.to_string(),
            name: item.path,
        });
    }
    let content = Content {
        size: item.size,
        blob_id: item.oid,
        lfs_size: item.lfs.as_ref().map(|lfs| lfs.size),
        lfs_sha256: item.lfs.map(|lfs| lfs.oid),
        xet_hash: item.xet_hash,
    };
    if content.is_sound() {
        return Ok((item.path, content));
    }
    Err(HubError::BadAnswer {
        url: without_query(url),
        reason: format!("the hash of {} is {:?}", item.path, content.hash()),
    })
}

/// `Link: <ADDRESS>; rel="next"` (RFC 8288).
fn next_page(answer: &ureq::http::Response<ureq::Body>) -> Option<String> {
    header(answer, "link")?.split(',').find_map(|link| {
        let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        parameters.contains("rel=\"next\"").then(|| url.to_owned())
    })
}
