//! What fixes an error: wherever possible a command that works as it stands, with the paths that were given.

use crate::command_line::{Typed, begin_again, new_run, resume, unused_next_to};
use crate::error::CliError;
use crate::printer::quoted;
use crate::text_directory::directory_of_text;
use gpt2_backend::{BackendError, BackendKind, Unavailable};
use gpt2_data::{DataError, Encoding, Split, is_text};
use gpt2_model::{Gpt2Config, ModelError};
use gpt2_train::TrainError;
use gpt2_train::checkpoint::Checkpoints;
use gpt2_train::config::RunConfig;
use gpt2_train::error::{Difference, Quantity};
use gpt2_train::run_dir::RunPaths;
use gpt2_train::step_log::read_records;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What fixes an error, where the message does not say it in full.
pub(crate) fn hint(error: &CliError, typed: &Typed) -> Option<String> {
    match error {
        CliError::Usage { hint, .. } => Some(hint.clone()),
        CliError::Backend(error) | CliError::Train(TrainError::Backend(error)) => backend_hint(error, typed),
        CliError::Data(error) | CliError::Train(TrainError::Data(error)) => data_hint(error, typed),
        CliError::Model(error) | CliError::Train(TrainError::Model(error)) => model_hint(error, typed),
        CliError::Train(error) => train_hint(error, typed),
        #[cfg(not(feature = "hub"))]
        CliError::HubNotBuilt { .. } => Some("cargo build --release --features hub".to_owned()),
        _ => None,
    }
}

fn backend_hint(error: &BackendError, typed: &Typed) -> Option<String> {
    match error {
        BackendError::Unavailable {
            backend,
            reason: Unavailable::NotBuilt,
        } => Some(build_command(*backend)),
        BackendError::Unavailable { .. } | BackendError::NoneAvailable { .. } | BackendError::NoSuchDevice { .. } => {
            Some("`gpt2 devices` lists what there is".to_owned())
        }
        BackendError::UnsupportedPrecision { .. } => Some(typed.clone().with("--precision", "f32").line()),
        BackendError::Threads { .. } => None,
    }
}

/// The command that builds a backend in.
pub(crate) fn build_command(backend: BackendKind) -> String {
    format!("cargo build --release --features {backend}")
}

fn model_hint(error: &ModelError, typed: &Typed) -> Option<String> {
    match error {
        ModelError::UnknownPreset {
            nearest: Some(nearest), ..
        } => Some(typed.clone().with("--model", *nearest).line()),
        ModelError::NoModel { .. } => {
            // A run, or its directory of checkpoints, in the place of weights.
            let init = PathBuf::from(typed.value_of("--init")?);
            let checkpoint = last_checkpoint(&run_of(&init)?, u64::MAX)?;
            Some(typed.clone().with("--init", checkpoint).line())
        }
        _ => None,
    }
}

fn train_hint(error: &TrainError, typed: &Typed) -> Option<String> {
    match error {
        TrainError::RunDirTaken { path } => {
            let another = typed.clone().with("--run", unused_next_to(path)).line();
            Some(if has_checkpoints(path) {
                format!("`{}` goes on with it, `{another}` starts another", resume(path))
            } else {
                format!("it has no checkpoint to go on from; `{another}` starts another")
            })
        }
        TrainError::RunDirInUse { path, .. } if typed.has_switch("--resume") => {
            Some(format!("`{}` starts another such run", new_run(path, None, &[])))
        }
        TrainError::RunDirInUse { path, .. } => Some(typed.clone().with("--run", unused_next_to(path)).line()),
        TrainError::RunDirUnwritable { .. } => Some("`--run` says where the run goes".to_owned()),
        TrainError::NoRun { path, .. } => Some(no_run(path, typed)),
        TrainError::NoCheckpoint { path }
        | TrainError::CheckpointDamaged { path, .. }
        | TrainError::CheckpointIncomplete { path, .. } => {
            let run = run_of(path)?;
            Some(no_checkpoint(&run, typed))
        }
        TrainError::ResumeMismatch { path, differences } => Some(other_settings(path.parent()?, differences)),
        TrainError::NonFinite { .. } => non_finite(error, typed),
        TrainError::DiskFull { path, .. } => run_of(path).map(|run| resume(&run)),
        // As `auto` may: the ranks have different devices.
        TrainError::RanksDiffer { what, own, other, .. } if what == "batch" => {
            let smaller = own.parse::<u64>().ok()?.min(other.parse().ok()?);
            Some(typed.clone().with("--batch", smaller.to_string()).line())
        }
        TrainError::OutOfMemory {
            largest_batch: Some(largest),
            ..
        } => Some(typed.clone().with("--batch", largest.to_string()).line()),
        _ => None,
    }
}

fn has_checkpoints(run: &Path) -> bool {
    Checkpoints::open(RunPaths::new(run).checkpoints())
        .and_then(|checkpoints| checkpoints.steps())
        .is_ok_and(|steps| !steps.is_empty())
}

/// The run that a file belongs to.
fn run_of(path: &Path) -> Option<PathBuf> {
    // A `plan.toml` where the program runs is a run file rather than a run.
    let mut dirs = path.ancestors().filter(|dir| !dir.as_os_str().is_empty());
    let run = dirs.find(|dir| RunPaths::new(*dir).plan().is_file())?;
    Some(run.to_path_buf())
}

/// Where a run was looked for and is none: one that is close by, or how there comes to be one.
fn no_run(path: &Path, typed: &Typed) -> String {
    // A run that has saved nothing can be waited for, but not be gone on with.
    let fits = |run: &PathBuf| typed.command() != "train" || has_checkpoints(run);
    if let Some(run) = run_of(path).or_else(|| newest_run_in(path).filter(fits)) {
        return typed.clone().with("--run", run).line();
    }
    if typed.command() == "train" {
        return typed.clone().without_switch("--resume").line();
    }
    if path.join("config.json").is_file() {
        return typed.clone().without("--run").with("--init", path).line();
    }
    if path.exists() {
        // A new run can be made in it, but that is hardly meant.
        return "`--run` takes a directory that `gpt2 train --run` has made".to_owned();
    }
    format!("`gpt2 train --run {}` makes one", quoted(path))
}

/// The run in `dir` that was begun last, of those with a checkpoint if there are any.
fn newest_run_in(dir: &Path) -> Option<PathBuf> {
    let begun = |run: &PathBuf| -> Option<SystemTime> { fs::metadata(RunPaths::new(run).plan()).ok()?.modified().ok() };
    let runs = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    let newest = runs
        .filter_map(|run| Some((has_checkpoints(&run), begun(&run)?, run)))
        .max()?;
    Some(newest.2)
}

/// A run without a whole checkpoint: wait for the first, or begin again.
fn no_checkpoint(run: &Path, typed: &Typed) -> String {
    let paths = RunPaths::new(run);
    if typed.command() != "train" && paths.holder().is_some() {
        let every = RunConfig::from_toml_file(&paths.plan())
            .ok()
            .and_then(|plan| plan.checkpoint_every)
            .filter(|&every| every > 0);
        let when = every.map_or("when it ends".to_owned(), |every| format!("after step {every}"));
        return format!("the run is being trained and saves its first checkpoint {when}; try again then");
    }
    if !paths.holds_training() {
        return begin_again(run);
    }
    new_run(run, None, &[])
}

/// Settings that a run cannot take up on the way: a new run, from its newest weights if they fit.
fn other_settings(run: &Path, differences: &[Difference]) -> String {
    const SHAPE: [&str; 5] = ["model", "n-layer", "n-head", "n-embd", "block-size"];
    let changes_shape = differences.iter().any(|change| SHAPE.contains(&change.key.as_str()));
    let checkpoint = if changes_shape {
        None
    } else {
        last_checkpoint(run, u64::MAX)
    };
    let flags: Vec<(String, String)> = differences
        .iter()
        .map(|change| (format!("--{}", change.key), change.wanted.clone()))
        .collect();
    let mut flags: Vec<(&str, String)> = flags
        .iter()
        .map(|(flag, value)| (flag.as_str(), value.clone()))
        .collect();
    let plan = RunConfig::from_toml_file(&RunPaths::new(run).plan()).unwrap_or_default();
    let wanted = |key: &str| differences.iter().find(|change| change.key == key);
    // The plan has the old preset's sizes, which a name alone does not change.
    if let Some(preset) = wanted("model").and_then(|change| Gpt2Config::preset(&change.wanted).ok()) {
        let block_size = preset.block_size.max(plan.seq.unwrap_or(0));
        let sizes = [
            ("--n-layer", preset.n_layer),
            ("--n-head", preset.n_head),
            ("--n-embd", preset.n_embd),
            ("--block-size", block_size),
        ];
        let is_typed = |flag: &str| wanted(flag.trim_start_matches('-')).is_some();
        flags.extend(
            sizes
                .into_iter()
                .filter(|(flag, _)| !is_typed(flag))
                .map(|(flag, size)| (flag, size.to_string())),
        );
    }
    let number = |key: &str| wanted(key)?.wanted.parse::<f64>().ok();
    if let (Some(lr), Some(before), Some(min_lr), None) = (number("lr"), plan.lr, plan.min_lr, number("min-lr"))
        && min_lr > lr
    {
        flags.push(("--min-lr", rate(min_lr * lr / before)));
    }
    new_run(run, checkpoint.as_deref(), &flags)
}

/// The newest checkpoint whose step is at most `latest`; one of step 0 is no better than none.
fn last_checkpoint(run: &Path, latest: u64) -> Option<PathBuf> {
    let checkpoints = Checkpoints::open(RunPaths::new(run).checkpoints()).ok()?;
    let steps = checkpoints.steps().ok()?;
    let step = steps.into_iter().rfind(|&step| step > 0 && step <= latest)?;
    Some(checkpoints.path(step))
}

fn non_finite(error: &TrainError, typed: &Typed) -> Option<String> {
    let TrainError::NonFinite {
        what,
        step,
        lr,
        run,
        loaded,
        ..
    } = error
    else {
        return None;
    };
    if *step == 0 || (*step == 1 && *what != Quantity::ValidationLoss) {
        // No update has been made, so the learning rate is not to blame.
        return match (loaded, typed.value_of("--precision")) {
            (_, Some(precision)) if precision != "f32" => Some(typed.clone().with("--precision", "f32").line()),
            (Some(weights), _) => Some(match run_of(weights) {
                Some(run) => before_weights_broke(&run, weights, typed),
                None => format!("the weights are damaged: fetch or export {} again", quoted(weights)),
            }),
            _ => None,
        };
    }
    // What is not finite is the work of the weights of the step before; only a validation loss is of the step's own.
    let latest = before_divergence(
        run,
        if *what == Quantity::ValidationLoss {
            step - 1
        } else {
            step - 2
        },
    );
    let plan = RunConfig::from_toml_file(&RunPaths::new(run).plan()).ok()?;
    let flags = slower(*lr, plan.min_lr.unwrap_or(0.0));
    Some(new_run(run, last_checkpoint(run, latest).as_deref(), &flags))
}

/// The last step of a run, of those up to `latest`, whose weights had not begun to diverge: the loss that they gave in the
/// step after was not above that of the first step.
fn before_divergence(run: &Path, latest: u64) -> u64 {
    last_loss_not_above_the_start(run).map_or(latest, |step| latest.min(step - 1))
}

/// What was to be done with the weights of a checkpoint that are not finite, with an earlier one; else the run that made
/// them, trained more slowly.
fn before_weights_broke(run: &Path, weights: &Path, typed: &Typed) -> String {
    let step = weights
        .file_name()
        .and_then(|name| name.to_str()?.strip_prefix("step-")?.parse().ok());
    let latest = before_divergence(run, step.map_or(0, |step: u64| step.saturating_sub(1)));
    if let Some(earlier) = last_checkpoint(run, latest) {
        return typed.clone().with("--init", earlier).line();
    }
    let plan = RunConfig::from_toml_file(&RunPaths::new(run).plan()).unwrap_or_default();
    let flags = plan.lr.map(|lr| slower(lr, plan.min_lr.unwrap_or(0.0)));
    new_run(run, None, &flags.unwrap_or_default())
}

/// The last step of a run whose loss was not above that of its first step: after it the run diverged, if it did.
fn last_loss_not_above_the_start(run: &Path) -> Option<u64> {
    let records = read_records(&RunPaths::new(run).metrics()).ok()?;
    let losses: Vec<_> = records
        .iter()
        .filter_map(|record| Some((record.step, record.loss?)))
        .collect();
    let (_, start) = losses.first()?;
    let (step, _) = losses.iter().rfind(|(_, loss)| loss <= start)?;
    Some(*step)
}

/// The flags for a tenth of the learning rates.
pub(crate) fn slower(lr: f64, min_lr: f64) -> Vec<(&'static str, String)> {
    let mut flags = vec![("--lr", rate(lr / 10.0))];
    if min_lr > 0.0 {
        flags.push(("--min-lr", rate(min_lr / 10.0)));
    }
    flags
}

/// A learning rate as it is written: `6e-5`.
fn rate(rate: f64) -> String {
    // Two digits after the first are more than anyone tunes.
    let rounded: f64 = format!("{rate:.2e}").parse().unwrap_or(rate);
    format!("{rounded:e}")
}

fn data_hint(error: &DataError, typed: &Typed) -> Option<String> {
    match error {
        DataError::MissingDataDirectory { path } if path.is_file() => Some(if is_text(path) {
            prepare_then(path, &directory_of_text(path), typed)
        } else {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
            typed.clone().with("--data", dir.unwrap_or(Path::new("."))).line()
        }),
        DataError::NoShards {
            path,
            split: Split::Val,
            ..
        } if typed.command() == "train" => Some(typed.clone().with("--eval-every", "0").line()),
        DataError::NothingPrepared { path } | DataError::NoShards { path, .. }
            if RunPaths::new(path).plan().is_file() =>
        {
            let plan = RunConfig::from_toml_file(&RunPaths::new(path).plan()).ok()?;
            Some(format!("it is a run; its data is {}", quoted(&plan.data?)))
        }
        DataError::NothingPrepared { path } | DataError::NoShards { path, .. } if holds_text(path) => {
            let mut out = path.components().as_path().as_os_str().to_owned(); // without a slash at its end
            out.push("-tokens");
            Some(prepare_then(path, Path::new(&out), typed))
        }
        DataError::NothingPrepared { .. } | DataError::NoShards { .. } | DataError::MissingDataDirectory { .. }
            if typed.has_switch("--resume") =>
        {
            Some("`--data` says where the tokens of the run lie now".to_owned())
        }
        DataError::NothingPrepared { .. } | DataError::NoShards { .. } | DataError::MissingDataDirectory { .. } => {
            Some("`gpt2 data prepare --help` tells how to make data from text".to_owned())
        }
        DataError::EmptyShard { path }
        | DataError::OddSize { path, .. }
        | DataError::ShardSize { path, .. }
        | DataError::ShardChanged { path, .. }
        | DataError::ShardTokens { path, .. }
        | DataError::WrongMagic { path, .. }
        | DataError::TokenOutOfRange { path, .. }
        | DataError::NotATokenFile { path, .. }
        | DataError::ShardUnlisted { path }
        | DataError::ShardMissing { path } => {
            let dir = path.parent()?;
            Some(format!("`gpt2 data inspect {}` lists all that is wrong", quoted(dir)))
        }
        DataError::Unfinished { path, sources, options } => Some(resume_command(path, sources, options)),
        // Of a text that is trained on.
        DataError::OptionsDiffer { path, .. } if typed.command() == "train" => {
            Some(typed.clone().with("--data", path).line())
        }
        DataError::OutputNotEmpty { .. } | DataError::SourcesDiffer { .. } | DataError::FinishedShardChanged { .. }
            if typed.command() == "train" && typed.value_of("--data").is_some() =>
        {
            let text = PathBuf::from(typed.value_of("--data")?);
            Some(prepare_then(&text, &directory_of_text(&text), typed))
        }
        DataError::OutputNotEmpty { .. } => {
            Some("`--out` names another directory, `--resume` goes on with an interrupted preparation".to_owned())
        }
        DataError::OptionsDiffer { .. } | DataError::SourcesDiffer { .. } | DataError::FinishedShardChanged { .. } => {
            Some("`--out` names another directory".to_owned())
        }
        DataError::MissingField { .. } | DataError::MissingColumn { .. } => {
            Some("`--field` names the one with the text".to_owned())
        }
        DataError::BadUtf8 { path, encoding, .. } => conversion_command(path, *encoding),
        _ => None,
    }
}

/// Prepares `text`, and then does on it what was to be done.
fn prepare_then(text: &Path, out: &Path, typed: &Typed) -> String {
    let out = unused_data(out);
    let prepare = format!(
        "gpt2 data prepare --input {} --out {} --val-fraction 0.1",
        quoted(text),
        quoted(&out)
    );
    if typed.command() == "train" {
        format!("{prepare} && {}", typed.clone().with("--data", out).line())
    } else {
        prepare
    }
}

/// `out`, or the first of `out-2`, `out-3`, … that does not exist.
fn unused_data(out: &Path) -> PathBuf {
    let numbered = (2_u64..).map(|number| {
        let mut name = out.as_os_str().to_owned();
        name.push(format!("-{number}"));
        name.into()
    });
    let mut candidates = std::iter::once(out.to_path_buf()).chain(numbered);
    candidates
        .find(|candidate| !candidate.exists())
        .unwrap_or_else(|| out.to_path_buf())
}

/// What goes on with an interrupted preparation, by what its progress file says.
fn resume_command(out: &Path, sources: &[PathBuf], options: &BTreeMap<String, String>) -> String {
    /// More files than these were given as a directory or a pattern, which is shorter to repeat.
    const NAMED: usize = 8;
    if sources.len() > NAMED {
        return "run the same `gpt2 data prepare` again with `--resume`".to_owned();
    }
    let inputs: Vec<String> = sources.iter().map(|source| quoted(source)).collect();
    let mut command = format!("gpt2 data prepare --input {} --out {}", inputs.join(" "), quoted(out));
    for (option, value) in options {
        // These stand for an option that was not given.
        if !matches!(
            (option.as_str(), value.as_str()),
            ("split-documents-on", "none") | ("val-tokens", "0")
        ) {
            let _ = write!(command, " --{option} {}", quoted(Path::new(value)));
        }
    }
    command + " --resume"
}

/// Writes the text of a file, if it is one, as UTF-8 into another next to it.
fn conversion_command(path: &Path, encoding: Encoding) -> Option<String> {
    let from = encoding.name()?;
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    let unpack = match extension.to_str() {
        Some("gz") => Some("gzip -dc"),
        Some("zst") => Some("zstd -dc --long=31"),
        _ => None,
    };
    let text = if unpack.is_some() {
        path.with_extension("")
    } else {
        path.to_path_buf()
    };
    let ending = text.extension().unwrap_or_default().to_string_lossy().into_owned();
    let converted = quoted(&text.with_extension(format!("utf8.{ending}")));
    // Of UTF-8 only the damaged bytes are left out.
    let drop = if encoding == Encoding::DamagedUtf8 { " -c" } else { "" };
    let iconv = format!("iconv{drop} -f {from} -t UTF-8");
    Some(match unpack {
        Some(unpack) => format!("{unpack} {} | {iconv} > {converted}", quoted(path)),
        None => format!("{iconv} {} > {converted}", quoted(path)),
    })
}

fn holds_text(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|entries| entries.flatten().any(|entry| is_text(&entry.path())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_diverges_where_its_loss_stays_above_that_of_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let latest = |losses: &[f32]| {
            let line = |(step, loss): (usize, &f32)| {
                format!("{{\"step\":{step},\"tokens\":{step},\"loss\":{loss},\"lr\":1,\"elapsed_sec\":1}}\n")
            };
            let lines: String = (1..).zip(losses).map(line).collect();
            fs::write(RunPaths::new(dir.path()).metrics(), lines).unwrap();
            before_divergence(dir.path(), losses.len() as u64)
        };
        assert_eq!(latest(&[10.0, 11.0, 9.0, 5.0, 4.0]), 4, "noise of the first steps");
        assert_eq!(latest(&[10.0, 9.0, 8.0, 12.0, 90.0]), 2);
        assert_eq!(latest(&[10.0, 1e6, 1e7]), 0);
    }

    fn hint_of(error: impl Into<CliError>, line: &str) -> String {
        hint(&error.into(), &Typed::of(line)).unwrap_or_default()
    }

    #[test]
    fn damage_is_listed_by_inspect() {
        let path = "data/a/x_train_0.bin".into();
        let error = TrainError::Data(DataError::EmptyShard { path });
        assert_eq!(
            hint_of(error, "train"),
            "`gpt2 data inspect data/a` lists all that is wrong"
        );
    }

    #[test]
    fn the_batch_that_fits_is_a_command() {
        let error = TrainError::OutOfMemory {
            batch: 64,
            seq: 1024,
            needed_bytes: None,
            available_bytes: None,
            largest_batch: Some(48),
            may_accumulate: true,
        };
        assert_eq!(
            hint_of(error, "train --batch 64 --model gpt2"),
            "gpt2 train --model gpt2 --batch 48"
        );
    }

    #[test]
    fn a_rate_is_short() {
        assert_eq!(rate(6e-4 / 10.0), "6e-5");
        assert_eq!(rate(1.0 / 3.0), "3.33e-1");
    }

    #[test]
    fn an_interrupted_preparation_goes_on_with_its_own_options() {
        let option = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let error = DataError::Unfinished {
            path: "my data".into(),
            sources: vec!["a.txt".into(), "b.txt".into()],
            options: [
                option("field", "text"),
                option("prefix", "tokens"),
                option("shard-tokens", "100"),
                option("split-documents-on", "none"),
                option("val-fraction", "0.1"),
            ]
            .into(),
        };
        assert_eq!(
            data_hint(&error, &Typed::of("train")).unwrap(),
            "gpt2 data prepare --input a.txt b.txt --out 'my data' --field text --prefix tokens --shard-tokens 100 \
             --val-fraction 0.1 --resume"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_conversion_works_as_typed() {
        let dir = tempfile::tempdir().unwrap();
        let text = "Café au lait, naïve façade\n";
        let utf16: Vec<u8> = format!("\u{feff}{text}")
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let latin: Vec<u8> = text.chars().map(|character| character as u8).collect();
        for (bytes, encoding) in [
            (&utf16, Encoding::Utf16),
            (&utf16[2..].to_vec(), Encoding::Utf16Le),
            (&latin, Encoding::Latin1),
            (&latin, Encoding::Windows1252),
        ] {
            let path = dir.path().join("a b.txt");
            fs::write(&path, bytes).unwrap();
            let command = conversion_command(&path, encoding).unwrap();
            assert!(
                std::process::Command::new("sh")
                    .args(["-c", &command])
                    .status()
                    .unwrap()
                    .success()
            );
            let converted = fs::read_to_string(dir.path().join("a b.utf8.txt")).unwrap();
            assert_eq!(converted, text, "{command}");
        }
        assert_eq!(
            conversion_command(Path::new("a.txt.gz"), Encoding::DamagedUtf8).unwrap(),
            "gzip -dc a.txt.gz | iconv -c -f UTF-8 -t UTF-8 > a.utf8.txt"
        );
        assert_eq!(conversion_command(Path::new("a.txt"), Encoding::Binary), None);
    }
}
