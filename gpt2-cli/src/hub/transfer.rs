//! Transfers from and to the hub, and their bar on standard error; away from a terminal a line a file.

use crate::bar;
use crate::diagnostics::{note, warn};
use crate::error::CliError;
use gpt2_base::units::bytes;
use gpt2_hub::{Address, Hub, HubEvent, Push};
use indicatif::ProgressBar;
use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

pub(super) fn fetch_weights(address: &str) -> Result<PathBuf, CliError> {
    let address: Address = address.parse()?;
    let progress = Progress::new("fetching");
    Ok(Hub::from_env()?.weights(&address, &|event| progress.show(event))?)
}

pub(super) fn fetch_texts(address: &str) -> Result<Vec<PathBuf>, CliError> {
    let address: Address = address.parse()?;
    let progress = Progress::new("fetching");
    Ok(Hub::from_env()?.text(&address, &|event| progress.show(event))?)
}

/// Whether something can be sent to an address, before it is made: that it is a model's, and that there is a token.
///
/// # Errors
/// Why it cannot.
pub(crate) fn check_push(address: &str) -> Result<(), CliError> {
    Ok(Hub::from_env()?.check_push(&address.parse()?)?)
}

/// Sends the files of a directory as one commit, and says where they are then.
///
/// # Errors
/// What the hub refuses.
pub(crate) fn push(directory: &Path, address: &str, message: Option<&str>, private: bool) -> Result<(), CliError> {
    let address: Address = address.parse()?;
    let push = Push {
        summary: message.unwrap_or("A GPT-2, by gpt2").to_owned(),
        // Without the switch it is the account's default.
        private: private.then_some(true),
    };
    let progress = Progress::new("sending");
    let pushed = Hub::from_env()?.push(directory, &address, &push, &|event| progress.show(event))?;
    drop(progress); // takes the bar away
    note(&format!(
        "{}: commit {}, {} files, {} sent",
        pushed.page,
        short(&pushed.commit),
        pushed.files,
        bytes(pushed.sent_bytes)
    ));
    Ok(())
}

/// Shows events as they come.
#[derive(Debug)]
struct Progress {
    verb: &'static str,
    bar: Option<ProgressBar>,
    /// Bytes of all files, and of those that are done.
    total: Cell<u64>,
    done: Cell<u64>,
    /// The file that is on its way, and its bytes so far.
    current: RefCell<(String, u64)>,
}

impl Progress {
    fn new(verb: &'static str) -> Self {
        Self {
            verb,
            bar: bar::bar(bar::BYTES, 0),
            total: Cell::new(0),
            done: Cell::new(0),
            current: RefCell::default(),
        }
    }

    fn show(&self, event: HubEvent<'_>) {
        match event {
            HubEvent::Begin { files: 0, .. } => {}
            HubEvent::Begin { files, bytes: size } => {
                self.total.set(self.total.get() + size);
                let files = if files == 1 {
                    "1 file".to_owned()
                } else {
                    format!("{files} files")
                };
                self.line(&format!("{} {files}, {}", self.verb, bytes(size)));
                if let Some(bar) = &self.bar {
                    bar.set_length(self.total.get());
                }
            }
            HubEvent::Progress {
                file,
                bytes: transferred,
                total,
            } => self.advance(file, transferred, total),
            HubEvent::Retry {
                file,
                bytes: transferred,
                reason,
            } => {
                self.line(&format!("{file}: {reason}; going on after {}", bytes(transferred)));
            }
            HubEvent::FromCache { commit, reason, .. } => {
                warn(&format!(
                    "the hub was not reached ({reason}); taking commit {} from the cache",
                    short(commit)
                ));
            }
            // The list of events may grow.
            _ => {}
        }
    }

    fn advance(&self, file: &str, transferred: u64, total: u64) {
        let mut current = self.current.borrow_mut();
        if current.0 != file {
            self.done.set(self.done.get() + current.1);
            file.clone_into(&mut current.0);
        }
        current.1 = transferred;
        match &self.bar {
            Some(bar) => {
                bar.set_position(self.done.get() + transferred);
                bar.set_message(file.to_owned());
            }
            None if transferred == total => note(&format!("{file}: {}", bytes(total))),
            None => {}
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => note(text),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The first digits of a commit, as Git shows them.
fn short(commit: &str) -> &str {
    commit.get(..8).unwrap_or(commit)
}
