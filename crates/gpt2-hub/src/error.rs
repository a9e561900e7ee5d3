//! Everything that can go wrong with the hub, one variant for each way.
//!
//! Each message is one line: the address or file, what was found, what was expected, and the fix.

use std::io;
use std::path::{Path, PathBuf};

/// The error type of this crate.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    // The address and the environment
    /// A text that is no address, or one of the wrong kind.
    #[error("{address} {problem}, expected {expected}")]
    BadAddress {
        /// The text.
        address: String,
        /// What is wrong with it.
        problem: String,
        /// What it should look like.
        expected: &'static str,
    },
    /// The address of the hub is none.
    #[error(
        "the hub's endpoint is {endpoint:?}, expected such as https://huggingface.co: correct HF_ENDPOINT or unset it"
    )]
    BadEndpoint {
        /// What was given.
        endpoint: String,
    },
    /// There is no directory for the cache.
    #[error("there is no directory for the hub's files: set HF_HOME to one")]
    NoHome,

    // What the hub answers
    /// No such repository, or one that the token may not see: the hub does not tell which.
    #[error(
        "{address}: {page} does not exist or is private; check the name, {}",
        if *with_token { "or set HF_TOKEN to a token that may read it" } else { "or set HF_TOKEN if it is private" }
    )]
    NoRepository {
        /// The address.
        address: String,
        /// Its page.
        page: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{address}: there is no branch, tag or commit {revision:?}; {page}/tree/main lists them")]
    NoRevision {
        /// The address.
        address: String,
        /// The revision asked for.
        revision: String,
        /// The repository's page.
        page: String,
    },
    /// A file that the hub listed is not there.
    #[error("{address}: {file} is not there, though the hub listed it; run again")]
    NoFile {
        /// The address.
        address: String,
        /// The file.
        file: String,
    },
    /// The licence of the repository must be accepted first.
    #[error(
        "{address} is gated: accept its conditions at {page}, then {}",
        if *with_token { "run again, with the HF_TOKEN of the account that accepted them" } else { "set HF_TOKEN" }
    )]
    Gated {
        /// The address.
        address: String,
        /// Where the conditions are.
        page: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The hub does not know the token.
    #[error(
        "{address}: the hub refused the token (401{}); make another at {endpoint}/settings/tokens and set HF_TOKEN",
        detail(message)
    )]
    TokenRefused {
        /// The address.
        address: String,
        /// The hub.
        endpoint: String,
        /// The hub's words, if any.
        message: String,
    },
    /// The token is known, but may not do this.
    #[error(
        "{address}: the token may not {action} it (403{}); {endpoint}/settings/tokens shows what it may",
        detail(message)
    )]
    Forbidden {
        /// The address.
        address: String,
        /// What was attempted, as a verb.
        action: &'static str,
        /// The hub.
        endpoint: String,
        /// The hub's words, if any.
        message: String,
    },
    /// Any other answer that is not the one expected.
    #[error("{url} answered {status}{}; try again later", detail(message))]
    Status {
        /// What was asked, without its query.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The hub's words, if any.
        message: String,
    },
    /// An answer that is not of the form that the hub documents.
    #[error("{url} did not answer as the hub does: {reason}; is HF_ENDPOINT a hub?")]
    BadAnswer {
        /// What was asked, without its query.
        url: String,
        /// What is wrong with it.
        reason: String,
    },

    // The network
    /// No connection, or one that broke.
    #[error("cannot reach {url}: {source}; check the network, or set HF_HUB_OFFLINE=1 to use what is in the cache")]
    Unreachable {
        /// What was asked, without its query.
        url: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A download that broke more often than is tried.
    #[error("{file} was interrupted after {bytes} of {total} bytes ({reason}); run again: it goes on where it stopped")]
    Interrupted {
        /// The file.
        file: String,
        /// Bytes that are kept.
        bytes: u64,
        /// Its size.
        total: u64,
        /// What happened the last time.
        reason: String,
    },
    /// Not in the cache, and nothing else may be asked.
    #[error("{address}: {what} is not in the cache at {}; run once with HF_HUB_OFFLINE unset", cache.display())]
    Offline {
        /// The address.
        address: String,
        /// What is missing: a file, or the repository.
        what: String,
        /// The directory of the cache.
        cache: PathBuf,
    },

    // What the repository has
    /// A pattern that is not one.
    #[error("{address}: {pattern} is not a valid pattern: {source}")]
    BadPattern {
        /// The address.
        address: String,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: glob::PatternError,
    },
    /// No file has a name of the pattern.
    #[error(
        "{address}: no file matches {pattern}{}; it has {}",
        nearest.as_ref().map(|nearest| format!(", did you mean {nearest}?")).unwrap_or_default(), some_of(files)
    )]
    NothingMatches {
        /// The address.
        address: String,
        /// The pattern.
        pattern: String,
        /// The most similar name, if one is similar.
        nearest: Option<String>,
        /// The names there are.
        files: Vec<String>,
    },
    /// A model without its configuration.
    #[error(
        "{address} has no config.json, expected a model in transformers' files; it has {}",
        some_of(files)
    )]
    NoConfig {
        /// The address.
        address: String,
        /// The names there are.
        files: Vec<String>,
    },
    /// A model whose weights are in another format.
    #[error(
        "{address} has no model.safetensors, expected one, or its shards and their index; it has {}",
        some_of(files)
    )]
    NoWeights {
        /// The address.
        address: String,
        /// The names there are.
        files: Vec<String>,
    },
    /// A model whose weights are pickles only.
    #[error(
        "{address} has its weights as a pickle only ({file}), which is refused: opening one runs any code that \
         is in it; https://huggingface.co/spaces/safetensors/convert makes a pull request with safetensors, which is \
         {address}@refs/pr/NUMBER"
    )]
    PickleOnly {
        /// The address.
        address: String,
        /// The pickle.
        file: String,
    },
    /// The list of shards is not as transformers writes it.
    #[error("{} is not a list of shards: {reason}; remove it and run again", path.display())]
    BadIndex {
        /// The file in the cache.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A shard that the repository does not have.
    #[error("{address}: {shard} is missing, though model.safetensors.index.json lists it: ask the model's authors")]
    ShardMissing {
        /// The address.
        address: String,
        /// The shard.
        shard: String,
    },
    /// A name that would lead out of the cache.
    #[error("{address}: the hub lists a file {name:?}, which is no path below a directory: refused")]
    UnsafeName {
        /// The address.
        address: String,
        /// The name.
        name: String,
    },

    // The files here
    /// What arrived has another size than was listed.
    #[error("{file} has {found} bytes, but the hub lists {expected}: it is removed; run again")]
    SizeDiffers {
        /// The file.
        file: String,
        /// The listed size.
        expected: u64,
        /// That of what arrived.
        found: u64,
    },
    /// What arrived is not what was listed.
    #[error("{file} has SHA-256 {found}, but the hub lists {expected}: it is removed; run again")]
    HashDiffers {
        /// The file.
        file: String,
        /// The listed hash.
        expected: String,
        /// That of what arrived.
        found: String,
    },
    /// The disk is full.
    #[error(
        "no space is left for {file}: {needed} more bytes are needed at {}; free them or set HF_HOME to another disk, \
         then run again: it goes on where it stopped",
        path.display()
    )]
    DiskFull {
        /// The file in the repository.
        file: String,
        /// Bytes that are missing of it.
        needed: u64,
        /// Where it is written.
        path: PathBuf,
    },
    /// The operating system refused something else.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    // Sending
    /// Nothing can be sent without a token.
    #[error("{address}: sending needs a token that may write; make one at {endpoint}/settings/tokens and set HF_TOKEN")]
    NoToken {
        /// The address.
        address: String,
        /// The hub.
        endpoint: String,
    },
    /// Nothing can be sent offline.
    #[error("{address}: nothing can be sent while HF_HUB_OFFLINE is set; unset it")]
    SendOffline {
        /// The address.
        address: String,
    },
    /// The directory has no files.
    #[error("{} has no files to send", directory.display())]
    NothingToSend {
        /// The directory.
        directory: PathBuf,
    },
    /// A name that the hub cannot have.
    #[error("{} is not UTF-8 in its name, which the hub needs: rename it", path.display())]
    BadName {
        /// The file.
        path: PathBuf,
    },
    /// The storage behind the hub does not take a file.
    #[error("{file}: the hub does not take it: {message}")]
    FileRefused {
        /// The file.
        file: String,
        /// The hub's words.
        message: String,
    },
    /// A file has become longer or shorter while it was sent.
    #[error("{} changed while it was sent; run again when it is complete", path.display())]
    FileChanged {
        /// The file.
        path: PathBuf,
    },
}

impl HubError {
    /// Wraps an I/O error together with what was attempted and where; made for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// Why another attempt may do better, if it may.
    pub(crate) fn passing_reason(&self) -> Option<String> {
        match self {
            Self::Unreachable { source, .. } => Some(source.to_string()),
            Self::Status { status, .. } if is_passing(*status) => Some(format!("HTTP status {status}")),
            _ => None,
        }
    }
}

/// Whether a server may answer otherwise a moment later: it has too much to do, or a fault.
pub(crate) fn is_passing(status: u16) -> bool {
    status == 429 || status >= 500
}

/// The hub's own words, for the end of a clause.
fn detail(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(": {message}")
    }
}

/// The first few of many names, for a message of one line.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names.len() {
        0 => "no files".to_owned(),
        count if count <= SHOWN => names.join(", "),
        count => format!("{} and {} more", names[..SHOWN].join(", "), count - SHOWN),
    }
}
