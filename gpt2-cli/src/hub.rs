//! What `hf:…` names: fetched into the cache of the Hugging Face hub, with a bar. Without the feature `hub` it is an error.

use crate::error::CliError;
use std::path::{Path, PathBuf};

#[cfg(feature = "hub")]
mod transfer;

/// Where weights are: of an address on the hub in its cache, of anything else there.
///
/// # Errors
/// What the hub refuses.
pub(crate) fn weights(path: &Path) -> Result<PathBuf, CliError> {
    match address(path) {
        Some(address) => fetch_weights(address),
        None => Ok(path.to_owned()),
    }
}

/// Files of text, with those that an address on the hub names in its place.
///
/// # Errors
/// What the hub refuses.
pub(crate) fn texts(inputs: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut paths = Vec::new();
    for input in inputs {
        match address(input) {
            Some(address) => paths.extend(fetch_texts(address)?),
            None => paths.push(input.clone()),
        }
    }
    Ok(paths)
}

/// Whether weights are named by an address on the hub.
pub(crate) fn is_address(path: &Path) -> bool {
    address(path).is_some()
}

/// The path as an address. A file of such a name is `./hf:…`.
fn address(path: &Path) -> Option<&str> {
    path.to_str().filter(|text| text.starts_with("hf:"))
}

#[cfg(feature = "hub")]
pub(crate) use transfer::{check_push, push};
#[cfg(feature = "hub")]
use transfer::{fetch_texts, fetch_weights};

#[cfg(not(feature = "hub"))]
mod absent {
    use crate::error::CliError;
    use std::path::{Path, PathBuf};

    fn not_built(address: &str) -> CliError {
        CliError::HubNotBuilt {
            address: address.to_owned(),
        }
    }

    pub(super) fn fetch_weights(address: &str) -> Result<PathBuf, CliError> {
        Err(not_built(address))
    }

    pub(super) fn fetch_texts(address: &str) -> Result<Vec<PathBuf>, CliError> {
        Err(not_built(address))
    }

    pub(crate) fn check_push(address: &str) -> Result<(), CliError> {
        Err(not_built(address))
    }

    pub(crate) fn push(_: &Path, address: &str, _: Option<&str>, _: bool) -> Result<(), CliError> {
        Err(not_built(address))
    }
}

#[cfg(not(feature = "hub"))]
pub(crate) use absent::{check_push, push};
#[cfg(not(feature = "hub"))]
use absent::{fetch_texts, fetch_weights};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_stays_a_path() {
        let paths: Vec<PathBuf> = ["runs/demo", "./hf:a/b", "hfx"].map(PathBuf::from).into();
        assert_eq!(texts(&paths).unwrap(), paths);
        assert_eq!(weights(&paths[0]).unwrap(), paths[0]);
    }

    #[cfg(not(feature = "hub"))]
    #[test]
    fn without_the_hub_an_address_names_the_feature() {
        let error = weights(Path::new("hf:a/b")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "hf:a/b is on the Hugging Face hub, which this build does not reach: build with `--features hub`"
        );
    }
}
