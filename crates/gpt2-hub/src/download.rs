//! One file into the cache, whole and checked, or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use gpt2_base::fs::{sha256_file, sync_directory, sync_file};
use ureq::Body;
use ureq::http::Response;

use crate::cache::{RepoCache, make_parent};
use crate::config::HubConfig;
use crate::error::HubError;
use crate::event::HubEvent;
use crate::http::{Client, encode_path, header};
use crate::listing::Content;
use crate::refusal::Attempt;

/// Bytes between two events.
const PIECE: usize = 1 << 18;

/// What every file of a commit is fetched with.
#[derive(Clone, Copy)]
pub(crate) struct Download<'a> {
    pub(crate) client: &'a Client,
    pub(crate) config: &'a HubConfig,
    pub(crate) attempt: Attempt<'a>,
    pub(crate) cache: &'a RepoCache,
    pub(crate) commit: &'a str,
    pub(crate) on_event: &'a dyn Fn(HubEvent<'_>),
}

/// How an attempt to fetch the rest of a file ended, if not well.
enum Broken {
    /// Another attempt may go on with it.
    Again { reason: String },
    /// It may not.
    For(HubError),
}

impl From<HubError> for Broken {
    fn from(error: HubError) -> Self {
        match error.passing_reason() {
            Some(reason) => Self::Again { reason },
            None => Self::For(error),
        }
    }
}

impl Download<'_> {
    /// Fetches a file, unless its content is here under another name or of another commit.
    ///
    /// # Errors
    /// What the hub, the network or the disk refuses.
    pub(crate) fn file(&self, path: &str, content: &Content) -> Result<(), HubError> {
        let _lock = self.cache.lock(content.hash())?;
        // Another process may have been faster.
        if size(&self.cache.snapshot(self.commit).join(path)) == Some(content.bytes()) {
            return Ok(());
        }
        let blob = self.cache.blob(content.hash());
        if size(&blob) != Some(content.bytes()) {
            make_parent(&blob)?;
            self.fetch(path, content)?;
        }
        self.cache.link(self.commit, path, content.hash())
    }

    /// Fetches what is missing of a content, checks it and gives it its name.
    fn fetch(&self, path: &str, content: &Content) -> Result<(), HubError> {
        let incomplete = self.cache.incomplete(content.hash());
        let mut failures = 0;
        loop {
            let before = size(&incomplete).unwrap_or(0);
            let Err(broken) = self.rest(path, content, &incomplete) else {
                break;
            };
            let reason = match broken {
                Broken::For(error) => return Err(error),
                Broken::Again { reason } => reason,
            };
            let bytes = size(&incomplete).unwrap_or(0);
            failures = if bytes > before { 0 } else { failures + 1 };
            if failures > self.config.retries {
                return Err(HubError::Interrupted {
                    file: path.to_owned(),
                    bytes,
                    total: content.bytes(),
                    reason,
                });
            }
            let reason = &reason;
            (self.on_event)(HubEvent::Retry {
                file: path,
                bytes,
                reason,
            });
            self.config.wait_after(failures);
        }
        check(path, content, &incomplete)?;
        sync_file(&incomplete).map_err(HubError::io("write", &incomplete))?;
        let blob = self.cache.blob(content.hash());
        fs::rename(&incomplete, &blob).map_err(HubError::io("rename", &incomplete))?;
        let directory = blob.parent().unwrap_or(Path::new("."));
        sync_directory(directory).map_err(HubError::io("write", directory))
    }

    /// One request for the bytes from the end of `incomplete` on.
    fn rest(&self, path: &str, content: &Content, incomplete: &Path) -> Result<(), Broken> {
        let open = OpenOptions::new().create(true).append(true).read(true).open(incomplete);
        let mut file = open.map_err(HubError::io("write", incomplete))?;
        let mut start = size(incomplete).unwrap_or(0);
        if start > content.bytes() {
            // Of something else: the size would be refused in the end.
            start = 0;
            empty(&mut file, incomplete)?;
        }
        self.progress(path, start, content);
        if start == content.bytes() {
            return Ok(());
        }
        let address = self.attempt.address;
        let url = format!(
            "{}/resolve/{}/{}",
            address.page(self.attempt.endpoint),
            self.commit,
            encode_path(path)
        );
        let range = format!("bytes={start}-");
        let headers = [("range", range.as_str()), ("accept-encoding", "identity")];
        let answer = self.client.get(&url, &headers[usize::from(start == 0)..])?;
        if answer.status() == 416 {
            empty(&mut file, incomplete)?;
            return Err(Broken::Again {
                reason: "the server has no such range".to_owned(),
            });
        }
        let mut attempt = self.attempt;
        attempt.file = Some(path);
        let answer = attempt.check(&url, answer)?;
        if start > 0 && !begins_at(&answer, start) {
            // All of it comes, from the first byte.
            start = 0;
            empty(&mut file, incomplete)?;
        }
        self.receive(path, content, start, answer, &mut file, incomplete)
    }

    /// Appends the body of an answer to the file.
    fn receive(
        &self,
        path: &str,
        content: &Content,
        start: u64,
        answer: Response<Body>,
        file: &mut File,
        incomplete: &Path,
    ) -> Result<(), Broken> {
        // A byte more than there should be is enough to refuse it.
        let limit = content.bytes() - start + 1;
        let mut body = answer.into_body().into_reader().take(limit);
        let mut buffer = vec![0; PIECE];
        let mut bytes = start;
        loop {
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    file.write_all(&buffer[..count]).map_err(|source| {
                        if source.kind() == io::ErrorKind::StorageFull {
                            HubError::DiskFull {
                                file: path.to_owned(),
                                needed: content.bytes().saturating_sub(bytes),
                                path: self.cache.directory(),
                            }
                        } else {
                            HubError::io("write", incomplete)(source)
                        }
                    })?;
                    bytes += count as u64;
                    self.progress(path, bytes.min(content.bytes()), content);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Broken::Again {
                        reason: error.to_string(),
                    });
                }
            }
        }
        if bytes < content.bytes() {
            return Err(Broken::Again {
                reason: "the connection was closed".to_owned(),
            });
        }
        Ok(())
    }

    fn progress(&self, file: &str, bytes: u64, content: &Content) {
        (self.on_event)(HubEvent::Progress {
            file,
            bytes,
            total: content.bytes(),
        });
    }
}

/// Whether an answer is the part of the file that was asked for.
fn begins_at(answer: &Response<Body>, start: u64) -> bool {
    let first = || {
        let range = header(answer, "content-range")?.strip_prefix("bytes ")?;
        range.split_once('-')?.0.parse::<u64>().ok()
    };
    answer.status() == 206 && first() == Some(start)
}

fn empty(file: &mut File, path: &Path) -> Result<(), HubError> {
    let emptied = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)));
    emptied.map(|_| ()).map_err(HubError::io("write", path))
}

/// Bytes of a file, if there is one.
pub(crate) fn size(path: &Path) -> Option<u64> {
    let metadata = fs::metadata(path).ok()?;
    metadata.is_file().then_some(metadata.len())
}

/// Removes what arrived if it is not what was listed.
fn check(path: &str, content: &Content, incomplete: &Path) -> Result<(), HubError> {
    let remove = || fs::remove_file(incomplete).map_err(HubError::io("remove", incomplete));
    let found = size(incomplete).unwrap_or(0);
    if found != content.bytes() {
        remove()?;
        return Err(HubError::SizeDiffers {
            file: path.to_owned(),
            expected: content.bytes(),
            found,
        });
    }
    if let Some(expected) = content.sha256() {
        let found = sha256_file(incomplete).map_err(HubError::io("read", incomplete))?;
        if found != expected {
            remove()?;
            return Err(HubError::HashDiffers {
                file: path.to_owned(),
                expected: expected.to_owned(),
                found,
            });
        }
    }
    Ok(())
}
