//! `gpt2 data prepare`: from the flags to the preparation, and its summary.

use super::progress::Progress;
use crate::cli::{PrepareArgs, SplitOn};
use crate::error::CliError;
use crate::hub;
use crate::printer::{print, quoted, table};
use gpt2_base::units::grouped;
use gpt2_data::{Manifest, PrepareOptions, Split, SplitDocuments, ValSplit, prepare};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Prepares the data, then prints what there is now and what to do with it.
pub(super) fn run(args: &PrepareArgs) -> Result<(), CliError> {
    let inputs = hub::texts(&args.input)?;
    let started = Instant::now();
    let progress = Progress::new(args.list_skipped);
    let manifest = prepare(&options(args, inputs), &|event| progress.show(event))?;
    let encoded = progress.tokens_encoded();
    drop(progress); // takes the bar away
    print(summary(&manifest, &args.out, encoded, started.elapsed()))
}

fn options(args: &PrepareArgs, inputs: Vec<PathBuf>) -> PrepareOptions {
    let held_out = &args.validation;
    let validation = match (held_out.tokens, held_out.fraction, held_out.documents) {
        (Some(tokens), ..) => ValSplit::Tokens(tokens),
        (_, Some(fraction), _) => ValSplit::Fraction(fraction),
        (.., Some(documents)) => ValSplit::Documents(documents),
        (None, None, None) => ValSplit::None,
    };
    let split_documents = match args.split_documents_on {
        Some(SplitOn::BlankLine) => SplitDocuments::BlankLine,
        None => SplitDocuments::None,
    };
    PrepareOptions {
        inputs,
        out: args.out.clone(),
        field: args.field.clone(),
        split_documents,
        validation,
        shard_tokens: args.shard_tokens,
        prefix: args.prefix.clone(),
        threads: args.threads,
        resume: args.resume,
        reuse: false,
    }
}

fn summary(manifest: &Manifest, out: &Path, encoded: u64, elapsed: Duration) -> String {
    let rows = Split::ALL.into_iter().map(|split| {
        let counts = manifest.split(split);
        let shards = counts.shards.len() as u64;
        [
            split.to_string(),
            grouped(counts.documents),
            grouped(counts.tokens),
            grouped(shards),
        ]
    });
    let mut text = table(["split", "documents", "tokens", "shards"], rows.collect(), 1);

    // Writing to a string cannot fail.
    let _ = if encoded > 0 {
        let seconds = elapsed.as_secs_f64();
        let rate = encoded as f64 / seconds.max(1e-3);
        writeln!(text, "\n{seconds:.1} s, {} tokens/s", grouped(rate as u64))
    } else {
        writeln!(text, "\nIt was complete already.")
    };

    // Training evaluates unless it is told not to.
    let without_validation = if manifest.val.tokens == 0 {
        " --eval-every 0"
    } else {
        ""
    };
    let _ = writeln!(text, "\nNext: gpt2 train --data {}{without_validation}", quoted(out));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_command_works_without_validation_data_too() {
        let mut manifest = Manifest::new();
        manifest.train.tokens = 2_000;
        let text = summary(&manifest, Path::new("my data"), 1_000, Duration::from_secs(2));
        assert!(
            text.ends_with("\n2.0 s, 500 tokens/s\n\nNext: gpt2 train --data 'my data' --eval-every 0\n"),
            "{text}"
        );
        manifest.val.tokens = 10;
        let text = summary(&manifest, Path::new("data"), 0, Duration::from_secs(2));
        assert!(text.ends_with("Next: gpt2 train --data data\n"), "{text}");
    }
}
