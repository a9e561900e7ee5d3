//! Where weights lie that are named by a run, a checkpoint or their own path.

use crate::diagnostics::warn;
use crate::error::CliError;
use crate::hub;
use gpt2_train::checkpoint::{Checkpoint, Checkpoints};
use gpt2_train::run_dir::RunPaths;
use std::path::{Path, PathBuf};

/// Of a run its newest whole checkpoint; of an address on the hub what was fetched; of anything else itself, and the files of
/// a checkpoint are checked.
///
/// # Errors
/// That a run has no whole checkpoint, or that the checkpoint is damaged.
pub(super) fn weights_of(path: &Path) -> Result<PathBuf, CliError> {
    let path = &hub::weights(path)?;
    if RunPaths::new(path).plan().is_file() {
        return newest_checkpoint(path);
    }
    let has = |name: &str| path.join(name).is_file();
    if has("manifest.json") && has("state.json") {
        Checkpoint::open(path)?;
    }
    Ok(path.to_owned())
}

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
