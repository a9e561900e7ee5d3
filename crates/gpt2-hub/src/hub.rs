//! What is asked of the hub: weights, text, and to take a model.

use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};
use gpt2_base::nearest;

use crate::address::Address;
use crate::cache::RepoCache;
use crate::config::HubConfig;
use crate::download::{Download, size};
use crate::error::HubError;
use crate::event::HubEvent;
use crate::http::Client;
use crate::listing::{Entry, Listing, ask, recall};
use crate::refusal::Attempt;
use crate::upload::{self, Push, Pushed};
use crate::weights;

/// As a shell has them: `*` ends at a slash, `**` does not.
const RULES: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// A hub with a cache.
#[derive(Debug)]
pub struct Hub {
    config: HubConfig,
    client: Client,
}

impl Hub {
    /// The hub of a configuration. Nothing is connected yet.
    ///
    /// # Errors
    /// [`HubError::BadEndpoint`], and certificates that cannot be read.
    pub fn new(config: HubConfig) -> Result<Self, HubError> {
        let client = Client::new(&config)?;
        Ok(Self { config, client })
    }

    /// The hub of the environment: [`HubConfig::from_env`].
    ///
    /// # Errors
    /// As [`HubConfig::from_env`] and [`Self::new`].
    pub fn from_env() -> Result<Self, HubError> {
        Self::new(HubConfig::from_env()?)
    }

    /// Fetches a model: `config.json`, its weights as safetensors, whole or in shards, and the tokenizer's files.
    /// Returns their directory in the cache. What is there already is not fetched again; if the hub is not reached,
    /// what is there is enough, if it is all.
    ///
    /// # Errors
    /// That the address is a data set's, that the model has no safetensors, and all that goes wrong on the way.
    pub fn weights(&self, address: &Address, on_event: &dyn Fn(HubEvent<'_>)) -> Result<PathBuf, HubError> {
        address.require_model()?;
        let snapshot = self.snapshot(address, on_event)?;
        let listing = &snapshot.listing;
        let needed = weights::needed(address, listing)?;
        snapshot.fetch(&needed.entries)?;
        let directory = snapshot.cache.snapshot(&listing.commit);
        if needed.is_sharded {
            snapshot.fetch(&weights::shards(address, listing, &directory)?)?;
        }
        snapshot.conclude()?;
        Ok(directory)
    }

    /// Fetches the files of a data set that match the pattern of the address. Returns their paths in the cache, in the
    /// order of their names. Otherwise as [`Self::weights`].
    ///
    /// # Errors
    /// That the address is a model's, that no file matches, and all that goes wrong on the way.
    pub fn text(&self, address: &Address, on_event: &dyn Fn(HubEvent<'_>)) -> Result<Vec<PathBuf>, HubError> {
        let text = address.require_pattern()?;
        let pattern = Pattern::new(text).map_err(|source| HubError::BadPattern {
            address: address.to_string(),
            pattern: text.to_owned(),
            source,
        })?;
        let snapshot = self.snapshot(address, on_event)?;
        let matches = |entry: &&Entry| pattern.matches_with(&entry.path, RULES);
        let matching: Vec<&Entry> = snapshot.listing.entries.iter().filter(matches).collect();
        if matching.is_empty() {
            let files = snapshot.listing.paths();
            return Err(HubError::NothingMatches {
                address: address.to_string(),
                pattern: text.to_owned(),
                nearest: nearest(text, &files).cloned(),
                files,
            });
        }
        snapshot.fetch(&matching)?;
        snapshot.conclude()?;
        let directory = snapshot.cache.snapshot(&snapshot.listing.commit);
        Ok(matching.iter().map(|entry| directory.join(&entry.path)).collect())
    }

    /// Sends the files of a directory as one commit, and makes the repository if there is none.
    ///
    /// # Errors
    /// That the address is a data set's, that there is no token, and all that goes wrong on the way.
    pub fn push(
        &self,
        directory: &Path,
        address: &Address,
        push: &Push,
        on_event: &dyn Fn(HubEvent<'_>),
    ) -> Result<Pushed, HubError> {
        self.check_push(address)?;
        let attempt = self.attempt(address, "write");
        upload::run(&self.client, &self.config, attempt, directory, push, on_event)
    }

    /// Whether [`Self::push`] can begin, as far as it is known here: for before the files are made.
    ///
    /// # Errors
    /// That the address is a data set's, that there is no token, and that the hub may not be reached.
    pub fn check_push(&self, address: &Address) -> Result<(), HubError> {
        address.require_model()?;
        let address = address.to_string();
        if self.config.offline {
            return Err(HubError::SendOffline { address });
        }
        if !self.client.has_token() {
            return Err(HubError::NoToken {
                address,
                endpoint: self.config.endpoint.clone(),
            });
        }
        Ok(())
    }

    fn attempt<'a>(&'a self, address: &'a Address, action: &'static str) -> Attempt<'a> {
        Attempt {
            address,
            endpoint: &self.config.endpoint,
            with_token: self.client.has_token(),
            action,
            file: None,
        }
    }

    /// Which files there are: as the hub says, or the cache if the hub may not or cannot be asked.
    fn snapshot<'a>(
        &'a self,
        address: &'a Address,
        on_event: &'a dyn Fn(HubEvent<'_>),
    ) -> Result<Snapshot<'a>, HubError> {
        let attempt = self.attempt(address, "read");
        let cache = RepoCache::new(&self.config.cache, address);
        let (listing, missed) = if self.config.offline {
            (recall(address, &cache)?, None)
        } else {
            match ask(&self.client, &attempt, &cache) {
                Ok(listing) => (listing, None),
                Err(error @ HubError::Unreachable { .. }) => {
                    let Ok(listing) = recall(address, &cache) else {
                        return Err(error);
                    };
                    (listing, Some(error))
                }
                Err(error) => return Err(error),
            }
        };
        Ok(Snapshot {
            hub: self,
            attempt,
            cache,
            listing,
            missed,
            on_event,
        })
    }
}

/// The files of a revision.
struct Snapshot<'a> {
    hub: &'a Hub,
    attempt: Attempt<'a>,
    cache: RepoCache,
    listing: Listing,
    /// Why the listing is the cache's, though the hub was asked.
    missed: Option<HubError>,
    on_event: &'a dyn Fn(HubEvent<'_>),
}

impl Snapshot<'_> {
    /// Fetches the files that are not here.
    fn fetch(&self, entries: &[&Entry]) -> Result<(), HubError> {
        let directory = self.cache.snapshot(&self.listing.commit);
        let is_here = |entry: &Entry| match (&entry.content, size(&directory.join(&entry.path))) {
            (Some(content), Some(found)) => content.bytes() == found,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let missing: Vec<_> = entries.iter().filter(|entry| !is_here(entry)).collect();
        if let Some(first) = missing.first()
            && (self.hub.config.offline || self.missed.is_some())
        {
            return Err(self.not_here(first));
        }
        let contents = missing
            .iter()
            .filter_map(|entry| Some((&entry.path, entry.content.as_ref()?)));
        (self.on_event)(HubEvent::Begin {
            files: missing.len(),
            bytes: contents.clone().map(|(_, content)| content.bytes()).sum(),
        });
        let download = Download {
            client: &self.hub.client,
            config: &self.hub.config,
            attempt: self.attempt,
            cache: &self.cache,
            commit: &self.listing.commit,
            on_event: self.on_event,
        };
        for (path, content) in contents {
            download.file(path, content)?;
        }
        Ok(())
    }

    /// The error that a file is not in the cache, and nothing else could be asked.
    fn not_here(&self, entry: &Entry) -> HubError {
        if let Some(HubError::Unreachable { url, source }) = &self.missed {
            let reason = format!("{source}; {} is not in the cache", entry.path);
            return HubError::Unreachable {
                url: url.clone(),
                source: std::io::Error::new(source.kind(), reason),
            };
        }
        HubError::Offline {
            address: self.attempt.address.to_string(),
            what: entry.path.clone(),
            cache: self.cache.directory(),
        }
    }

    /// All files that were asked for are here: the revision stands for their commit from now on. If the hub was not
    /// reached, that is told, and nothing is changed.
    fn conclude(&self) -> Result<(), HubError> {
        if let Some(HubError::Unreachable { source, .. }) = &self.missed {
            (self.on_event)(HubEvent::FromCache {
                commit: &self.listing.commit,
                cache: &self.hub.config.cache,
                reason: &source.to_string(),
            });
            return Ok(());
        }
        if self.hub.config.offline {
            return Ok(());
        }
        self.cache.set_commit(&self.listing.commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_ends_at_a_slash() {
        let matches = |pattern: &str, path: &str| Pattern::new(pattern).unwrap().matches_with(path, RULES);
        assert!(matches("*.txt", "a.txt"));
        assert!(!matches("*.txt", "a/b.txt"));
        assert!(matches("**/*.txt", "a/b/c.txt"));
        assert!(matches("data/train-0000[0-3]*", "data/train-00002-of-9.parquet"));
        assert!(!matches("*", ".gitattributes"));
    }
}
