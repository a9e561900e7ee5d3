//! A study: configurations, each in a process of its own, and what they come to together.
//!
//! A row is written when its configuration has ended, however it ended, so that a study that was killed goes on with the next
//! one. Nothing here knows what is studied: that is for `threads`, `sweep` and `fixed_work`.

use crate::error::BenchError;
use crate::gpu::GpuSampler;
use crate::launcher::write_launcher_metadata;
use crate::peer::PeerRun;
use crate::process::{self, Ended};
use crate::work::{Failure, Found, Work, WorkPaths, read_json, write_json};
use gpt2_backend::is_out_of_memory;
use gpt2_base::Invalid;
use gpt2_base::fs::{Lock, LockError};
use gpt2_records::{Conclusion, Made, Row, STUDY_VERSION, Status, Study, StudyKind};
use gpt2_train::TrainError;
use gpt2_train::stop::StopRequest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The exit status of a process of ours whose device had no memory left.
pub const OUT_OF_MEMORY_STATUS: u8 = 12;

/// What is to be measured. A study that goes on must be the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// [`STUDY_VERSION`].
    pub version: u32,
    /// What is studied.
    pub kind: StudyKind,
    /// What all configurations have in common, for people.
    pub settings: BTreeMap<String, String>,
    /// The settings in which they differ.
    pub axes: Vec<String>,
    /// The configurations.
    pub entries: Vec<Entry>,
}

/// A configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name, unique in the study, and a file name.
    pub name: String,
    /// Its value of each axis that it has.
    pub axes: BTreeMap<String, String>,
    /// What is run.
    pub task: Task,
}

/// What is run for a configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Our trainer.
    Ours(Box<Work>),
    /// Another program.
    Peer {
        /// Its name.
        name: String,
        /// Its command, for the shell.
        command: String,
    },
    /// Nothing, for this reason.
    Skip(String),
}

/// How processes are run.
#[derive(Debug, Clone)]
pub struct Runner {
    /// The program, and its arguments before the directory of the work.
    pub command: Vec<OsString>,
    /// Time that each process may take.
    pub limit: Duration,
    /// Asks the study to stop.
    pub stop: StopRequest,
    /// The GPU that is looked at, as CUDA counts them.
    pub gpu: usize,
}

/// What a study tells while it goes on.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A configuration begins.
    Begins {
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// Its name.
        name: &'a str,
        /// Seconds that are left, once they can be told.
        eta_sec: Option<f64>,
    },
    /// It has ended, or had ended before.
    Ended {
        /// What came of it.
        row: &'a Row,
        /// Whether it was measured by an earlier process.
        before: bool,
    },
    /// A row that an earlier process left cannot be read, and is measured again.
    Damaged(&'a BenchError),
}

/// Measures what is not measured yet, and gives the rows in the order of the definition.
///
/// # Errors
/// If the directory holds another study or is in use, a file cannot be written, or the study is asked to stop.
pub fn run(
    dir: &Path,
    definition: &Definition,
    made: Made,
    runner: &Runner,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Study, BenchError> {
    fs::create_dir_all(dir).map_err(|source| TrainError::io("create", dir, source))?;
    let _lock = lock(dir)?;
    claim(dir, definition)?;
    let mut study = Study {
        version: STUDY_VERSION,
        kind: definition.kind,
        made,
        settings: definition.settings.clone(),
        axes: definition.axes.clone(),
        baseline: None,
        rows: Vec::new(),
        conclusions: Vec::new(),
        notes: Vec::new(),
        profile: None,
    };
    let of = definition.entries.len();
    let (began, mut measured) = (Instant::now(), 0_usize);
    for (index, entry) in definition.entries.iter().enumerate() {
        let paths = WorkPaths(dir.join("runs").join(&entry.name));
        let before = match finished(&paths) {
            Ok(row) => row,
            Err(error) => {
                progress(Progress::Damaged(&error));
                None
            }
        };
        let is_before = before.is_some();
        let row = if let Some(row) = before {
            row
        } else {
            let each = (measured > 0).then(|| began.elapsed().as_secs_f64() / measured as f64);
            progress(Progress::Begins {
                number: index + 1,
                of,
                name: &entry.name,
                eta_sec: each.map(|each| each * (of - index) as f64),
            });
            measured += 1;
            let row = measure(entry, &paths, runner)?;
            write_json(&paths.row(), &row)?;
            row
        };
        progress(Progress::Ended {
            row: &row,
            before: is_before,
        });
        if let Some(found) = found(&paths) {
            for said in found.notes {
                if !study.notes.contains(&said) {
                    study.notes.push(said);
                }
            }
            study.profile = study.profile.or(found.profile);
        }
        study.rows.push(row);
        study.made.devices = devices(&study.rows);
        write_json(&dir.join("results.json"), &study)?;
    }
    Ok(study)
}

fn lock(dir: &Path) -> Result<Lock, BenchError> {
    let path = dir.join("study.lock");
    Lock::acquire(&path).map_err(|error| match error {
        LockError::Held { pid } => BenchError::InUse {
            path: dir.to_owned(),
            pid,
        },
        LockError::Io(source) => TrainError::io("lock", path, source).into(),
    })
}

/// Writes the definition, or checks that it is the one that is there.
fn claim(dir: &Path, definition: &Definition) -> Result<(), BenchError> {
    let path = dir.join("study.json");
    if !path.exists() {
        return write_json(&path, definition);
    }
    let another = |difference: String| BenchError::AnotherStudy {
        path: dir.to_owned(),
        difference,
    };
    let found: serde_json::Value = read_json(&path)?;
    let version = found["version"].as_u64();
    if version != Some(STUDY_VERSION.into()) {
        let version = version.map_or_else(|| "none".to_owned(), |version| version.to_string());
        return Err(another(format!("its version is {version}, expected {STUDY_VERSION}")));
    }
    let found: Definition = read_json(&path)?;
    match difference(&found, definition) {
        Some(difference) => Err(another(difference)),
        None => Ok(()),
    }
}

/// The first thing in which two definitions differ.
fn difference(found: &Definition, wanted: &Definition) -> Option<String> {
    if found == wanted {
        return None;
    }
    let keys = found.settings.keys().chain(wanted.settings.keys());
    for key in keys {
        let [a, b] = [found, wanted].map(|one| one.settings.get(key).map_or("not set", String::as_str));
        if a != b {
            return Some(format!("`{key}` is {a} there and {b} here"));
        }
    }
    for (a, b) in found.entries.iter().zip(&wanted.entries) {
        if a.name != b.name {
            return Some(format!("a configuration is {} there and {} here", a.name, b.name));
        }
        if a.task != b.task {
            return Some(format!("the configuration {} is another", a.name));
        }
    }
    let [a, b] = [found, wanted].map(|one| one.entries.len());
    Some(format!("it has {a} configurations there and {b} here"))
}

/// The row of a configuration that has ended before.
fn finished(paths: &WorkPaths) -> Result<Option<Row>, BenchError> {
    if !paths.row().exists() {
        return Ok(None);
    }
    read_json(&paths.row()).map(Some)
}

/// Runs a configuration, whatever an earlier try left.
fn measure(entry: &Entry, paths: &WorkPaths, runner: &Runner) -> Result<Row, BenchError> {
    let mut row = Row {
        name: entry.name.clone(),
        peer: None,
        axes: entry.axes.clone(),
        status: Status::Skipped,
        reason: None,
        predicted_memory_bytes: None,
        process_sec: None,
        figures: None,
        derived: None,
    };
    let dir = &paths.0;
    if dir.exists() {
        process::end_leftovers(dir);
        fs::remove_dir_all(dir).map_err(|source| TrainError::io("remove", dir, source))?;
    }
    fs::create_dir_all(dir).map_err(|source| TrainError::io("create", dir, source))?;
    match &entry.task {
        Task::Skip(reason) => row.reason = Some(reason.clone()),
        Task::Ours(work) => measure_ours(&mut row, work, paths, runner)?,
        Task::Peer { name, command } => {
            row.peer = Some(name.clone());
            measure_peer(&mut row, command, paths, runner)?;
        }
    }
    Ok(row)
}

/// What the process of a configuration of ours found out.
fn found(paths: &WorkPaths) -> Option<Found> {
    paths.found().exists().then(|| read_json(&paths.found()).ok())?
}

fn measure_ours(row: &mut Row, work: &Work, paths: &WorkPaths, runner: &Runner) -> Result<(), BenchError> {
    write_json(&paths.work(), work)?;
    let [program, arguments @ ..] = runner.command.as_slice() else {
        unreachable!("a program")
    };
    let mut command = Command::new(program);
    command.args(arguments).arg(&paths.0).envs(&work.env);
    process::mark(&mut command, &paths.0);
    let sampler = GpuSampler::start(runner.gpu);
    let (ended, time) = process::run(
        &mut command,
        [&paths.stdout(), &paths.stderr()],
        runner.limit,
        &runner.stop,
    )?;
    row.process_sec = Some(time.as_secs_f64());
    if paths.predicted().exists() {
        row.predicted_memory_bytes = Some(read_json(&paths.predicted())?);
    }
    if let Ended::Exited(status) = ended
        && status.success()
        && paths.found().exists()
    {
        write_launcher_metadata(paths, status.code(), time)?;
        let found: Found = read_json(&paths.found())?;
        let mut figures = found.figures;
        figures.gpu = GpuSampler::usage(sampler, found.timed);
        row.status = Status::Done;
        row.figures = Some(figures);
        return Ok(());
    }
    let failure: Option<Failure> = paths
        .failure()
        .exists()
        .then(|| read_json(&paths.failure()))
        .transpose()?;
    let said = tail(&paths.stderr());
    (row.status, row.reason) = match (ended, failure) {
        (Ended::TimedOut, _) => (Status::TimedOut, Some(over(runner.limit))),
        (_, Some(Failure { refused: true, message })) => (Status::Skipped, Some(message)),
        (_, Some(Failure { message, .. })) if is_out_of_memory(&message) => (Status::OutOfMemory, Some(message)),
        (_, Some(Failure { message, .. })) => (Status::Failed, Some(message)),
        (Ended::Exited(status), None)
            if status.code() == Some(OUT_OF_MEMORY_STATUS.into()) || said.as_deref().is_some_and(is_out_of_memory) =>
        {
            (Status::OutOfMemory, said)
        }
        (Ended::Exited(status), None) => (Status::Failed, Some(how_it_ended(status, said))),
    };
    Ok(())
}

fn measure_peer(row: &mut Row, command: &str, paths: &WorkPaths, runner: &Runner) -> Result<(), BenchError> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]);
    process::mark(&mut shell, &paths.0);
    let sampler = GpuSampler::start(runner.gpu);
    let (ended, time) = process::run(
        &mut shell,
        [&paths.stdout(), &paths.stderr()],
        runner.limit,
        &runner.stop,
    )?;
    row.process_sec = Some(time.as_secs_f64());
    let said = tail(&paths.stderr());
    (row.status, row.reason) = match ended {
        Ended::TimedOut => (Status::TimedOut, Some(over(runner.limit))),
        Ended::Exited(status) if !status.success() => {
            let text = fs::read_to_string(paths.stderr()).unwrap_or_default();
            // PyTorch's words, and those of programs like it.
            if text.contains("out of memory") || text.contains("OutOfMemory") {
                (Status::OutOfMemory, said)
            } else {
                (Status::Failed, Some(how_it_ended(status, said)))
            }
        }
        Ended::Exited(_) => {
            let output = fs::read_to_string(paths.stdout()).unwrap_or_default();
            match PeerRun::parse(&output) {
                Ok(run) => {
                    let mut figures = run.figures();
                    figures.gpu = GpuSampler::usage(sampler, run.timed);
                    row.figures = Some(figures);
                    (Status::Done, None)
                }
                Err(error) => (
                    Status::Failed,
                    Some(format!(
                        "the last line of {} is no JSON of a timing (keys peer, batch, seq, step_ms, peak_mem_mib): {error}",
                        paths.stdout().display()
                    )),
                ),
            }
        }
    };
    Ok(())
}

fn over(limit: Duration) -> String {
    format!("ended after its time limit of {} s", limit.as_secs_f64())
}

fn how_it_ended(status: std::process::ExitStatus, said: Option<String>) -> String {
    let said = said.map(|said| format!(": {said}")).unwrap_or_default();
    format!("{status}{said}")
}

/// The last error that a process spoke of, or else the last line that it said.
fn tail(path: &Path) -> Option<String> {
    let text = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_error = |line: &&str| {
        let kind = line.split(':').next().unwrap_or_default();
        line.contains(':') && kind.to_ascii_lowercase().ends_with("error")
    };
    let line = lines.clone().rfind(is_error).or_else(|| lines.next_back())?;
    Some(line.chars().take(400).collect())
}

/// The devices that the rows name, each once.
fn devices(rows: &[Row]) -> Vec<String> {
    let mut devices = Vec::new();
    for figures in rows.iter().filter_map(|row| row.figures.as_ref()) {
        if !figures.device.is_empty() && !devices.contains(&figures.device) {
            devices.push(figures.device.clone());
        }
    }
    devices
}

/// Checks numbers that configurations are made of: at least one, none of them 0, each once. `what` is the setting.
///
/// # Errors
/// The first that is not so.
pub(crate) fn check_each_once(what: &'static str, values: &[usize]) -> Result<(), BenchError> {
    if values.is_empty() {
        return Err(Invalid::new(what, "empty", "numbers of 1 or more, such as 1,2,4").into());
    }
    for (index, value) in values.iter().enumerate() {
        if *value == 0 || values[..index].contains(value) {
            return Err(Invalid::new(what, value, "numbers of 1 or more, each once").into());
        }
    }
    Ok(())
}

/// A conclusion: the row with the largest `score`, and its figures by `because`.
pub(crate) fn best<'a>(
    goal: &str,
    rows: impl IntoIterator<Item = &'a Row>,
    score: impl Fn(&Row) -> Option<f64>,
    because: impl Fn(&Row) -> String,
) -> Conclusion {
    let best = rows
        .into_iter()
        .filter_map(|row| Some((score(row).filter(|score| score.is_finite())?, row)))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, row)| row);
    Conclusion {
        goal: goal.to_owned(),
        row: best.map(|row| row.name.clone()),
        because: best.map_or_else(|| "no configuration was measured".to_owned(), because),
    }
}

/// Where the files of a study lie, if its directory is not named.
pub fn default_dir(name: &str) -> PathBuf {
    Path::new("studies").join(name)
}
