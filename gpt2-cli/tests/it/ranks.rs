//! Several ranks as processes: the launchers, and what is left when one of them ends.

use crate::support::{Outcome, gpt2, prepared, write_tiny};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A run that does not end by itself, with a checkpoint each step.
const LONG: [&str; 14] = [
    "--run",
    "run",
    "--data",
    "data",
    "--steps",
    "1000000",
    "--checkpoint-every",
    "1",
    "--eval-every",
    "0",
    "--log-every",
    "1",
    "--warmup",
    "0",
];

/// What a launcher sets for a rank, by name and value.
type Variables = [(&'static str, &'static str); 5];

/// Processes of a training.
type Processes = fn(&Training) -> Vec<i32>;

fn command(dir: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpt2"));
    command
        .args(["train", "--config", "tiny.toml"])
        .args(flags)
        .current_dir(dir)
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A run of several ranks, once it has taken a few steps.
struct Training {
    launcher: Child,
    lines: BufReader<ChildStdout>,
}

impl Training {
    fn start(dir: &Path, flags: &[&str]) -> Self {
        write_tiny(dir);
        let mut launcher = command(dir, flags).spawn().unwrap();
        let mut lines = BufReader::new(launcher.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("step       3/") {
            line.clear();
            assert!(
                lines.read_line(&mut line).unwrap() > 0,
                "it ended: {:?}",
                launcher.wait_with_output()
            );
        }
        Self { launcher, lines }
    }

    /// The processes of its ranks, in their order.
    fn ranks(&self) -> Vec<i32> {
        let id = self.launcher.id();
        let mut ranks: Vec<(usize, i32)> = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter_map(|process| {
                let environment = fs::read(format!("/proc/{process}/environ")).ok()?;
                let value = |name: &str| {
                    let variables = environment.split(|byte| *byte == 0);
                    variables
                        .map(String::from_utf8_lossy)
                        .find_map(|variable| Some(variable.strip_prefix(name)?.to_owned()))
                };
                let is_ours = value("GPT2_RANKS_PARENT=")? == id.to_string();
                is_ours.then_some((value("RANK=")?.parse().ok()?, process))
            })
            .collect();
        ranks.sort_unstable();
        ranks.into_iter().map(|(_, process)| process).collect()
    }

    /// Waits for its end; what it came to, and how long that took.
    fn end(mut self) -> (Outcome, Duration) {
        let began = Instant::now();
        let ranks = self.ranks();
        let reader = thread::spawn(move || {
            let mut rest = String::new();
            self.lines.read_to_string(&mut rest).unwrap();
            rest
        });
        let output = self.launcher.wait_with_output().unwrap();
        let took = began.elapsed();
        assert!(ranks.iter().all(|rank| !is_alive(*rank)), "a rank is left");
        let outcome = Outcome {
            code: output.status.code(),
            stdout: reader.join().unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        (outcome, took)
    }
}

/// Whether a process is there, and not only its exit code.
fn is_alive(process: i32) -> bool {
    let state = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    state
        .rsplit(')')
        .next()
        .is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

fn signal(process: i32, signal: i32) {
    // SAFETY: it sends a signal.
    assert_eq!(unsafe { libc::kill(process, signal) }, 0);
}

fn newest_weights(dir: &Path, run: &str) -> (PathBuf, Vec<[Vec<u8>; 2]>) {
    let mut checkpoints: Vec<PathBuf> = fs::read_dir(dir.join(run).join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    checkpoints.sort();
    let newest = checkpoints.pop().unwrap();
    let files = ["model.safetensors", "optimizer.safetensors"].map(|name| fs::read(newest.join(name)).unwrap());
    (newest, vec![files])
}

#[test]
fn every_launcher_trains_what_one_process_does() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    prepared(dir);
    write_tiny(dir);
    let run = |name: &'static str, more: &[&str]| {
        let flags = [
            "train",
            "--config",
            "tiny.toml",
            "--data",
            "data",
            "--dropout",
            "0.1",
            "--run",
            name,
        ];
        gpt2(dir, &[&flags[..], more].concat())
    };
    run("alone", &["--grad-accum", "2"]).succeeded();
    let expected = newest_weights(dir, "alone").1;

    let said = run("devices", &["--devices", "2"]);
    assert!(
        said.stderr
            .contains("2 ranks, started by gpt2 train --devices: 4 sequences a step"),
        "{said:#?}"
    );
    said.succeeded();
    assert!(newest_weights(dir, "devices").1 == expected);
    let plan = fs::read_to_string(dir.join("devices/plan.toml")).unwrap();
    assert!(
        plan.contains("devices = 2\n") && plan.contains("global-batch = 4\n"),
        "{plan}"
    );
    assert!(
        fs::read_to_string(dir.join("devices/log.rank-001.txt"))
            .unwrap()
            .contains("step 2/2")
    );

    // What the launchers set, one process a rank.
    let port = gpt2_ranks::free_port().unwrap().to_string();
    let torchrun = |rank: &'static str| {
        [
            ("RANK", rank),
            ("WORLD_SIZE", "2"),
            ("LOCAL_RANK", rank),
            ("LOCAL_WORLD_SIZE", "2"),
            ("MASTER_ADDR", "localhost"),
        ]
    };
    let open_mpi = |rank: &'static str| {
        [
            ("OMPI_COMM_WORLD_RANK", rank),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", rank),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
            ("PMIX_NAMESPACE", "1"),
        ]
    };
    let slurm = |rank: &'static str| {
        [
            ("SLURM_PROCID", rank),
            ("SLURM_STEP_NUM_TASKS", "2"),
            ("SLURM_LOCALID", rank),
            ("SLURM_STEP_TASKS_PER_NODE", "2"),
            ("SLURM_STEP_NODELIST", "localhost"),
        ]
    };
    let launchers: [(&str, [Variables; 2]); 3] = [
        ("torchrun", ["0", "1"].map(torchrun)),
        ("open-mpi", ["0", "1"].map(open_mpi)),
        ("slurm", ["0", "1"].map(slurm)),
    ];
    for (name, ranks) in launchers {
        let ranks = ranks.map(|variables| {
            let flags = ["--data", "data", "--dropout", "0.1", "--run", name];
            command(dir, &flags)
                .envs(variables)
                .env("MASTER_PORT", &port)
                .spawn()
                .unwrap()
        });
        for rank in ranks {
            let output = rank.wait_with_output().unwrap();
            assert!(output.status.success(), "{name}: {output:?}");
        }
        assert!(newest_weights(dir, name).1 == expected, "{name}");
    }
}

#[test]
fn a_rank_that_is_killed_ends_the_others_and_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    prepared(dir.path());
    for killed in 0..3 {
        let _ = fs::remove_dir_all(dir.path().join("run"));
        let training = Training::start(dir.path(), &[&LONG[..], &["--devices", "3"]].concat());
        let process = training.ranks()[killed];
        signal(process, libc::SIGKILL);
        let (outcome, took) = training.end();
        assert_eq!(outcome.code, Some(3), "{outcome:#?}");
        assert!(took < Duration::from_secs(10), "{took:?}");
        let errors: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("error: ")).collect();
        assert_eq!(errors.len(), 1, "{outcome:#?}");
        let (named, process) = (
            format!("rank {killed} (host "),
            format!(", process {process}) is gone, at step "),
        );
        for part in [
            named.as_str(),
            &process,
            "newest checkpoint run/checkpoints/step-0",
            "go on with --resume",
        ] {
            assert!(errors[0].contains(part), "{part:?} in {outcome:#?}");
        }
        // With the number of ranks that the run had, or another.
        let (newest, _) = newest_weights(dir.path(), "run");
        let step: u64 = newest
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_start_matches("step-")
            .parse()
            .unwrap();
        let steps = (step + 2).to_string();
        let resume = ["train", "--run", "run", "--resume", "--steps", &steps];
        let devices: &[&str] = if killed == 0 {
            &[]
        } else {
            &["--devices", "1", "--batch", "2"]
        };
        gpt2(dir.path(), &[&resume[..], devices].concat()).succeeded();
    }
}

#[test]
fn a_rank_that_falls_silent_ends_the_others() {
    let dir = tempfile::tempdir().unwrap();
    prepared(dir.path());
    for stopped in 0..2 {
        let _ = fs::remove_dir_all(dir.path().join("run"));
        let flags = [&LONG[..], &["--devices", "2", "--peer-timeout", "2"]].concat();
        let training = Training::start(dir.path(), &flags);
        signal(training.ranks()[stopped], libc::SIGSTOP);
        let (outcome, _) = training.end();
        assert_eq!(outcome.code, Some(3), "{outcome:#?}");
        let message = format!("rank {stopped} (host ");
        assert!(outcome.stderr.contains(&message), "{outcome:#?}");
        assert!(
            outcome.stderr.contains("has given no sign of life for 2 s, at step "),
            "{outcome:#?}"
        );
    }
}

#[test]
fn a_signal_to_any_rank_or_to_the_launcher_saves_and_stops_all() {
    let dir = tempfile::tempdir().unwrap();
    prepared(dir.path());
    // Ctrl-C at a terminal reaches the launcher and all ranks at once.
    let targets: [(&str, Processes); 4] = [
        ("the launcher", |training| vec![training.launcher.id().cast_signed()]),
        ("rank 0", |training| vec![training.ranks()[0]]),
        ("rank 1", |training| vec![training.ranks()[1]]),
        ("all", |training| {
            [training.ranks(), vec![training.launcher.id().cast_signed()]].concat()
        }),
    ];
    for (name, processes) in targets {
        let _ = fs::remove_dir_all(dir.path().join("run"));
        let training = Training::start(dir.path(), &[&LONG[..], &["--devices", "2"]].concat());
        for process in processes(&training) {
            signal(process, libc::SIGTERM);
        }
        let (outcome, took) = training.end();
        assert_eq!(outcome.code, Some(0), "{name}: {outcome:#?}");
        assert!(took < Duration::from_secs(10), "{name}: {took:?}");
        assert!(outcome.stdout.contains("everything is saved"), "{name}: {outcome:#?}");
        let log = |log: &str| {
            let text = fs::read_to_string(dir.path().join("run").join(log)).unwrap();
            text.lines().last().unwrap().split(" | ").next().unwrap().to_owned()
        };
        assert_eq!(log("log.txt"), log("log.rank-001.txt"), "{name}");
    }
}

#[test]
fn a_second_signal_leaves_at_once() {
    let dir = tempfile::tempdir().unwrap();
    prepared(dir.path());
    let training = Training::start(dir.path(), &[&LONG[..], &["--devices", "2"]].concat());
    let launcher = training.launcher.id().cast_signed();
    // The others wait for it, and so the first signal ends nothing.
    signal(training.ranks()[1], libc::SIGSTOP);
    signal(launcher, libc::SIGTERM);
    thread::sleep(Duration::from_millis(500));
    assert!(is_alive(launcher));
    signal(launcher, libc::SIGTERM);
    let (outcome, took) = training.end();
    assert_eq!(outcome.code, Some(128 + libc::SIGTERM), "{outcome:#?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_rank_that_cannot_write_ends_the_others() {
    let dir = tempfile::tempdir().unwrap();
    prepared(dir.path());
    let training = Training::start(dir.path(), &[&LONG[..], &["--devices", "2"]].concat());
    let checkpoints = dir.path().join("run/checkpoints");
    fs::rename(&checkpoints, dir.path().join("run/kept")).unwrap();
    fs::write(&checkpoints, "in the way").unwrap();
    let (outcome, took) = training.end();
    assert_eq!(outcome.code, Some(3), "{outcome:#?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let errors: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("error: ")).collect();
    assert_eq!(errors.len(), 1, "{outcome:#?}");
    assert!(errors[0].contains("run/checkpoints"), "{outcome:#?}");
}

#[test]
fn ranks_that_cannot_begin_say_so_once() {
    let dir = tempfile::tempdir().unwrap();
    prepared(dir.path());
    let refused = |flags: &[&str], expected: &str| {
        write_tiny(dir.path());
        let flags = ["train", "--config", "tiny.toml", "--run", "refused"]
            .into_iter()
            .chain(flags.iter().copied());
        gpt2(dir.path(), &flags.collect::<Vec<_>>()).failed(expected);
        assert!(!dir.path().join("refused").exists());
    };
    refused(
        &["--devices", "3", "--global-batch", "8"],
        "`global-batch` is 8, expected a multiple of `batch` × ranks (2 × 3 = 6); try 6 or 12",
    );
    refused(
        &["--devices", "2", "--device", "0"],
        "`device` and `devices` are both set",
    );
    refused(&["--devices", "2", "--lr=-1"], "`lr` is -1");
    refused(&["--devices", "2", "--data", "nowhere"], "nowhere");

    let half = command(dir.path(), &["--data", "data", "--run", "refused"])
        .env("RANK", "0")
        .output()
        .unwrap();
    let said = String::from_utf8(half.stderr).unwrap();
    assert_eq!(half.status.code(), Some(1));
    assert!(
        said.contains("RANK is set by torchrun, but WORLD_SIZE is not"),
        "{said}"
    );

    let mut started = command(dir.path(), &["--data", "data", "--run", "refused", "--devices", "2"]);
    let started = started.envs([
        ("RANK", "0"),
        ("WORLD_SIZE", "2"),
        ("LOCAL_RANK", "0"),
        ("LOCAL_WORLD_SIZE", "2"),
    ]);
    let started = started
        .envs([("MASTER_ADDR", "localhost"), ("MASTER_PORT", "29500")])
        .output()
        .unwrap();
    let said = String::from_utf8(started.stderr).unwrap();
    assert!(
        said.contains("`devices` is 2, but torchrun has started the ranks already (2 of them)"),
        "{said}"
    );
}

#[test]
fn a_job_that_is_queued_again_starts_or_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    write_tiny(dir.path());
    prepared(dir.path());
    let job = "train --config tiny.toml --data data --run run --auto-resume --eval-every 0 --steps";
    let steps_taken = || {
        let metrics = fs::read_to_string(dir.path().join("run/metrics.jsonl")).unwrap();
        metrics.lines().count()
    };
    let train = |steps| {
        gpt2(dir.path(), &job.split(' ').chain([steps]).collect::<Vec<_>>()).succeeded();
        steps_taken()
    };
    assert_eq!(train("2"), 2);
    assert_eq!(train("5"), 5);
    // As it is after a kill before the first checkpoint.
    let forget = || fs::remove_dir_all(dir.path().join("run/checkpoints")).unwrap();
    forget();
    assert_eq!(train("3"), 3);
    // Another run does not take its place.
    forget();
    let other: Vec<_> = job.split(' ').chain(["3", "--lr", "0.5"]).collect();
    gpt2(dir.path(), &other).refused("cannot resume with other settings");
    assert_eq!(steps_taken(), 3);
}
