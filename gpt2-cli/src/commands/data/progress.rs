//! The progress of a preparation, on standard error: a bar on a terminal, lines elsewhere.

use gpt2_data::PrepareEvent;
use gpt2_train::quantity::{bytes, grouped};
use indicatif::{ProgressBar, ProgressStyle};
use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

/// Away from a terminal a line is printed each time another such part of the input is done.
const LINES: u64 = 10;

/// Fits 80 columns up to some ten million tokens.
const TEMPLATE: &str = "{bar:12} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} ETA {eta} {wide_msg}";

/// Shows events as they come.
#[derive(Debug)]
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    /// Tokens that an earlier run had encoded.
    tokens_before: Cell<u64>,
    /// Tokens there are now.
    tokens: Cell<u64>,
    /// Lines printed so far.
    lines: Cell<u64>,
}

impl Progress {
    /// A bar if standard error is a terminal.
    pub(super) fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style)
        });
        Self {
            bar,
            started: Instant::now(),
            tokens_before: Cell::new(0),
            tokens: Cell::new(0),
            lines: Cell::new(0),
        }
    }

    /// Tokens that this run encoded: none if an earlier one had finished.
    pub(super) fn tokens_encoded(&self) -> u64 {
        self.tokens.get().saturating_sub(self.tokens_before.get())
    }

    /// Shows what happened.
    pub(super) fn show(&self, event: PrepareEvent) {
        match event {
            PrepareEvent::Skipped { path } => {
                self.line(&format!("skipped {}: not a text file by its name", path.display()));
            }
            PrepareEvent::Hashing { sources, bytes: size } => {
                let files = if sources == 1 { "file" } else { "files" };
                self.stage(&format!("hashing {} {files}, {}", grouped(sources as u64), bytes(size)));
            }
            PrepareEvent::Measuring => self.stage("measuring the text"),
            PrepareEvent::Resuming { shards, tokens } => {
                self.tokens_before.set(tokens);
                self.line(&format!(
                    "resuming after {} tokens, shards so far: {shards}",
                    grouped(tokens)
                ));
            }
            PrepareEvent::Progress {
                bytes_read,
                bytes_total,
                documents,
                tokens,
            } => {
                self.tokens.set(tokens);
                let counts = format!("{} docs, {} tokens", grouped(documents), grouped(tokens));
                self.advance(bytes_read, bytes_total, &counts);
            }
            PrepareEvent::ShardFinished { file, tokens, .. } => {
                self.line(&format!("{file}: {} tokens", grouped(tokens)));
            }
            // The list of events may grow.
            _ => {}
        }
    }

    fn advance(&self, read: u64, total: u64, counts: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(read);
            bar.set_message(counts.to_owned());
            return;
        }
        let done = if total == 0 {
            LINES
        } else {
            (u128::from(read) * u128::from(LINES) / u128::from(total)) as u64
        };
        if done > self.lines.get() {
            self.lines.set(done);
            let mb = read as f64 / 1e6;
            let rate = mb / self.started.elapsed().as_secs_f64().max(1e-3);
            self.line(&format!(
                "{:3} %: {mb:.1} MB, {rate:.1} MB/s, {counts}",
                done * 100 / LINES
            ));
        }
    }

    /// What is done before the encoding, which moves no bar.
    fn stage(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => self.line(text),
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            // Progress is not worth failing for: standard error may be closed.
            None => {
                let _ = writeln!(io::stderr(), "{text}");
            }
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
