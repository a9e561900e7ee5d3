//! What is said on standard error when a command fails: the error, its causes, a hint; and what is said of a panic.

use crate::error::{CliError, INTERNAL, USERS};
use crate::printer::quoted;
use anstyle::{AnsiColor, Style};
use gpt2_data::{DataError, Encoding, Split};
use gpt2_train::TrainError;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{self, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::{process, thread};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const CAUSE: Style = Style::new().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// Prints an error with its causes and, where one fits, the command that mends it.
pub(crate) fn report(error: &CliError) {
    if !matches!(error, CliError::ReaderGone) {
        say(&render(error, hint(error).as_deref()));
    }
}

/// Prints a line that is no error but should be seen.
pub(crate) fn warn(message: &str) {
    let style = AnsiColor::Yellow.on_default().bold();
    say(&format!("{style}warning:{style:#} {message}\n"));
}

/// Prints a line that is not part of the output, such as which device was taken.
pub(crate) fn note(message: &str) {
    let style = Style::new().dimmed();
    say(&format!("{style}{message}{style:#}\n"));
}

/// Makes a panic one line that says whose fault it is. A backtrace follows where `RUST_BACKTRACE` asks for one.
///
/// A panic on a device's thread ends the process: CubeCL would catch it and go on with tensors that nothing was written to.
pub(crate) fn install_panic_hook() {
    let backtrace = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    let default = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let message = info.payload_as_str().unwrap_or("no message");
        let out_of_memory = message.contains(OUT_OF_MEMORY);
        say(&if out_of_memory {
            describe_out_of_memory()
        } else {
            describe_panic(message, info)
        });
        if backtrace {
            default(info);
        }
        let thread = thread::current();
        let name = thread.name().unwrap_or_default();
        if DEVICE_THREADS.iter().any(|prefix| name.starts_with(prefix)) {
            process::exit(if out_of_memory { USERS } else { INTERNAL }.into());
        }
    }));
}

/// How CubeCL names the threads of a device.
const DEVICE_THREADS: [&str; 2] = ["DSD-", "DSU-"];

/// CubeCL's words when a device has no memory left, which it panics with.
const OUT_OF_MEMORY: &str = "can't allocate buffer of size";

fn describe_out_of_memory() -> String {
    format!(
        "{ERROR}error:{ERROR:#} the device has no memory left, though the step should fit: see what else uses it, or take a smaller \
         `--batch` (and raise `--grad-accum`), `--recompute block`, or a smaller `--model`\n"
    )
}

fn describe_panic(message: &str, info: &PanicHookInfo<'_>) -> String {
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let place = info.location().map(|at| format!(" at {at}")).unwrap_or_default();
    format!(
        "{ERROR}internal error:{ERROR:#} {message}{place}; this is a bug: please report it with the command line, the output of \
         `gpt2 --version` and, if it trained, the run's log.txt\n"
    )
}

/// Prints to standard error; if that is gone there is nobody left to tell.
fn say(text: &str) {
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}

fn render(error: &dyn Error, hint: Option<&str>) -> String {
    // Writing to a string cannot fail.
    let mut said = error.to_string();
    let mut text = format!("{ERROR}error:{ERROR:#} {said}\n");
    let mut source = error.source();
    while let Some(cause) = source {
        let message = cause.to_string();
        // Most messages name their cause already.
        if !said.contains(&message) {
            let _ = writeln!(text, "{CAUSE}caused by:{CAUSE:#} {message}");
            said.push_str(&message);
        }
        source = cause.source();
    }
    if let Some(hint) = hint {
        let _ = writeln!(text, "{HINT}hint:{HINT:#} {hint}");
    }
    text
}

/// What mends an error, where a command does and the message does not say it in full.
fn hint(error: &CliError) -> Option<String> {
    match error {
        CliError::Usage { hint, .. } => Some(hint.clone()),
        CliError::BackendUnavailable { .. } | CliError::NoSuchDevice { .. } => {
            Some("`gpt2 devices` lists what there is".to_owned())
        }
        CliError::Data(error) | CliError::Train(TrainError::Data(error)) => data_hint(error),
        CliError::Train(TrainError::RunDirTaken { path }) => {
            Some(format!("gpt2 train --run {} --resume", quoted(path)))
        }
        CliError::Train(TrainError::NoRun { path, .. }) => Some(format!("gpt2 train --run {}", quoted(path))),
        _ => None,
    }
}

fn data_hint(error: &DataError) -> Option<String> {
    match error {
        // A text was given where its tokens are expected.
        DataError::MissingDataDirectory { path } if path.is_file() => {
            Some(prepare_command(path, &path.with_extension("")))
        }
        DataError::MissingDataDirectory { .. } => Some("`gpt2 train` without `--data` trains on the demo".to_owned()),
        DataError::NoShards {
            split: Split::Val,
            found,
            ..
        } if found.iter().any(|name| is_training_shard(name)) => {
            Some("`--eval-every 0` trains without validation data".to_owned())
        }
        // A directory of texts was given.
        DataError::NothingPrepared { path } | DataError::NoShards { path, .. } if has_text(path) => {
            let mut out = path.as_os_str().to_owned();
            out.push("-tokens");
            Some(prepare_command(path, Path::new(&out)))
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
        DataError::OutputNotEmpty { .. } => {
            Some("`--out` names another directory, `--resume` goes on with an interrupted preparation".to_owned())
        }
        DataError::OptionsDiffer { .. } | DataError::SourcesDiffer { .. } | DataError::FinishedShardChanged { .. } => {
            Some("`--out` names another directory".to_owned())
        }
        DataError::MissingField { .. } | DataError::MissingColumn { .. } => {
            Some("`--field` names the one with the text".to_owned())
        }
        DataError::BadUtf8 { path, encoding, .. } => Some(conversion_command(path, *encoding)),
        _ => None,
    }
}

fn is_training_shard(name: &str) -> bool {
    Split::of_file_name(name) == Some(Split::Train)
}

fn has_text(dir: &Path) -> bool {
    let is_text = |path: PathBuf| {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        ["txt", "text", "md", "jsonl", "ndjson", "parquet"]
            .iter()
            .any(|known| extension == *known)
    };
    std::fs::read_dir(dir).is_ok_and(|entries| entries.flatten().any(|entry| is_text(entry.path())))
}

fn prepare_command(input: &Path, out: &Path) -> String {
    format!(
        "gpt2 data prepare --input {} --out {} --val-fraction 0.1",
        quoted(input),
        quoted(out)
    )
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

/// Writes the text of a file as UTF-8 into another next to it.
fn conversion_command(path: &Path, encoding: Encoding) -> String {
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
    let iconv = format!("iconv{drop} -f {} -t UTF-8", encoding.name());
    match unpack {
        Some(unpack) => format!("{unpack} {} | {iconv} > {converted}", quoted(path)),
        None => format!("{iconv} {} > {converted}", quoted(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anstream::adapter::strip_str;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("middle: {0}")]
    struct Middle(#[source] io::Error);

    #[test]
    fn each_cause_is_said_once() {
        let error = Outer(Middle(io::Error::other("the disk is on fire")));
        let text = strip_str(&render(&error, Some("water"))).to_string();
        assert_eq!(
            text,
            "error: outer\ncaused by: middle: the disk is on fire\nhint: water\n"
        );
    }

    #[test]
    fn a_hint_is_a_command_to_paste() {
        let path = "my runs/a".into();
        let error = CliError::Train(TrainError::RunDirTaken { path });
        assert_eq!(hint(&error).as_deref(), Some("gpt2 train --run 'my runs/a' --resume"));
        let path = "data/a/x_train_0.bin".into();
        let error = CliError::Train(TrainError::Data(DataError::EmptyShard { path }));
        assert_eq!(
            hint(&error).as_deref(),
            Some("`gpt2 data inspect data/a` lists all that is wrong")
        );
    }
    #[test]
    fn hints_for_data_use_the_users_paths() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("my.txt");
        std::fs::write(&text, "x").unwrap();
        let error = DataError::MissingDataDirectory { path: text.clone() };
        let root = dir.path().display();
        assert_eq!(
            data_hint(&error),
            Some(format!(
                "gpt2 data prepare --input {root}/my.txt --out {root}/my --val-fraction 0.1"
            ))
        );
        let error = DataError::NoShards {
            path: "data".into(),
            split: Split::Val,
            found: vec!["x_train_000000.bin".into()],
        };
        assert_eq!(
            data_hint(&error).unwrap(),
            "`--eval-every 0` trains without validation data"
        );
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
            data_hint(&error).unwrap(),
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
            std::fs::write(&path, bytes).unwrap();
            let command = conversion_command(&path, encoding);
            assert!(
                process::Command::new("sh")
                    .args(["-c", &command])
                    .status()
                    .unwrap()
                    .success()
            );
            let converted = std::fs::read_to_string(dir.path().join("a b.utf8.txt")).unwrap();
            assert_eq!(converted, text, "{command}");
        }
        assert_eq!(
            conversion_command(Path::new("a.txt.gz"), Encoding::DamagedUtf8),
            "gzip -dc a.txt.gz | iconv -c -f UTF-8 -t UTF-8 > a.utf8.txt"
        );
    }
}
