//! Writes made-up studies of every kind and a report of made-up runs, so that the figures and pages can be looked at:
//! `cargo run -p gpt2-report --example gallery -- OUT`.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::PathBuf;

#[allow(dead_code)]
#[path = "../tests/it/made_up.rs"]
mod made_up;

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or("usage: gallery OUT")?;
    for (name, study) in made_up::studies() {
        gpt2_report::write_study(&out.join(name), &study)?;
        println!("{}", out.join(name).join("index.html").display());
    }
    let runs = out.join("made-up-runs");
    made_up::write_runs(&runs)?;
    let records = ["short", "long", "on-its-way"].map(|name| gpt2_report::RunRecords::read(&runs.join(name)));
    let records = records.into_iter().collect::<Result<Vec<_>, _>>()?;
    gpt2_report::run_report(&runs.join("report"), &records)?;
    println!("{}", runs.join("report/index.html").display());
    Ok(())
}
