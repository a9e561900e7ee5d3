//! What this binary was built from; `build.rs` finds it out.

use gpt2_train::report::Provenance;

/// What `gpt2 --version` prints after the name.
pub(crate) const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("GPT2_COMMIT"),
    ", Burn ",
    env!("GPT2_BURN_VERSION"),
    ")"
);

/// The version of Burn.
pub(crate) const BURN: &str = env!("GPT2_BURN_VERSION");

/// The commit of the source, in hexadecimal. None if the source was not under version control.
pub(crate) fn commit() -> Option<&'static str> {
    Some(env!("GPT2_COMMIT")).filter(|commit| *commit != "unknown")
}

/// The program as a table of several names it.
pub(crate) fn program() -> String {
    format!("gpt2 {} burn {BURN}", env!("CARGO_PKG_VERSION"))
}

/// What reports say of this program.
pub(crate) fn provenance() -> Provenance {
    Provenance {
        command_line: std::env::args_os()
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
        git_commit: commit().map(str::to_owned),
        burn_version: BURN.to_owned(),
    }
}
