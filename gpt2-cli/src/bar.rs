//! The bar of a long piece of work, on standard error.

use crate::diagnostics::is_spoken_for;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal};

/// Of bytes, with a text behind it. Fits 80 columns up to some ten million tokens.
pub(crate) const BYTES: &str =
    "{bar:12} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} ETA {eta} {wide_msg}";

/// A bar if standard error is a terminal, and no other rank has one.
pub(crate) fn bar(template: &str, length: u64) -> Option<ProgressBar> {
    (io::stderr().is_terminal() && !is_spoken_for()).then(|| {
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(length).with_style(style)
    })
}
