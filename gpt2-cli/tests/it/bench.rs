//! `gpt2 bench`: the keys that other programs read, and the comparison with another program's line.

use crate::support::gpt2;
use serde_json::Value;
use std::path::Path;

const WORK: &str = "--backend flex --threads 1 --model d4 --batch 1 --seq 8 --steps 2 --warmup-steps 1";

fn bench_step(dir: &Path, more: &[&str]) -> String {
    let work: Vec<&str> = WORK.split(' ').collect();
    gpt2(dir, &[&["bench", "step"], &work[..], more].concat()).succeeded()
}

#[test]
fn a_step_is_one_line_that_can_be_compared_with() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let line = bench_step(dir.path(), &[]);
    let timing: Value = serde_json::from_str(&line)?;
    assert_eq!(
        (&timing["backend"], &timing["batch"], &timing["seq"], &timing["steps"]),
        (&"flex".into(), &1.into(), &8.into(), &2.into())
    );
    let number = |key: &str| timing[key].as_f64().unwrap_or_else(|| panic!("{key} in {line}"));
    assert!(number("step_ms_min") <= number("step_ms_median") && number("step_ms_median") <= number("step_ms_max"));
    assert!(
        (number("tokens_per_sec") * number("step_ms_median") / 8e3 - 1.0).abs() < 1e-3,
        "{line}"
    );
    assert!(number("peak_mem_mib") > 0.0 && number("first_step_s") <= number("warmup_s") + 1e-3);

    let more = line
        .replace("\"batch\":1", "\"batch\":2")
        .replace("\"dtype\":\"f32\"", "\"dtype\":\"bf16\"")
        .replace("\"peer\":\"gpt2", "\"peer\":\"another gpt2");
    std::fs::write(dir.path().join("peer.json"), more)?;
    let both = bench_step(dir.path(), &["--vs", "peer.json"]);
    let ratios = both.lines().nth(1).expect("a second line");
    assert!(
        ratios.starts_with("against another gpt2")
            && ratios.ends_with("(not the same work: dtype f32 against bf16, batch 1 against 2)"),
        "{ratios}"
    );
    Ok(())
}

#[test]
fn what_is_no_timing_is_refused() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("peer.json"), "tokens per second: 7\n")?;
    gpt2(dir.path(), &["bench", "step", "--vs", "peer.json"])
        .refused("peer.json: the last line is no JSON of a timing");
    gpt2(dir.path(), &["bench", "step", "--vs", "missing.json"]).refused("cannot read missing.json");
    Ok(())
}
