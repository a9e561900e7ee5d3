//! `gpt2 data inspect`: what a directory of shards holds, how its text begins, and all that is wrong with it.

use crate::error::CliError;
use crate::printer::{print, table};
use gpt2_base::units::grouped;
use gpt2_data::{Inspection, inspect};
use std::fmt::Write;
use std::path::Path;

/// Prints the report on standard output.
///
/// # Errors
/// [`CliError::DamagedData`] if anything is wrong, after the report.
pub(super) fn run(dir: &Path) -> Result<(), CliError> {
    let inspection = inspect(dir)?;
    print(describe(&inspection))?;
    match inspection.damage.as_slice() {
        [] => Ok(()),
        [first, more @ ..] => Err(CliError::DamagedData {
            dir: inspection.dir,
            first: first.to_string(),
            more: more.len(),
        }),
    }
}

fn describe(inspection: &Inspection) -> String {
    // Writing to a string cannot fail.
    let mut text = format!("{}{}\n\n", inspection.dir.display(), origin(inspection));
    let shard_rows = inspection.splits.iter().flat_map(|split| {
        let shards = split.shards.iter().map(move |shard| {
            [
                split.split.to_string(),
                shard.file.clone(),
                grouped(shard.documents),
                grouped(shard.tokens),
            ]
        });
        let total = (split.shards.len() > 1).then(|| {
            let label = format!("{} shards", split.shards.len());
            [
                split.split.to_string(),
                label,
                grouped(split.documents),
                grouped(split.tokens),
            ]
        });
        shards.chain(total)
    });
    text.push_str(&table(
        ["split", "shard", "documents", "tokens"],
        shard_rows.collect(),
        2,
    ));
    for split in &inspection.splits {
        let _ = writeln!(text, "\nThe {} text begins:\n", split.split);
        for line in split.sample.trim().lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    if inspection.damage.is_empty() {
        text.push_str("\nNo damage found.\n");
    } else {
        text.push_str("\nDamage:\n");
        for damage in &inspection.damage {
            let _ = writeln!(text, "  {damage}");
        }
    }
    text
}

/// Who made the shards, as far as it is known.
fn origin(inspection: &Inspection) -> String {
    let Some(manifest) = &inspection.manifest else {
        return ": no manifest, so hashes cannot be checked".to_owned();
    };
    let sources = match manifest.sources.len() {
        0 => "generated text".to_owned(),
        1 => "1 file".to_owned(),
        files => format!("{files} files"),
    };
    let options: Vec<String> = manifest
        .options
        .iter()
        .map(|(option, value)| format!("--{option} {value}"))
        .collect();
    format!(
        ": made by gpt2 {} from {sources}, tokenizer {}\n{}",
        manifest.tool_version,
        manifest.tokenizer,
        options.join(" ")
    )
}
