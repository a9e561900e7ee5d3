//! Large files into the storage behind the hub: Git LFS's batch API with its transfer `basic`, and the hub's own
//! `multipart` for files of more than 5 GB.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::Body;
use ureq::http::Response;

use super::Upload;
use super::files::LocalFile;
use crate::error::{HubError, is_passing};
use crate::event::HubEvent;
use crate::http::{header, read_json, without_query};

const LFS_JSON: &str = "application/vnd.git-lfs+json";

/// Objects that are asked for at once, as in Python's `huggingface_hub`.
const OBJECTS_AT_ONCE: usize = 256;

/// The answer of the batch API.
#[derive(Debug, Deserialize)]
struct Batch {
    objects: Vec<Object>,
}

#[derive(Debug, Deserialize)]
struct Object {
    oid: String,
    actions: Option<Actions>,
    error: Option<ObjectError>,
}

#[derive(Debug, Deserialize)]
struct ObjectError {
    message: String,
}

/// What is to be done; nothing for what the storage has.
#[derive(Debug, Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Debug, Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, Value>,
}

impl Action {
    /// What the storage wants with the request.
    fn headers(&self) -> Vec<(&str, &str)> {
        let texts = self.header.iter();
        texts
            .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
            .collect()
    }
}

/// Some bytes of a file, and where they go.
#[derive(Clone, Copy)]
struct Part<'a> {
    file: &'a LocalFile,
    href: &'a str,
    headers: &'a [(&'a str, &'a str)],
    start: u64,
    length: u64,
}

impl Upload<'_> {
    /// Sends what the storage does not have; how many bytes that were.
    pub(super) fn lfs(&self, files: &[&LocalFile]) -> Result<u64, HubError> {
        // One object for files with the same content.
        let objects: BTreeMap<&str, &LocalFile> = files.iter().map(|file| (file.sha256.as_str(), *file)).collect();
        let objects: Vec<(&str, &LocalFile)> = objects.into_iter().collect();
        let mut missing = Vec::new();
        for some in objects.chunks(OBJECTS_AT_ONCE) {
            for object in self.batch(some)? {
                let file = some.iter().find(|(oid, _)| *oid == object.oid);
                let Some((_, file)) = file else { continue };
                if let Some(error) = object.error {
                    return Err(HubError::FileRefused {
                        file: file.name.clone(),
                        message: error.message,
                    });
                }
                if let Some(Actions {
                    upload: Some(upload),
                    verify,
                }) = object.actions
                {
                    missing.push((*file, upload, verify));
                }
            }
        }
        let bytes = missing.iter().map(|(file, ..)| file.bytes).sum();
        (self.on_event)(HubEvent::Begin {
            files: missing.len(),
            bytes,
        });
        for (file, upload, verify) in &missing {
            self.object(file, upload)?;
            if let Some(verify) = verify {
                self.verify(file, verify)?;
            }
        }
        Ok(bytes)
    }

    fn batch(&self, objects: &[(&str, &LocalFile)]) -> Result<Vec<Object>, HubError> {
        let address = self.attempt.address;
        let objects: Vec<Value> = objects
            .iter()
            .map(|(oid, file)| json!({ "oid": oid, "size": file.bytes }))
            .collect();
        if objects.is_empty() {
            return Ok(Vec::new());
        }
        let body = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": objects,
            "hash_algo": "sha256",
            "ref": { "name": address.revision() },
        });
        let url = format!("{}.git/info/lfs/objects/batch", address.page(self.attempt.endpoint));
        let headers = [("accept", LFS_JSON)];
        let answer = self
            .client
            .post(&url, LFS_JSON, &headers, body.to_string().as_bytes())?;
        let batch: Batch = read_json(&url, self.attempt.check(&url, answer)?)?;
        Ok(batch.objects)
    }

    fn object(&self, file: &LocalFile, action: &Action) -> Result<(), HubError> {
        match action.header.get("chunk_size") {
            None => {
                let whole = Part {
                    file,
                    href: &action.href,
                    headers: &action.headers(),
                    start: 0,
                    length: file.bytes,
                };
                self.part(whole).map(|_| ())
            }
            Some(size) => self.parts(file, action, size),
        }
    }

    /// Sends a file in parts of a size, each to an address of its own, and then says which parts there are.
    fn parts(&self, file: &LocalFile, action: &Action, size: &Value) -> Result<(), HubError> {
        let bad = |reason: String| HubError::BadAnswer {
            url: without_query(&action.href),
            reason,
        };
        let size = match size {
            Value::String(text) => text.parse().ok(),
            number => number.as_u64(),
        };
        let size = size
            .filter(|size| *size > 0)
            .ok_or_else(|| bad("the size of parts is none".to_owned()))?;
        let addresses = action.header.iter().filter_map(|(number, href)| {
            let number: u64 = number.parse().ok()?;
            Some((number, href.as_str()?))
        });
        // By number: "10" comes before "9" as text.
        let addresses: BTreeMap<u64, &str> = addresses.collect();
        let expected = file.bytes.div_ceil(size);
        if !addresses.keys().copied().eq(1..=expected) {
            return Err(bad(format!(
                "it has {} addresses for {expected} parts",
                addresses.len()
            )));
        }
        let mut parts = Vec::new();
        for (number, href) in addresses {
            let start = (number - 1) * size;
            let answer = self.part(Part {
                file,
                href,
                headers: &[],
                start,
                length: size.min(file.bytes - start),
            })?;
            let etag = header(&answer, "etag").filter(|etag| !etag.is_empty());
            let etag = etag.ok_or_else(|| bad(format!("part {number} has no ETag")))?;
            parts.push(json!({ "partNumber": number, "etag": etag }));
        }
        let body = json!({ "oid": file.sha256, "parts": parts }).to_string();
        let headers = [("accept", LFS_JSON)];
        let answer = self.client.post(&action.href, LFS_JSON, &headers, body.as_bytes())?;
        self.attempt.check(&action.href, answer).map(|_| ())
    }

    /// Sends some bytes of a file, and again if the connection breaks.
    fn part(&self, part: Part<'_>) -> Result<Response<Body>, HubError> {
        let mut failures = 0;
        loop {
            let error = match self.send(part) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let Some(reason) = &error.passing_reason() else {
                return Err(error);
            };
            failures += 1;
            if failures > self.config.retries {
                return Err(error);
            }
            (self.on_event)(HubEvent::Retry {
                file: &part.file.name,
                bytes: part.start,
                reason,
            });
            self.config.wait_after(failures);
        }
    }

    fn send(&self, part: Part<'_>) -> Result<Response<Body>, HubError> {
        let Part {
            file,
            href,
            headers,
            start,
            length,
        } = part;
        let read = || HubError::io("read", &file.path);
        let mut content = File::open(&file.path).map_err(read())?;
        if content.metadata().map_err(read())?.len() != file.bytes {
            return Err(HubError::FileChanged {
                path: file.path.clone(),
            });
        }
        content.seek(SeekFrom::Start(start)).map_err(read())?;
        let mut body = Counted {
            inner: content.take(length),
            file,
            bytes: start,
            end: start + length,
            on_event: self.on_event,
        };
        let answer = self.client.put(href, headers, length, &mut body)?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        if is_passing(status) {
            return Err(self.attempt.refusal(href, answer));
        }
        Err(HubError::FileRefused {
            file: file.name.clone(),
            message: format!("{} answered {status}", without_query(href)),
        })
    }

    /// Says that a file was sent, where the hub wants to hear it.
    fn verify(&self, file: &LocalFile, action: &Action) -> Result<(), HubError> {
        let headers = action.headers();
        let body = json!({ "oid": file.sha256, "size": file.bytes }).to_string();
        let answer = self.client.post(&action.href, LFS_JSON, &headers, body.as_bytes())?;
        self.attempt.check(&action.href, answer).map(|_| ())
    }
}

/// Some bytes of a file, which says how far it is.
struct Counted<'a> {
    inner: io::Take<File>,
    file: &'a LocalFile,
    bytes: u64,
    end: u64,
    on_event: &'a dyn Fn(HubEvent<'_>),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        if count == 0 && !buffer.is_empty() && self.bytes < self.end {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file was cut short"));
        }
        self.bytes += count as u64;
        if count > 0 {
            (self.on_event)(HubEvent::Progress {
                file: &self.file.name,
                bytes: self.bytes,
                total: self.file.bytes,
            });
        }
        Ok(count)
    }
}
