//! Where the weights of a run lie.

use crate::diagnostics::warn;
use crate::error::CliError;
use gpt2_train::checkpoint::Checkpoints;
use gpt2_train::run_dir::RunPaths;
use std::path::{Path, PathBuf};

/// The newest whole checkpoint of a run; says which newer ones are damaged.
///
/// # Errors
/// That there is no run, or no whole checkpoint.
pub(super) fn newest_checkpoint(run: &Path) -> Result<PathBuf, CliError> {
    let paths = RunPaths::existing(run)?;
    let (checkpoint, damaged) = Checkpoints::open(paths.checkpoints())?.newest()?;
    for error in damaged {
        warn(&format!("{error}; taking an older one"));
    }
    Ok(checkpoint.path().to_path_buf())
}
