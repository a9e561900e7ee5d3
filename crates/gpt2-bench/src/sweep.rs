//! The sweep: a Cartesian product of settings, read from a file, with other programs in the same table.

use crate::error::BenchError;
use crate::study::{Definition, Entry, Task, best};
use crate::words::{file_name, filled, placeholder};
use crate::work::{Corpus, Work};
use gpt2_backend::BackendChoice;
use gpt2_base::nearest;
use gpt2_records::{Conclusion, Row, STUDY_VERSION, Status, Study, StudyKind};
use gpt2_train::TrainError;
use gpt2_train::config::{BatchSize, RunConfig};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::{Table, Value};

/// Steps of a configuration, warm-up included, if the file names none.
const STEPS: i64 = 40;

/// Seconds that a configuration may take, if the file names none.
const LIMIT_SEC: f64 = 600.0;

/// Settings that can be axes: those that say what is computed, and where.
const AXES: [&str; 16] = [
    "model",
    "n-layer",
    "n-head",
    "n-embd",
    "block-size",
    "dropout",
    "precision",
    "recompute",
    "operations",
    "batch",
    "seq",
    "grad-accum",
    "backend",
    "device",
    "threads",
    // Repeats.
    "seed",
];

/// The key by which `baseline` names a program, and the name of ours there.
const PROGRAM: &str = "program";
const OURS: &str = "gpt2";

/// Axes that change what a token costs: rates of rows that differ in them are not to be compared.
const SHAPE: [&str; 6] = ["model", "n-layer", "n-head", "n-embd", "block-size", "seq"];

const KEYS: [&str; 5] = ["time-limit-sec", "baseline", "common", "axes", "peer"];
const PEER_KEYS: [&str; 3] = ["name", "command", "axes"];

/// A file of a sweep, read and checked.
#[derive(Debug, Clone)]
pub struct Sweep {
    path: PathBuf,
    common: Table,
    axes: Vec<Axis>,
    peers: Vec<Peer>,
    /// The row that the others are compared with: its values of some axes.
    baseline: BTreeMap<String, String>,
    limit: Duration,
}

#[derive(Debug, Clone)]
struct Axis {
    name: String,
    values: Vec<Value>,
}

#[derive(Debug, Clone)]
struct Peer {
    name: String,
    command: String,
    axes: Vec<Axis>,
}

/// One value of each axis.
type Point = Vec<(String, Value)>;

impl Sweep {
    /// Reads the file of a sweep.
    ///
    /// # Errors
    /// [`BenchError::StudyFile`] for what is wrong in it, with the nearest name of a misspelt one.
    pub fn read(path: &Path) -> Result<Self, BenchError> {
        let text = std::fs::read_to_string(path).map_err(|source| TrainError::io("read", path, source))?;
        Self::parse(&text, path)
    }

    /// Parses the text of such a file; `path` is for messages.
    ///
    /// # Errors
    /// Those of [`Sweep::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, BenchError> {
        let wrong = |reason: String| BenchError::StudyFile {
            path: path.to_owned(),
            reason,
        };
        let file: Table = text
            .parse()
            .map_err(|error: toml::de::Error| wrong(format!("not valid TOML: {}", one_line(&error.to_string()))))?;
        check_keys(&file, &KEYS, "key").map_err(wrong)?;
        let mut common = match file.get("common") {
            Some(Value::Table(table)) => table.clone(),
            None => Table::new(),
            Some(_) => {
                return Err(wrong(
                    "`common` is no table: write [common] and settings under it".into(),
                ));
            }
        };
        check_keys(&common, &RunConfig::keys(), "setting in [common]").map_err(wrong)?;
        common.entry("steps").or_insert(Value::Integer(STEPS));
        // Times of steps alone, unless the file asks for more.
        for interval in ["eval-every", "sample-every", "checkpoint-every"] {
            common.entry(interval).or_insert(Value::Integer(0));
        }
        let axes = match file.get("axes") {
            Some(Value::Table(table)) => axes(table, Some(&AXES)).map_err(wrong)?,
            _ => {
                return Err(wrong(
                    "there are no axes: write [axes] and, for example, batch = [1, 2, 4]".into(),
                ));
            }
        };
        if let Some(axis) = axes.iter().find(|axis| common.contains_key(&axis.name)) {
            return Err(wrong(format!(
                "`{}` is an axis and in [common]: leave one out",
                axis.name
            )));
        }
        let peers = match file.get("peer") {
            Some(Value::Array(peers)) => peers
                .iter()
                .map(|peer| Peer::parse(peer, &axes))
                .collect::<Result<Vec<_>, _>>()
                .map_err(wrong)?,
            None => Vec::new(),
            Some(_) => return Err(wrong("`peer` is no list: write [[peer]] for each program".into())),
        };
        let baseline = match file.get("baseline") {
            Some(Value::Table(table)) => table.iter().map(|(key, value)| (key.clone(), words(value))).collect(),
            None => BTreeMap::new(),
            Some(_) => {
                return Err(wrong(
                    "`baseline` is no table: write { batch = 4 }, with values of axes".into(),
                ));
            }
        };
        let limit = match file.get("time-limit-sec") {
            Some(value) => seconds(value).ok_or_else(|| {
                wrong(format!(
                    "`time-limit-sec` is {value}, expected a number of seconds above 0"
                ))
            })?,
            None => LIMIT_SEC,
        };
        let sweep = Self {
            path: path.to_owned(),
            common,
            axes,
            peers,
            baseline,
            limit: Duration::from_secs_f64(limit),
        };
        let mut names = sweep.axis_names();
        names.push(PROGRAM.to_owned());
        if let Some(key) = sweep.baseline.keys().find(|key| !names.contains(key)) {
            return Err(wrong(unknown("axis in `baseline`", key, &names)));
        }
        // A value of the wrong type is found now, and not when its configuration's turn comes.
        sweep.definition()?;
        Ok(sweep)
    }

    /// Time that each configuration may take.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// The axes of ours and of the peers, in their order, each once.
    fn axis_names(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for axis in self.axes.iter().chain(self.peers.iter().flat_map(|peer| &peer.axes)) {
            if !names.contains(&axis.name) {
                names.push(axis.name.clone());
            }
        }
        names
    }

    /// The configurations: for each value of the first axis ours in the order of the others, the last of which changes
    /// fastest, then each peer's, so that a drift of the machine meets all. A peer without the first axis comes last.
    ///
    /// # Errors
    /// [`BenchError::StudyFile`] if two configurations have one name.
    pub fn definition(&self) -> Result<Definition, BenchError> {
        let mut entries = Vec::new();
        for point in product(&self.axes) {
            let config = self.config(&point)?;
            let work = Work {
                config,
                without_data: Corpus::Random,
                counters: false,
                env: BTreeMap::new(),
                profiling: None,
            };
            let task = match meaningless(&work.config, &point, &self.axes) {
                Some(reason) => Task::Skip(reason),
                None => Task::Ours(Box::new(work)),
            };
            entries.push(Self::entry(OURS, &point, task));
        }
        for peer in &self.peers {
            // Only the axes that the command names: other values of the rest would be the same run again.
            let used = self
                .axes
                .iter()
                .filter(|axis| peer.command.contains(&placeholder(&axis.name)));
            let axes: Vec<Axis> = used.chain(&peer.axes).cloned().collect();
            for point in product(&axes) {
                let task = Task::Peer {
                    name: peer.name.clone(),
                    command: self.filled(&peer.command, &point),
                };
                entries.push(Self::entry(&peer.name, &point, task));
            }
        }
        if let Some(first) = self.axes.first() {
            let values: Vec<String> = first.values.iter().map(words).collect();
            entries.sort_by_key(|entry| {
                let value = entry.axes.get(&first.name);
                value.map_or(values.len(), |value| {
                    values.iter().position(|one| one == value).unwrap_or(values.len())
                })
            });
        }
        let mut names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        names.sort_unstable();
        if let Some([twice, _]) = names.array_windows().find(|[a, b]| a == b) {
            return Err(BenchError::StudyFile {
                path: self.path.clone(),
                reason: format!("two configurations are {twice}: leave out one of equal values or names"),
            });
        }
        Ok(Definition {
            version: STUDY_VERSION,
            kind: StudyKind::Sweep,
            settings: self
                .common
                .iter()
                .map(|(key, value)| (key.clone(), words(value)))
                .collect(),
            axes: self.axis_names(),
            entries,
        })
    }

    fn entry(program: &str, point: &Point, task: Task) -> Entry {
        let values = point.iter().map(|(axis, value)| (axis.clone(), words(value)));
        let axes: BTreeMap<String, String> = values.clone().collect();
        let mut name = file_name(program);
        for (axis, value) in values {
            name = format!("{name}_{axis}-{}", file_name(&value));
        }
        Entry { name, axes, task }
    }

    /// The settings of a configuration of ours.
    fn config(&self, point: &Point) -> Result<RunConfig, BenchError> {
        let mut table = self.common.clone();
        table.extend(point.iter().cloned());
        let text = table.to_string();
        let config = RunConfig::from_toml(&text, &self.path).map_err(|error| match error {
            // The line is of a text that no one wrote.
            TrainError::KeyType { key, reason, .. } => BenchError::StudyFile {
                path: self.path.clone(),
                reason: format!("`{key}`: {reason}"),
            },
            error => error.into(),
        })?;
        if config.batch == Some(BatchSize::Auto) {
            return Err(BenchError::StudyFile {
                path: self.path.clone(),
                reason: "`batch` is auto, expected a number: all programs must do the same work".to_owned(),
            });
        }
        Ok(config)
    }

    /// A peer's command with the values in their places; those that are no axis come from [common].
    fn filled(&self, command: &str, point: &Point) -> String {
        let defaults = [
            ("batch", Value::Integer(4)),
            ("seq", Value::Integer(1024)),
            ("grad-accum", Value::Integer(1)),
        ];
        let defaults = defaults.map(|(key, value)| (key.to_owned(), value));
        let common = self.common.iter().map(|(key, value)| (key.clone(), value.clone()));
        let values = point.iter().cloned().chain(common).chain(defaults);
        filled(command, values.map(|(key, value)| (key, words(&value))))
    }

    /// Computes what follows from the rows: speed-ups over the baseline, and which configuration for which goal.
    pub fn conclude(&self, study: &mut Study) {
        let program = |row: &Row| row.peer.clone().unwrap_or_else(|| OURS.to_owned());
        let matches = |row: &&Row| {
            self.baseline.iter().all(|(axis, value)| match axis.as_str() {
                PROGRAM => program(row) == *value,
                axis => row.axes.get(axis) == Some(value),
            })
        };
        let done = |row: &&Row| row.status == Status::Done;
        study.baseline = study.rows.iter().filter(done).find(matches).map(|row| row.name.clone());
        study.derive();
        study.conclusions = conclusions(&study.rows);
    }
}

impl Peer {
    fn parse(value: &Value, ours: &[Axis]) -> Result<Self, String> {
        let Value::Table(table) = value else {
            return Err("`peer` is no list of tables: write [[peer]] for each program".to_owned());
        };
        check_keys(table, &PEER_KEYS, "key of a peer")?;
        let text = |key: &str| match table.get(key) {
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.clone()),
            _ => Err(format!("a peer has no `{key}`: write {key} = \"…\"")),
        };
        let (name, command) = (text("name")?, text("command")?);
        let own = match table.get("axes") {
            Some(Value::Table(table)) => axes(table, None)?,
            None => Vec::new(),
            Some(_) => return Err(format!("`axes` of {name} is no table: write axes.compile = [\"none\"]")),
        };
        for axis in &own {
            if ours.iter().any(|one| one.name == axis.name) {
                return Err(format!(
                    "`{}` is an axis of {name} and of the sweep: leave one out",
                    axis.name
                ));
            }
            if !command.contains(&placeholder(&axis.name)) {
                return Err(format!("the command of {name} does not use its axis `{}`", axis.name));
            }
        }
        Ok(Self {
            name,
            command,
            axes: own,
        })
    }
}

/// Why a configuration has no meaning of its own. What a plan refuses, its process finds out.
fn meaningless(config: &RunConfig, point: &Point, axes: &[Axis]) -> Option<String> {
    let of = |name: &str| axes.iter().find(|axis| axis.name == name);
    let is_first = |name: &str| {
        let first = of(name).and_then(|axis| axis.values.first());
        point.iter().any(|(axis, value)| axis == name && Some(value) == first)
    };
    let on_gpu = matches!(config.backend, Some(BackendChoice::Cuda | BackendChoice::Wgpu));
    if on_gpu && of("threads").is_some() && !is_first("threads") {
        return Some("CPU threads change nothing of what a GPU computes: the first number is measured".to_owned());
    }
    None
}

/// Which configuration for which goal, among those whose tokens cost the same.
fn conclusions(rows: &[Row]) -> Vec<Conclusion> {
    let done: Vec<&Row> = rows.iter().filter(|row| row.status == Status::Done).collect();
    let shape = |row: &Row| -> Vec<String> {
        let values = SHAPE
            .iter()
            .filter_map(|&axis| Some(format!("{axis} {}", row.axes.get(axis)?)));
        values.collect()
    };
    let mut shapes: Vec<Vec<String>> = done.iter().map(|row| shape(row)).collect();
    shapes.sort();
    shapes.dedup();
    let mut found = Vec::new();
    for one in shapes {
        let rows: Vec<&Row> = done.iter().copied().filter(|row| shape(row) == one).collect();
        let of = if one.is_empty() {
            String::new()
        } else {
            format!(" ({})", one.join(", "))
        };
        let goal = |goal: &str| format!("{goal}{of}");
        let figure = |value: fn(&gpt2_records::Figures) -> f64| move |row: &Row| row.figures.as_ref().map(value);
        let derived = |value: fn(&gpt2_records::Derived) -> f64| move |row: &Row| row.derived.as_ref().map(value);
        let rate = figure(|figures| figures.tokens_per_sec);
        let mib = |figures: &gpt2_records::Figures| figures.peak_memory_bytes as f64 / f64::from(1 << 20);
        let said = |row: &Row| {
            row.figures.as_ref().map_or_else(String::new, |figures| {
                format!("{:.0} tokens/s, {:.0} MiB", figures.tokens_per_sec, mib(figures))
            })
        };
        found.push(best(&goal("highest throughput"), rows.iter().copied(), rate, said));
        found.push(best(
            &goal("least memory"),
            rows.iter().copied(),
            figure(|figures| -(figures.peak_memory_bytes as f64)),
            said,
        ));
        found.push(best(
            &goal("most throughput for its memory"),
            rows.iter().copied(),
            derived(|derived| derived.tokens_per_sec_per_mib),
            |row| {
                row.derived.map_or_else(String::new, |derived| {
                    format!("{:.1} tokens/s per MiB", derived.tokens_per_sec_per_mib)
                })
            },
        ));
        found.push(best(
            &goal("steadiest steps"),
            rows.iter().copied(),
            derived(|derived| -derived.jitter_relative),
            |row| {
                row.derived.map_or_else(String::new, |derived| {
                    format!(
                        "standard deviation {:.2} % of the mean step, p95/p50 {:.3}",
                        100.0 * derived.jitter_relative,
                        derived.p95_over_p50
                    )
                })
            },
        ));
        // A million tokens from a cold start.
        let short = |row: &Row| {
            let figures = row.figures.as_ref()?;
            Some(figures.settling_cost_sec? + 1e6 / figures.tokens_per_sec)
        };
        found.push(best(
            &goal("short experiments (a million tokens, warm-up included)"),
            rows.iter().copied(),
            |row| short(row).map(|seconds| -seconds),
            |row| short(row).map_or_else(String::new, |seconds| format!("{seconds:.1} s")),
        ));
    }
    found
}

/// Every combination of the axes' values. The last axis changes fastest.
fn product(axes: &[Axis]) -> Vec<Point> {
    axes.iter().fold(vec![Point::new()], |points, axis| {
        points
            .iter()
            .flat_map(|point| {
                axis.values.iter().map(|value| {
                    let mut point = point.clone();
                    point.push((axis.name.clone(), value.clone()));
                    point
                })
            })
            .collect()
    })
}

/// The axes of a table, whose names must be among `known`.
fn axes(table: &Table, known: Option<&[&str]>) -> Result<Vec<Axis>, String> {
    if let Some(known) = known {
        check_keys(table, known, "axis")?;
    }
    table
        .iter()
        .map(|(name, value)| match value {
            Value::Array(values) if !values.is_empty() => Ok(Axis {
                name: name.clone(),
                values: values.clone(),
            }),
            Value::Array(_) => Err(format!(
                "the axis `{name}` has no values, expected at least one: write {name} = [1], or leave it out"
            )),
            _ => Err(format!(
                "the axis `{name}` is {value}, expected a list of values: write {name} = [{value}]"
            )),
        })
        .collect()
}

fn check_keys<S: AsRef<str>>(table: &Table, known: &[S], what: &str) -> Result<(), String> {
    match table
        .keys()
        .find(|key| known.iter().all(|name| name.as_ref() != key.as_str()))
    {
        Some(key) => Err(unknown(what, key, known)),
        None => Ok(()),
    }
}

fn unknown<S: AsRef<str>>(what: &str, key: &str, known: &[S]) -> String {
    let names = known.iter().map(AsRef::as_ref);
    let meant = nearest(key, names.clone()).map_or_else(
        || format!("; there are {}", names.collect::<Vec<_>>().join(", ")),
        |name| format!("; `{name}` is meant?"),
    );
    format!("unknown {what} `{key}`{meant}")
}

fn seconds(value: &Value) -> Option<f64> {
    let seconds = value.as_float().or(value.as_integer().map(|seconds| seconds as f64))?;
    (seconds.is_finite() && seconds > 0.0).then_some(seconds)
}

/// A value as people write it: a text without quotes.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn one_line(text: &str) -> String {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        time-limit-sec = 90
        baseline = { batch = 4, compile = "none" }
        [common]
        model = "d4"
        seq = 64
        backend = "ndarray"
        [axes]
        batch = [4, 8]
        precision = ["f32"]
        [[peer]]
        name = "PyTorch"
        command = "python step.py --model {model} --batch {batch} --seq {seq} --compile {compile}"
        axes.compile = ["none", "default"]
    "#;

    fn parse(text: &str) -> Result<Sweep, BenchError> {
        Sweep::parse(text, Path::new("sweep.toml"))
    }

    fn message(from: &str, to: &str) -> String {
        parse(&FILE.replace(from, to)).unwrap_err().to_string()
    }

    #[test]
    fn ours_and_the_peers_are_one_table() {
        let definition = parse(FILE).unwrap().definition().unwrap();
        let names: Vec<_> = definition.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "gpt2_batch-4_precision-f32",
                "pytorch_batch-4_compile-none",
                "pytorch_batch-4_compile-default",
                "gpt2_batch-8_precision-f32",
                "pytorch_batch-8_compile-none",
                "pytorch_batch-8_compile-default",
            ]
        );
        assert_eq!(definition.axes, ["batch", "precision", "compile"]);
        let Task::Peer { command, .. } = &definition.entries[2].task else {
            panic!("a peer")
        };
        assert_eq!(
            command,
            "python step.py --model d4 --batch 4 --seq 64 --compile default"
        );
        let Task::Ours(work) = &definition.entries[3].task else {
            panic!("ours")
        };
        assert_eq!(
            (work.config.batch, work.config.seq, work.config.steps),
            (Some(8.into()), Some(64), Some(40))
        );
    }

    #[test]
    fn mistakes_in_the_file_are_named() {
        assert_eq!(
            message("batch = [4, 8]", "bach = [4, 8]"),
            "sweep.toml: unknown axis `bach`; `batch` is meant?"
        );
        assert_eq!(
            message("batch = [4, 8]", "batch = 4"),
            "sweep.toml: the axis `batch` is 4, expected a list of values: write batch = [4]"
        );
        assert_eq!(
            message("batch = [4, 8]", "batch = []"),
            "sweep.toml: the axis `batch` has no values, expected at least one: write batch = [1], or leave it out"
        );
        assert!(message("\"f32\"", "\"f33\"").starts_with("sweep.toml: `precision`: unknown variant `f33`"));
        assert_eq!(
            message("[common]", "[commons]"),
            "sweep.toml: unknown key `commons`; `common` is meant?"
        );
        assert_eq!(
            message("seq = 64", "batch = 64"),
            "sweep.toml: `batch` is an axis and in [common]: leave one out"
        );
        assert_eq!(
            message("--compile {compile}", ""),
            "sweep.toml: the command of PyTorch does not use its axis `compile`"
        );
        assert_eq!(
            message("= 90", "= 0"),
            "sweep.toml: `time-limit-sec` is 0, expected a number of seconds above 0"
        );
        assert!(
            message("compile = \"none\" }", "compiled = \"none\" }")
                .contains("unknown axis in `baseline` `compiled`; `compile` is meant?")
        );
        assert!(
            message("batch = [4, 8]", "batch = [4, 4]").contains("two configurations are gpt2_batch-4_precision-f32")
        );
        assert!(message("[axes]", "[axes").starts_with("sweep.toml: not valid TOML: "));
    }

    #[test]
    fn the_sweeps_of_the_repository_are_sound() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut sweeps = 0;
        for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "toml")) {
            assert!(Sweep::read(&file).unwrap().definition().unwrap().entries.len() >= 16);
            sweeps += 1;
        }
        assert!(sweeps > 0);
    }

    #[test]
    fn combinations_without_a_meaning_say_why() {
        let text = FILE
            .replace("backend = \"ndarray\"", "backend = \"cuda\"")
            .replace("precision = [\"f32\"]", "threads = [1, 2]");
        let definition = parse(&text).unwrap().definition().unwrap();
        let skipped: Vec<_> = definition
            .entries
            .iter()
            .filter_map(|entry| matches!(&entry.task, Task::Skip(_)).then_some(entry.name.as_str()))
            .collect();
        assert_eq!(skipped, ["gpt2_batch-4_threads-2", "gpt2_batch-8_threads-2"]);
    }
}
