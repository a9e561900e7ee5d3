//! Requests, and who is shown the token: the endpoint, and no host that it redirects to.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, SendBody};

use crate::config::{HubConfig, Token};
use crate::error::HubError;

/// As many as browsers follow, or fewer.
const REDIRECTS: usize = 10;
/// The longest answer that is read into memory: a page of a list, or a commit.
const LARGEST_ANSWER: u64 = 64 << 20;
/// A piece of an answer, or of a body, takes longer than connecting.
const PATIENCE: u32 = 4;
/// What is posted makes the hub work before it answers: it joins parts and writes commits.
const POST_PATIENCE: Duration = Duration::from_mins(10);

const USER_AGENT: &str = concat!("gpt2-hub/", env!("CARGO_PKG_VERSION"));

/// Name and value of headers.
pub(crate) type Headers<'a> = [(&'a str, &'a str)];

/// Connections to the endpoint and to where it redirects.
#[derive(Debug)]
pub(crate) struct Client {
    agent: Agent,
    origin: Origin,
    token: Option<Token>,
}

impl Client {
    /// # Errors
    /// [`HubError::BadEndpoint`], and certificates that cannot be read.
    pub(crate) fn new(config: &HubConfig) -> Result<Self, HubError> {
        let bad = || HubError::BadEndpoint {
            endpoint: config.endpoint.clone(),
        };
        let origin = Origin::of(&config.endpoint).ok_or_else(bad)?;
        if config.endpoint.ends_with('/') || config.endpoint.contains(['?', '#']) {
            return Err(bad());
        }
        let patience: Duration = config.timeout * PATIENCE;
        let mut agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(USER_AGENT)
            .timeout_connect(Some(config.timeout))
            .timeout_per_read(Some(patience))
            .timeout_per_write(Some(patience));
        if let Some(path) = &config.certificates {
            let roots = RootCerts::Specific(Arc::new(certificates(path)?));
            agent = agent.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        if origin.is_loopback() {
            // A proxy would look for the server on its own machine.
            agent = agent.proxy(None);
        }
        Ok(Self {
            agent: agent.build().new_agent(),
            origin,
            token: config.token.clone(),
        })
    }

    pub(crate) const fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Asks for `url`, and follows redirects with the same headers. The answer may be of any status.
    ///
    /// # Errors
    /// That there is no answer.
    pub(crate) fn get(&self, url: &str, headers: &Headers<'_>) -> Result<Response<Body>, HubError> {
        let mut url = url.to_owned();
        for _ in 0..=REDIRECTS {
            let mut request = self.agent.get(&url);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(token) = self.token_for(&url) {
                request = request.header(AUTHORIZATION, token);
            }
            let answer = request.call().map_err(|error| unreachable(&url, error))?;
            match redirect(&url, &answer)? {
                Some(next) => url = next,
                None => return Ok(answer),
            }
        }
        Err(HubError::BadAnswer {
            url: without_query(&url),
            reason: format!("it redirects more than {REDIRECTS} times"),
        })
    }

    /// Sends bytes that are in memory, with the token if the endpoint is asked.
    ///
    /// # Errors
    /// That there is no answer.
    pub(crate) fn post(
        &self,
        url: &str,
        content_type: &str,
        headers: &Headers<'_>,
        body: &[u8],
    ) -> Result<Response<Body>, HubError> {
        let request = self
            .agent
            .post(url)
            .config()
            .timeout_per_read(Some(POST_PATIENCE))
            .build();
        let mut request = request.header(CONTENT_TYPE, content_type);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = self.token_for(url) {
            request = request.header(AUTHORIZATION, token);
        }
        request.send(body).map_err(|error| unreachable(url, error))
    }

    /// Sends `length` bytes that are read on the way. Never with the token: such addresses are signed, and storage
    /// refuses what comes with two signatures.
    ///
    /// # Errors
    /// That there is no answer.
    pub(crate) fn put(
        &self,
        url: &str,
        headers: &Headers<'_>,
        length: u64,
        body: &mut dyn Read,
    ) -> Result<Response<Body>, HubError> {
        // Storage takes no chunked body, which `ureq` would send.
        let mut request = self.agent.put(url).header(CONTENT_LENGTH, length.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = request.send(SendBody::from_reader(body));
        sent.map_err(|error| unreachable(url, error))
    }

    fn token_for(&self, url: &str) -> Option<String> {
        let token = self.token.as_ref()?;
        (Origin::of(url)? == self.origin).then(|| token.bearer())
    }
}

/// The certificates of a file in PEM.
fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, HubError> {
    let pem = fs::read(path).map_err(HubError::io("read", path))?;
    let certificate = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    let certificates: Vec<_> = parse_pem(&pem).filter_map(certificate).collect();
    if certificates.is_empty() {
        let nothing = io::Error::new(io::ErrorKind::InvalidData, "no certificate in PEM is in it");
        return Err(HubError::io("trust", path)(nothing));
    }
    Ok(certificates)
}

/// The body of an answer.
///
/// # Errors
/// That the connection breaks, or that the body is longer than any that the hub sends.
pub(crate) fn read(url: &str, answer: Response<Body>) -> Result<Vec<u8>, HubError> {
    let body = answer.into_body().into_with_config().limit(LARGEST_ANSWER);
    body.read_to_vec().map_err(|error| unreachable(url, error))
}

/// The body of an answer as JSON of the form expected.
///
/// # Errors
/// As [`read`], and [`HubError::BadAnswer`].
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(url: &str, answer: Response<Body>) -> Result<T, HubError> {
    serde_json::from_slice(&read(url, answer)?).map_err(|error| HubError::BadAnswer {
        url: without_query(url),
        reason: error.to_string(),
    })
}

/// A header as text.
pub(crate) fn header<'a>(answer: &'a Response<Body>, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// An address without its query, which may be a signature.
pub(crate) fn without_query(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

/// A path with each of its parts as an address has it.
pub(crate) fn encode_path(path: &str) -> String {
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

/// One part of a path as an address has it (RFC 3986, section 2.3).
pub(crate) fn encode(part: &str) -> String {
    part.bytes()
        .map(|byte| match byte {
            b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn unreachable(url: &str, error: ureq::Error) -> HubError {
    match error {
        ureq::Error::BadUri(reason) => HubError::BadAnswer {
            url: without_query(url),
            reason,
        },
        error => HubError::Unreachable {
            url: without_query(url),
            source: match error {
                ureq::Error::Timeout(_) => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
                ureq::Error::HostNotFound => io::Error::new(io::ErrorKind::NotFound, "no host of this name"),
                error => error.into_io(),
            },
        },
    }
}

/// Where the answer leads, if it leads elsewhere.
fn redirect(url: &str, answer: &Response<Body>) -> Result<Option<String>, HubError> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let bad = |reason: &str| HubError::BadAnswer {
        url: without_query(url),
        reason: reason.to_owned(),
    };
    let location = header(answer, LOCATION.as_str()).ok_or_else(|| bad("it redirects nowhere"))?;
    if location.starts_with("http://") || location.starts_with("https://") {
        return Ok(Some(location.to_owned()));
    }
    let origin = Origin::of(url).ok_or_else(|| bad("it has no host"))?;
    if location.starts_with('/') && !location.starts_with("//") {
        return Ok(Some(format!("{}{location}", origin.0)));
    }
    Err(bad("it redirects to no address"))
}

/// Scheme, host and port of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin(String);

impl Origin {
    fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let (scheme, host) = (uri.scheme_str()?, uri.host()?);
        let port = uri.port_u16().or(match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        })?;
        (!host.is_empty()).then(|| Self(format!("{scheme}://{}:{port}", host.to_ascii_lowercase())))
    }

    fn is_loopback(&self) -> bool {
        ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"]
            .iter()
            .any(|start| self.0.starts_with(start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| Origin::of(a) == Origin::of(b);
        assert!(same("https://huggingface.co/a", "https://HuggingFace.co:443/b?c"));
        assert!(!same("https://huggingface.co", "http://huggingface.co"));
        assert!(!same("https://huggingface.co", "https://huggingface.co:8443"));
        assert!(!same("https://huggingface.co", "https://huggingface.co.evil.org"));
        assert!(!same("https://huggingface.co", "https://huggingface.co@evil.org"));
        for none in ["", "huggingface.co", "ftp://a", "https://", "/a"] {
            assert_eq!(Origin::of(none), None, "{none}");
        }
        assert!(Origin::of("http://127.0.0.1:80").unwrap().is_loopback());
        assert!(!Origin::of("http://127.0.0.1.evil.org:80").unwrap().is_loopback());
    }

    #[test]
    fn names_are_encoded_in_their_parts() {
        assert_eq!(encode_path("a b/c#d%.txt"), "a%20b/c%23d%25.txt");
        assert_eq!(encode("refs/pr/1"), "refs%2Fpr%2F1");
        assert_eq!(encode("é"), "%C3%A9");
    }

    #[test]
    fn an_endpoint_is_an_address_of_a_host() {
        for endpoint in ["", "huggingface.co", "ftp://a", "https://", "https://a/", "https://a?b"] {
            let config = HubConfig::new(endpoint, Path::new("x"));
            let error = Client::new(&config).unwrap_err();
            assert!(error.to_string().contains("HF_ENDPOINT"), "{endpoint}: {error}");
        }
    }

    #[test]
    fn certificates_are_a_file_in_pem() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.pem");
        let mut config = HubConfig::new("https://a", dir.path());
        config.certificates = Some(path.clone());
        let error = Client::new(&config).unwrap_err().to_string();
        assert!(error.contains("cannot read") && error.contains("roots.pem"), "{error}");
        fs::write(&path, "nothing").unwrap();
        let error = Client::new(&config).unwrap_err().to_string();
        assert!(error.contains("no certificate in PEM"), "{error}");
        fs::write(&path, "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n").unwrap();
        assert_eq!(certificates(&path).unwrap().len(), 1);
    }
}
