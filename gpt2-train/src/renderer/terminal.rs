//! Whether the dashboard can have the terminal.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;

/// What decides whether the dashboard can be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terminal {
    /// Whether keys come from a terminal and the output goes to one.
    is_interactive: bool,
    /// The variable `TERM`.
    term: Option<OsString>,
    /// Whether it is the terminal of this process, and this process is not in the background: the terminal would stop
    /// it when it reads a key.
    is_foreground: bool,
}

impl Terminal {
    /// Looks at standard input, standard output and the environment.
    pub fn detect() -> Self {
        Self {
            is_interactive: std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
            term: std::env::var_os("TERM"),
            is_foreground: is_foreground(),
        }
    }

    /// Whether the dashboard can be shown; lines can always be.
    pub fn takes_dashboard(&self) -> bool {
        self.is_interactive && takes_escape_codes(self.term.as_deref()) && self.is_foreground
    }
}

/// Whether a terminal of this name understands more than text.
pub(super) fn takes_escape_codes(term: Option<&OsStr>) -> bool {
    term.is_some_and(|term| !term.is_empty() && term != "dumb")
}

#[cfg(unix)]
fn is_foreground() -> bool {
    // Without a controlling terminal, or with another one, this is an error.
    rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Elsewhere `q` cannot be kept from Burn, which offers to panic.
#[cfg(not(unix))]
fn is_foreground() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dashboard_needs_a_terminal_that_is_its_own_and_can_draw() {
        let good = Terminal {
            is_interactive: true,
            term: Some("xterm-256color".into()),
            is_foreground: true,
        };
        assert!(good.takes_dashboard());
        let term = |term: Option<&str>| Terminal {
            term: term.map(OsString::from),
            ..good.clone()
        };
        let bad = [
            term(None),
            term(Some("")),
            term(Some("dumb")),
            Terminal {
                is_interactive: false,
                ..good.clone()
            },
            Terminal {
                is_foreground: false,
                ..good.clone()
            },
        ];
        for terminal in bad {
            assert!(!terminal.takes_dashboard(), "{terminal:?}");
        }
    }
}
