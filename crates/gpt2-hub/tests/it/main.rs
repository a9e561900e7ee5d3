//! The crate against a hub on the loopback address. Nothing of the environment or the user's directory is read.

mod download;
mod fake_hub;
mod offline;
mod refusals;
mod server;
mod text;
mod upload;

use fake_hub::FakeHub;
use gpt2_hub::{Address, Hub, HubConfig, HubEvent, Token};
use std::path::Path;
use std::time::Duration;

/// The configuration of a test: no wait between attempts.
fn config(endpoint: &str, home: &Path) -> HubConfig {
    HubConfig {
        retries: 1,
        retry_wait: Duration::ZERO,
        timeout: Duration::from_secs(5),
        ..HubConfig::new(endpoint, home)
    }
}

/// A client of a hub, without a token.
fn client(hub: &FakeHub, home: &Path) -> Hub {
    Hub::new(config(hub.url(), home)).unwrap()
}

fn client_with_token(hub: &FakeHub, home: &Path, token: &str) -> Hub {
    Hub::new(HubConfig {
        token: Token::new(token),
        ..config(hub.url(), home)
    })
    .unwrap()
}

fn offline(hub: &FakeHub, home: &Path) -> Hub {
    Hub::new(HubConfig {
        offline: true,
        ..config(hub.url(), home)
    })
    .unwrap()
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

const SILENT: &dyn Fn(HubEvent<'_>) = &|_| {};
