//! What an answer other than the one hoped for means.

use ureq::Body;
use ureq::http::Response;

use crate::address::Address;
use crate::error::HubError;
use crate::http::{header, read, without_query};

/// What was attempted, for the error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) address: &'a Address,
    pub(crate) endpoint: &'a str,
    pub(crate) with_token: bool,
    /// A verb.
    pub(crate) action: &'static str,
    /// The file, if it is about one.
    pub(crate) file: Option<&'a str>,
}

impl Attempt<'_> {
    /// The answer, if it is a success.
    ///
    /// # Errors
    /// What else it is.
    pub(crate) fn check(&self, url: &str, answer: Response<Body>) -> Result<Response<Body>, HubError> {
        if answer.status().is_success() {
            Ok(answer)
        } else {
            Err(self.refusal(url, answer))
        }
    }

    /// The error that an answer means. The hub tells 404s and 401s apart by `X-Error-Code`; for a repository that one
    /// may not see, it says 401 without a token and 404 with one.
    pub(crate) fn refusal(&self, url: &str, answer: Response<Body>) -> HubError {
        let status = answer.status().as_u16();
        let code = header(&answer, "x-error-code").unwrap_or_default().to_owned();
        let message = message(url, answer);
        let address = self.address.to_string();
        let page = self.address.page(self.endpoint);
        let endpoint = self.endpoint.to_owned();
        let with_token = self.with_token;
        match (status, code.as_str()) {
            (401 | 403, "GatedRepo") => HubError::Gated {
                address,
                page,
                with_token,
            },
            (404, "RevisionNotFound") => HubError::NoRevision {
                address,
                revision: self.address.revision().to_owned(),
                page,
            },
            (404, "EntryNotFound") if self.file.is_some() => HubError::NoFile {
                address,
                file: self.file.unwrap_or_default().to_owned(),
            },
            (401 | 404, "RepoNotFound") | (404, "") => HubError::NoRepository {
                address,
                page,
                with_token,
            },
            (401, _) if !with_token => HubError::NoRepository {
                address,
                page,
                with_token,
            },
            (401, _) => HubError::TokenRefused {
                address,
                endpoint,
                message,
            },
            (403, _) => HubError::Forbidden {
                address,
                action: self.action,
                endpoint,
                message,
            },
            _ => HubError::Status {
                url: without_query(url),
                status,
                message,
            },
        }
    }
}

/// The hub's words: a header, or `error` of the body. A page in HTML is none.
fn message(url: &str, answer: Response<Body>) -> String {
    /// Longer ones are not for a line.
    const LONGEST: usize = 300;
    let words = header(&answer, "x-error-message").map(str::to_owned).or_else(|| {
        let body = read(url, answer).ok()?;
        let json: serde_json::Value = serde_json::from_slice(&body).ok()?;
        let error = json.get("error").or_else(|| json.get("message"))?;
        Some(error.as_str()?.to_owned())
    });
    let words = words.unwrap_or_default();
    let line: Vec<&str> = words.split_whitespace().collect();
    line.join(" ").chars().take(LONGEST).collect()
}
