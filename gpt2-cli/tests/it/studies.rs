//! Studies as their users meet them: rows for whatever happens, resuming, and the files that are left.

use crate::support::{Outcome, gpt2};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SWEEP: &str = r#"
time-limit-sec = 60
baseline = { batch = 1, program = "gpt2" }
[common]
backend = "flex"
threads = 1
n-layer = 1
n-embd = 8
block-size = 32
seq = 8
steps = 8
[axes]
n-head = [1, 3]
batch = [1, 2]
"#;

/// A program that prints a timing.
const PEER: &str = r#"
[[peer]]
name = "other"
command = '''echo '{"peer": "other 1", "device": "cpu", "batch": 2, "seq": 8, "step_ms": [9, 1, 1, 1, 1, 1, 1, 1], "peak_mem_mib": 1}' '''
[[peer]]
name = "silent"
command = "echo done"
[[peer]]
name = "failing"
command = "echo broken >&2; exit 3"
"#;

fn sweep(dir: &Path, file: &str) -> Outcome {
    fs::write(dir.join("sweep.toml"), file).unwrap();
    gpt2(dir, &["bench", "sweep", "sweep.toml"])
}

fn results(study: &Path) -> Value {
    let path = study.join("results.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Status and reason of each row by its name.
fn rows(study: &Path) -> BTreeMap<String, (String, String)> {
    let results = results(study);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rows = results["rows"].as_array().unwrap().iter();
    rows.map(|row| (text(&row["name"]), (text(&row["status"]), text(&row["reason"]))))
        .collect()
}

#[test]
fn whatever_happens_to_a_configuration_is_a_row() {
    let dir = tempfile::tempdir().unwrap();
    let hanging = "[[peer]]\nname = \"hanging\"\ncommand = \"sleep 600\"\n";
    let file = [&SWEEP.replace("= 60", "= 5"), PEER, hanging].concat();
    let said = sweep(dir.path(), &file).succeeded();
    assert!(said.contains("highest throughput"), "{said}");
    let study = dir.path().join("studies/sweep");
    let rows = rows(&study);
    let row = |name: &str| &rows[name];
    assert_eq!(row("gpt2_n-head-1_batch-1").0, "done");
    let (status, reason) = row("gpt2_n-head-3_batch-2");
    assert_eq!(status, "skipped");
    assert!(reason.contains("a multiple of `n-head` (3)"), "{reason}");
    assert_eq!(row("other").0, "done");
    let (status, reason) = row("silent");
    assert!(
        status == "failed" && reason.contains("is no JSON of a timing (keys peer, "),
        "{reason}"
    );
    assert_eq!(*row("failing"), ("failed".into(), "exit status: 3: broken".into()));
    assert_eq!(
        *row("hanging"),
        ("timed-out".into(), "ended after its time limit of 5 s".into())
    );
    for file in ["results.csv", "results.md", "index.html", "figures"] {
        assert!(study.join(file).exists(), "{file}");
    }
    let run = study.join("runs/gpt2_n-head-1_batch-1");
    for file in [
        "plan.toml",
        "metrics.jsonl",
        "training_metrics.json",
        "launcher_metadata.json",
        "RUN_COMPLETE.txt",
    ] {
        assert!(run.join(file).exists(), "{file}");
    }
}

#[test]
fn a_killed_sweep_goes_on_and_has_each_row_once() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("sweep.toml"), SWEEP.replace("[1, 2]", "[1, 2, 3, 4]")).unwrap();
    let study = dir.path().join("studies/sweep");
    let mut killed = Command::new(env!("CARGO_BIN_EXE_gpt2"))
        .args(["bench", "sweep", "sweep.toml"])
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !study.join("runs/gpt2_n-head-1_batch-2/row.json").exists() {
        assert!(began.elapsed() < Duration::from_mins(2), "no row was written");
        std::thread::sleep(Duration::from_millis(5));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let first = study.join("runs/gpt2_n-head-1_batch-1/row.json");
    let before = fs::read(&first).unwrap();
    // A row that was damaged is measured again; one that is whole is not.
    fs::write(study.join("runs/gpt2_n-head-1_batch-2/row.json"), "{").unwrap();

    let outcome = gpt2(dir.path(), &["bench", "sweep", "sweep.toml"]);
    assert!(outcome.stderr.contains("row.json is damaged"), "{outcome:#?}");
    assert!(outcome.stderr.contains("(measured before)"), "{outcome:#?}");
    outcome.succeeded();
    assert_eq!(fs::read(&first).unwrap(), before);
    let rows = rows(&study);
    assert_eq!(rows.len(), 8);
    assert_eq!(rows.values().filter(|(status, _)| status == "done").count(), 4);

    // The same command once more measures nothing, and another study is refused.
    gpt2(dir.path(), &["bench", "sweep", "sweep.toml"]).succeeded();
    assert_eq!(fs::read(&first).unwrap(), before);
    sweep(dir.path(), &SWEEP.replace("seq = 8", "seq = 16"))
        .failed("studies/sweep holds another study: `seq` is 8 there and 16 here");
    let json = fs::read_to_string(study.join("study.json")).unwrap();
    fs::write(
        study.join("study.json"),
        json.replace("\"version\": 1", "\"version\": 7"),
    )
    .unwrap();
    sweep(dir.path(), SWEEP).failed("its version is 7, expected 1");
}

#[test]
fn threads_change_no_loss() {
    let dir = tempfile::tempdir().unwrap();
    let flags = "bench threads --threads 1,2 --model d3 --batch 1 --seq 16 --steps 6";
    let said = gpt2(dir.path(), &flags.split(' ').collect::<Vec<_>>());
    assert!(said.stderr.contains("f32 configurations agree within"), "{said:#?}");
    let said = said.succeeded();
    assert!(said.contains("fastest: ") && said.contains("low priority"), "{said}");
    let results = results(&dir.path().join("studies/threads"));
    let row = results["rows"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == "blas-1")
        .unwrap();
    let counters = &row["figures"]["counters"];
    assert!(
        counters["task_clock_ms"]
            .as_f64()
            .or(counters["user_sec"].as_f64())
            .unwrap()
            > 0.0,
        "{counters}"
    );
}

#[test]
fn fixed_work_is_exactly_so_many_steps() {
    let dir = tempfile::tempdir().unwrap();
    let flags = "bench fixed-work --backend flex --model d3 --seq 16 --batch 2 --global-batch 4 --steps 100 --scale 0.06 --repeats 2";
    let flags: Vec<_> = flags.split(' ').collect();
    let plan = gpt2(dir.path(), &[&flags[..], &["--dry-run"]].concat()).succeeded();
    assert!(
        plan.contains("grad-accum = 2\n") && plan.contains("tokens = 384\n"),
        "{plan}"
    );
    assert!(!dir.path().join("studies").exists());
    let said = gpt2(dir.path(), &flags).succeeded();
    assert!(said.contains("2 repeats: steps "), "{said}");
    let study = dir.path().join("studies/fixed-work");
    let metrics: Value =
        serde_json::from_str(&fs::read_to_string(study.join("training_metrics.json")).unwrap()).unwrap();
    assert_eq!(
        (&metrics["summary"]["steps"], &metrics["summary"]["tokens"]),
        (&6.into(), &384.into())
    );
    assert_eq!(metrics["training_config"]["grad_accum_steps"], 2);
    assert!(study.join("RUN_COMPLETE.txt").exists() && study.join("launcher_metadata.json").exists());
    let flags = "bench fixed-work --backend flex --batch 4 --global-batch 18";
    gpt2(dir.path(), &flags.split(' ').collect::<Vec<_>>()).refused(
        "`global-batch` is 18, expected a multiple of 4, the sequences that are trained on at once: try 16 or 20",
    );
}

#[test]
fn ranks_are_compared_by_the_slowest() {
    let dir = tempfile::tempdir().unwrap();
    let flags =
        "bench scaling --backend flex --threads 1 --model d3 --seq 16 --ranks 1,2 --batch 4 --micro-batch 2 --steps 8";
    let said = gpt2(dir.path(), &flags.split(' ').collect::<Vec<_>>()).succeeded();
    assert!(
        said.contains("batch 4, 2 ranks, gpt2: gpt2-batch-4-ranks-2-1 ("),
        "{said}"
    );
    let study = dir.path().join("studies/scaling");
    gpt2(dir.path(), &["report", "verify", "studies/scaling"]).succeeded();
    let results = results(&study);
    let rows = results["rows"].as_array().unwrap();
    let ranks: Vec<_> = rows
        .iter()
        .map(|row| row["figures"]["breakdown"]["ranks"].as_array().unwrap().len())
        .collect();
    assert_eq!(ranks, [1, 2]);
    // The same work, summed in another place.
    let losses: Vec<_> = rows.iter().map(|row| &row["figures"]["losses"]).collect();
    assert_eq!(losses[0], losses[1]);
    assert_eq!(rows[0]["derived"]["speedup"], 1.0);
    let markdown = fs::read_to_string(study.join("results.md")).unwrap();
    assert!(markdown.contains("Where a step's time goes, by rank"), "{markdown}");
    assert!(study.join("figures/breakdown.svg").exists());
    // The time of a step is the slowest rank's.
    let log = fs::read_to_string(study.join("runs/gpt2-batch-4-ranks-2-1/ranks.jsonl")).unwrap();
    let of_first_step = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["step"] == 1);
    let slowest = of_first_step
        .map(|line| line["step_ms"].as_f64().unwrap())
        .fold(0.0, f64::max);
    assert_eq!(rows[1]["figures"]["all_step_ms"][0].as_f64(), Some(slowest));

    let metrics = fs::read_to_string(study.join("runs/gpt2-batch-4-ranks-2-1/training_metrics.json")).unwrap();
    let communication = &serde_json::from_str::<Value>(&metrics).unwrap()["communication"];
    assert_eq!(communication["library"], "through rank 0, in the order of the ranks");
    assert_eq!(communication["ranks"][1]["local_rank"], 1);

    let flags = "bench scaling --ranks 1,4 --batch 6 --dry-run";
    gpt2(dir.path(), &flags.split(' ').collect::<Vec<_>>())
        .refused("`batch` is 6, expected a multiple of 4, the ranks that share it: try 4 or 8");
}

#[test]
fn fixed_work_on_several_ranks_is_compared() {
    let dir = tempfile::tempdir().unwrap();
    let flags = "bench fixed-work --backend flex --threads 1 --model d3 --seq 16 --batch 2 --global-batch 4 --steps 6";
    let flags: Vec<_> = flags.split(' ').collect();
    gpt2(dir.path(), &[&flags[..], &["--out", "one"]].concat()).succeeded();
    gpt2(dir.path(), &[&flags[..], &["--devices", "2", "--out", "two"]].concat()).succeeded();
    let metadata = fs::read_to_string(dir.path().join("two/launcher_metadata.json")).unwrap();
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    assert_eq!(metadata["ranks"].as_array().unwrap().len(), 2);
    let scaling = gpt2(dir.path(), &["report", "scaling", "one", "two"]).succeeded();
    assert!(
        scaling.contains("one/gpt2-1") && scaling.contains("two/gpt2-1"),
        "{scaling}"
    );
    gpt2(dir.path(), &["report", "verify", "two"]).succeeded();
}

#[test]
fn a_profile_accounts_for_the_step() {
    let dir = tempfile::tempdir().unwrap();
    let flags =
        "profile --backend flex --threads 1 --model d4 --batch 2 --seq 32 --grad-accum 2 --recompute block --trace";
    let said = gpt2(dir.path(), &flags.split(' ').collect::<Vec<_>>()).succeeded();
    assert!(said.contains("Trace for https://ui.perfetto.dev"), "{said}");
    let study = dir.path().join("studies/profile");
    let results = results(&study);
    let profile = &results["profile"];
    assert_eq!(profile["trials"], 10);
    let number = |value: &Value| value.as_f64().unwrap();
    let kinds = profile["kinds"].as_array().unwrap();
    let of = |kind: &Value| number(&kind["forward_ms"]) + number(&kind["backward_ms"]);
    let profiled = number(&profile["profiled_step_ms"]["p50"]);
    let sum: f64 = kinds.iter().map(of).sum();
    // Medians of parts need not add up to that of the whole.
    assert!((sum / profiled - 1.0).abs() < 0.2, "{sum} of {profiled} ms");
    let of_kind = |name: &str| kinds.iter().find(|kind| kind["kind"] == name).map_or(f64::NAN, of);
    for kind in [
        "attention",
        "feed-forward",
        "LayerNorm",
        "embedding",
        "head and loss",
        "optimizer",
        "data",
    ] {
        assert!(of_kind(kind) > 0.0, "{kind}: {kinds:#?}");
    }
    let operations = profile["operations"].as_array().unwrap();
    let count = |name: &str, pass: &str| {
        let found = operations.iter().find(|one| one["name"] == name && one["pass"] == pass);
        found.map_or(0, |one| number(&one["count"]) as u64)
    };
    // Four layers, two micro-steps; the backward pass recomputes the block.
    assert_eq!([count("qkv", "forward"), count("attention", "backward")], [8, 16]);
    assert_eq!([count("LayerNorm", "forward"), count("AdamW", "update")], [18, 1]);
    assert!(number(&profile["ceilings"]["product_flops"]) > 1e9);
    assert!(number(&profile["mfu"]) > 0.0 && number(&profile["mfu"]) < 1.0);
    assert!(!profile["advice"].as_array().unwrap().is_empty());
    let trace = fs::read_to_string(study.join("runs/profile/trace.json")).unwrap();
    let trace: Value = serde_json::from_str(&trace).unwrap();
    assert!(trace["traceEvents"].as_array().unwrap().len() > 1000);
    gpt2(dir.path(), &["report", "verify", "studies/profile"]).succeeded();
    // The view of it leaves nothing.
    let flags = "bench operations --backend flex --threads 1 --model d4 --batch 1 --seq 8";
    let table = gpt2(dir.path(), &flags.split(' ').collect::<Vec<_>>()).succeeded();
    for name in [
        "classifier, loss and derivatives",
        "feed-forward",
        "bound by",
        "at most",
    ] {
        assert!(table.contains(name), "{name} in\n{table}");
    }
}

#[test]
fn the_top_down_metrics_of_a_recording_are_marked() {
    let dir = tempfile::tempdir().unwrap();
    let recording = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../crates/gpt2-counters/recordings/top-down-amd-zen4.json"
    );
    let flags = "profile --backend flex --threads 1 --model d3 --batch 1 --seq 8 --counters";
    let flags: Vec<_> = flags.split(' ').collect();
    gpt2(dir.path(), &[&flags[..], &[recording]].concat()).succeeded();
    let page = fs::read_to_string(dir.path().join("studies/profile/index.html")).unwrap();
    assert!(page.contains("Top-down averages (recorded)"));
    let missing = gpt2(
        dir.path(),
        &[&flags[..], &["missing.json", "--out", "studies/again"]].concat(),
    );
    missing.failed("there is no profile: failed: cannot read missing.json");
}
