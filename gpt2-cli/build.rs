//! Tells the binary what it is built from: the commit of the source, and the version of Burn.

#![allow(clippy::print_stdout, reason = "Cargo reads it")]

use std::path::{Path, PathBuf};
use std::process::Command;

const UNKNOWN: &str = "unknown";

fn main() {
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("Cargo sets it"));
    println!("cargo::rerun-if-changed=build.rs");
    let commit = packaged_commit(&package).or_else(|| git_commit(&package));
    println!("cargo::rustc-env=GPT2_COMMIT={}", commit.as_deref().unwrap_or(UNKNOWN));
    let burn = locked_version(&package, "burn");
    println!(
        "cargo::rustc-env=GPT2_BURN_VERSION={}",
        burn.as_deref().unwrap_or(UNKNOWN)
    );
}

/// The commit that `cargo package` wrote into the package.
fn packaged_commit(package: &Path) -> Option<String> {
    let info = std::fs::read_to_string(package.join(".cargo_vcs_info.json")).ok()?;
    let hash = info.split("\"sha1\"").nth(1)?.split('"').nth(1)?;
    Some(hash.to_owned())
}

/// The commit that is checked out, where this file is under version control: a package that was unpacked inside another
/// repository has no commit.
fn git_commit(package: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").current_dir(package).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    // A checkout changes HEAD, a commit the branch and the log of HEAD; the branch may be in packed-refs until then.
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    for name in [Some("HEAD"), Some("logs/HEAD"), Some("packed-refs"), branch.as_deref()]
        .into_iter()
        .flatten()
    {
        let path = package.join(git(&["rev-parse", "--git-path", name])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(&["rev-parse", "HEAD"])
}

/// The version of a package in the lock file, which is the workspace's or the package's own.
fn locked_version(package: &Path, name: &str) -> Option<String> {
    let lock = package
        .ancestors()
        .map(|folder| folder.join("Cargo.lock"))
        .find(|path| path.exists())?;
    println!("cargo::rerun-if-changed={}", lock.display());
    let text = std::fs::read_to_string(lock).ok()?;
    let entry = text
        .split("[[package]]")
        .find(|entry| entry.contains(&format!("\nname = \"{name}\"\n")))?;
    let version = entry.split("\nversion = \"").nth(1)?.split('"').next()?;
    Some(version.to_owned())
}
