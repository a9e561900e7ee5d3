//! Where the hub and its cache are, by Python's `huggingface_hub`'s variables.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fmt, fs, io, thread};

use crate::error::HubError;

/// The hub, if `HF_ENDPOINT` names no other.
const ENDPOINT: &str = "https://huggingface.co";

/// A token of the hub. It is not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token as the hub gives it; spaces around it are left out. `None` if nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Where the hub is, where its files are kept, and how long is waited for it.
#[derive(Debug, Clone)]
pub struct HubConfig {
    /// Address of the hub, without a slash at its end (`HF_ENDPOINT`).
    pub endpoint: String,
    /// Directory of the repositories (`HF_HUB_CACHE`, else `hub` in `HF_HOME`).
    pub cache: PathBuf,
    /// Sent to the endpoint only (`HF_TOKEN`, else the file `token` in `HF_HOME`).
    pub token: Option<Token>,
    /// A file of certificates in PEM to trust instead of Mozilla's, as where a proxy looks into connections
    /// (`SSL_CERT_FILE`, else `REQUESTS_CA_BUNDLE`).
    pub certificates: Option<PathBuf>,
    /// Take what the cache has, and connect to nothing (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// How often a file is gone on with after attempts that brought no byte.
    pub retries: u32,
    /// The wait before the first of them; it doubles each time.
    pub retry_wait: Duration,
    /// How long is waited for a connection to be made, and four times as long for each piece of an answer
    /// (`HF_HUB_DOWNLOAD_TIMEOUT`, in seconds).
    pub timeout: Duration,
}

impl HubConfig {
    /// The hub at `endpoint` with files in `home`, as if `HF_HOME` were that, without a token.
    pub fn new(endpoint: impl Into<String>, home: &Path) -> Self {
        Self {
            endpoint: endpoint.into(),
            cache: home.join("hub"),
            token: None,
            certificates: None,
            offline: false,
            retries: 4,
            retry_wait: Duration::from_secs(1),
            timeout: Duration::from_secs(10),
        }
    }

    /// Waits before another attempt, after so many that failed.
    pub(crate) fn wait_after(&self, failures: u32) {
        thread::sleep(self.retry_wait * 2_u32.saturating_pow(failures.min(5)));
    }

    /// What the environment and the token's file say.
    ///
    /// # Errors
    /// [`HubError::NoHome`], and a token file that cannot be read.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(&|name| env::var_os(name), env::home_dir().as_deref())
    }

    /// As [`Self::from_env`], with the variables that `variable` gives and the user's directory.
    ///
    /// # Errors
    /// As [`Self::from_env`].
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<OsString>, user: Option<&Path>) -> Result<Self, HubError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).map(|value| value.to_string_lossy().into_owned());
        let path = |name: &str| set(name).map(|value| expand(PathBuf::from(value), user));
        let home = path("HF_HOME")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(user?.join(".cache").join("huggingface")))
            .ok_or(HubError::NoHome)?;
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let mut config = Self::new(endpoint.trim_end_matches('/'), &home);
        if let Some(cache) = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE")) {
            config.cache = cache;
        }
        config.token = match text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")) {
            Some(token) => Token::new(&token),
            None => read_token(path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token")))?,
        };
        config.certificates = path("SSL_CERT_FILE").or_else(|| path("REQUESTS_CA_BUNDLE"));
        config.offline = text("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value));
        if let Some(seconds) = text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|value| value.parse().ok())
            && seconds > 0
        {
            config.timeout = Duration::from_secs(seconds);
        }
        Ok(config)
    }
}

/// What Python's `huggingface_hub` takes for true.
fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

/// The user's directory for a `~` at the beginning, which no shell has seen in a file of variables.
fn expand(path: PathBuf, user: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), user) {
        (Ok(rest), Some(user)) => user.join(rest),
        _ => path,
    }
}

fn read_token(path: PathBuf) -> Result<Option<Token>, HubError> {
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Token::new(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HubError::Io {
            action: "read",
            path,
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)], user: &Path) -> HubConfig {
        let of = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        HubConfig::from_variables(&of, Some(user)).unwrap()
    }

    #[test]
    fn without_variables_it_is_the_users_cache() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&[("HF_HOME", "")], dir.path());
        assert_eq!(config.endpoint, "https://huggingface.co");
        assert_eq!(config.cache, dir.path().join(".cache/huggingface/hub"));
        assert_eq!((config.token, config.offline), (None, false));
    }

    #[test]
    fn variables_are_those_of_python() {
        let dir = tempfile::tempdir().unwrap();
        let of = |variables: &[(&str, &str)]| config(variables, dir.path());
        assert_eq!(of(&[("HF_HOME", "/h")]).cache, Path::new("/h/hub"));
        assert_eq!(of(&[("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
        assert_eq!(
            of(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "~/c")]).cache,
            dir.path().join("c")
        );
        assert_eq!(of(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
        assert_eq!(of(&[("HF_TOKEN", " abc\n")]).token, Token::new("abc"));
        let both = [("REQUESTS_CA_BUNDLE", "/r.pem"), ("SSL_CERT_FILE", "/s.pem")];
        assert_eq!(of(&both[..1]).certificates.unwrap(), Path::new("/r.pem"));
        assert_eq!(of(&both).certificates.unwrap(), Path::new("/s.pem"));
        for (value, offline) in [("1", true), ("true", true), ("0", false), ("no", false)] {
            assert_eq!(of(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
        assert_eq!(of(&[("HF_HUB_DOWNLOAD_TIMEOUT", "30")]).timeout.as_secs(), 30);
    }

    #[test]
    fn the_token_may_be_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        fs::write(dir.path().join("token"), "from file\n").unwrap();
        assert_eq!(config(&[("HF_HOME", home)], dir.path()).token, Token::new("from file"));
        let both = [("HF_HOME", home), ("HF_TOKEN", "variable")];
        assert_eq!(config(&both, dir.path()).token, Token::new("variable"));
        let shown = format!("{:?}", config(&both, dir.path()));
        assert!(!shown.contains("variable"), "{shown}");
    }

    #[test]
    fn without_a_home_it_is_an_error() {
        let error = HubConfig::from_variables(&|_| None, None).unwrap_err();
        assert!(error.to_string().contains("HF_HOME"), "{error}");
    }
}
