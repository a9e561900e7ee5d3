//! Says how BLIS is to be built on a processor that the repository's settings are not for, before it fails to build.

#![allow(clippy::print_stdout, reason = "Cargo reads it")]

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BLIS_CONFNAME");
    let has_blis = env::var_os("CARGO_FEATURE_BLIS").is_some();
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let is_for_intel = env::var("BLIS_CONFNAME").is_ok_and(|name| name == "intel64");
    if has_blis && is_for_intel && architecture != "x86_64" {
        println!(
            "cargo::error=BLIS_CONFNAME is intel64 (.cargo/config.toml), expected one for {architecture}: \
             run `BLIS_CONFNAME=auto cargo …`"
        );
    }
}
