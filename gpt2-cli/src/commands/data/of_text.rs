//! Text in the place of prepared data: what `gpt2 train --data book.txt` trains on.

use super::progress::Progress;
use crate::diagnostics::note;
use crate::error::CliError;
use crate::hub;
use crate::printer::quoted;
use crate::text_directory::directory_of_text;
use gpt2_base::units::grouped;
use gpt2_data::{PrepareOptions, ValSplit, names_text, prepare};
use std::path::{Path, PathBuf};

/// The part of a text that is held out for validation.
const HELD_OUT: f64 = 0.1;

/// The directory with the tokens of `text`, which are made if they are not there yet; none if `text` is prepared data
/// already. Several processes may ask at once; one that `is_quiet` does not show what it does.
///
/// # Errors
/// Those of a preparation, and if the directory is of another text.
pub(crate) fn shards_of_text(text: &Path, is_quiet: bool) -> Result<Option<PathBuf>, CliError> {
    if !hub::is_address(text) && !names_text(text) {
        return Ok(None);
    }
    let out = directory_of_text(text);
    let options = PrepareOptions {
        validation: ValSplit::Fraction(HELD_OUT),
        resume: true,
        reuse: true,
        ..PrepareOptions::new(hub::texts(&[text.to_owned()])?, &out)
    };
    let progress = (!is_quiet).then(|| Progress::new(false));
    let manifest = prepare(&options, &|event| {
        if let Some(progress) = &progress {
            progress.show(event);
        }
    })?;
    drop(progress); // takes the bar away
    if !is_quiet {
        note(&format!(
            "{} has the tokens of {}: {} to train on, {} for validation",
            quoted(&out),
            quoted(text),
            grouped(manifest.train.tokens),
            grouped(manifest.val.tokens)
        ));
    }
    Ok(Some(out))
}
