//! The progress of a preparation, on standard error: a bar on a terminal, lines elsewhere.

use crate::bar;
use gpt2_base::units::{bytes, grouped};
use gpt2_data::{PrepareEvent, SkipReason};
use indicatif::ProgressBar;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Away from a terminal a line is printed each time another such part of the input is done.
const LINES: u64 = 10;

/// Up to so many files that are left out are named; of more, the kinds are counted.
const NAMED: usize = 5;

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
    /// Whether each file that is left out is named.
    list_skipped: bool,
    /// Files that were left out and not yet spoken of.
    skipped: RefCell<Vec<(PathBuf, SkipReason)>>,
}

impl Progress {
    /// A bar if standard error is a terminal.
    pub(super) fn new(list_skipped: bool) -> Self {
        Self {
            bar: bar::bar(bar::BYTES, 0),
            started: Instant::now(),
            tokens_before: Cell::new(0),
            tokens: Cell::new(0),
            lines: Cell::new(0),
            list_skipped,
            skipped: RefCell::default(),
        }
    }

    /// Tokens that this run encoded: none if an earlier one had finished.
    pub(super) fn tokens_encoded(&self) -> u64 {
        self.tokens.get().saturating_sub(self.tokens_before.get())
    }

    /// Shows what happened.
    pub(super) fn show(&self, event: PrepareEvent) {
        match event {
            PrepareEvent::Skipped { path, reason } => self.skipped.borrow_mut().push((path, reason)),
            PrepareEvent::Hashing { sources, bytes: size } => {
                self.show_skipped();
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

    fn show_skipped(&self) {
        for line in skipped_lines(&self.skipped.take(), self.list_skipped) {
            self.line(&line);
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            // If standard error is closed, the preparation still goes on.
            None => drop(writeln!(io::stderr(), "{text}")),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        // Where the inputs were refused, it may be for what was left out.
        self.show_skipped();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What is said of the files that were left out: their names, or how many there are of each kind.
fn skipped_lines(skipped: &[(PathBuf, SkipReason)], list: bool) -> Vec<String> {
    if list || skipped.len() <= NAMED {
        let line = |(path, reason): &(PathBuf, SkipReason)| {
            let reason = match reason {
                SkipReason::Name => "not a text file by its name",
                SkipReason::AboutTheData => "about the data by its name; as an `--input` of its own it is read",
                SkipReason::NotAFile => "no regular file",
                SkipReason::Repeated => "read already under another name",
            };
            format!("skipped {}: {reason}", path.display())
        };
        return skipped.iter().map(line).collect();
    }
    let mut counts = BTreeMap::new();
    for (path, reason) in skipped {
        *counts.entry(kind(path, *reason)).or_insert(0_u64) += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let rest: u64 = counts.iter().skip(NAMED).map(|(_, count)| count).sum();
    let mut kinds: Vec<String> = counts
        .iter()
        .take(NAMED)
        .map(|(kind, count)| format!("{} {kind}", grouped(*count)))
        .collect();
    if rest > 0 {
        kinds.push(format!("{} of other kinds", grouped(rest)));
    }
    let total = grouped(skipped.len() as u64);
    vec![format!(
        "skipped {total} files: {}; `--list-skipped` names them",
        kinds.join(", ")
    )]
}

fn kind(path: &Path, reason: SkipReason) -> String {
    match (reason, path.extension()) {
        (SkipReason::AboutTheData, _) => "about the data (README, LICENSE, ...)".to_owned(),
        (SkipReason::NotAFile, _) => "no regular files".to_owned(),
        (SkipReason::Repeated, _) => "under two names".to_owned(),
        (SkipReason::Name, Some(extension)) => format!(".{}", extension.to_string_lossy().to_ascii_lowercase()),
        (SkipReason::Name, None) => "without an extension".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_files_are_named_and_many_counted() {
        let file = |name: String| (PathBuf::from(name), SkipReason::Name);
        let few = [file("d/a.pdf".into()), ("d/README.md".into(), SkipReason::AboutTheData)];
        assert_eq!(
            skipped_lines(&few, false),
            [
                "skipped d/a.pdf: not a text file by its name",
                "skipped d/README.md: about the data by its name; as an `--input` of its own it is read"
            ]
        );
        let mut many: Vec<_> = (0..2000).map(|n| file(format!("d/{n}.html"))).collect();
        many.extend((0..3).map(|n| file(format!("d/name{n}"))));
        many.extend(few);
        assert_eq!(
            skipped_lines(&many, false),
            [
                "skipped 2,005 files: 2,000 .html, 3 without an extension, 1 .pdf, 1 about the data (README, LICENSE, ...); \
              `--list-skipped` names them"
            ]
        );
        assert_eq!(skipped_lines(&many, true).len(), 2005);
        assert!(skipped_lines(&[], false).is_empty());
    }
}
