//! What this binary was built from; `build.rs` finds it out.

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
