//! What is said on standard error when a command fails: the error, its causes, a hint; and what is said of a panic.

use crate::command_line::Typed;
use crate::error::{CliError, INTERNAL, USERS};
use crate::hints;
use anstyle::{AnsiColor, Style};
use gpt2_backend::{is_device_thread, is_out_of_memory};
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{self, PanicHookInfo};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::{process, thread};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const CAUSE: Style = Style::new().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();

/// The number of this rank, of several.
static RANK: OnceLock<usize> = OnceLock::new();

/// Of several ranks this is number `rank`: rank 0 speaks for all, and what another has to say begins with its number.
pub(crate) fn speak_as_rank(rank: usize) {
    let _ = RANK.set(rank);
}

/// Whether another rank says what all have to say.
pub(crate) fn is_spoken_for() -> bool {
    RANK.get().is_some_and(|rank| *rank > 0)
}

/// The exit status of a device that has no memory left; a process of a study has one of its own.
static OUT_OF_MEMORY_STATUS: AtomicU8 = AtomicU8::new(USERS);

/// Makes the process end with `status` where a device has no memory left.
pub(crate) fn on_out_of_memory(status: u8) {
    OUT_OF_MEMORY_STATUS.store(status, Ordering::Relaxed);
}

/// Prints an error with its causes and, where there is one, the command that fixes it.
pub(crate) fn report(error: &CliError) {
    let is_said = error.is_silent() || (is_spoken_for() && error.is_known_to_rank_0());
    if !is_said {
        say(&render(error, hints::hint(error, &Typed::here()).as_deref()));
    }
}

/// Prints a line that is no error but should be seen.
pub(crate) fn warn(message: &str) {
    if is_spoken_for() {
        return;
    }
    let style = AnsiColor::Yellow.on_default().bold();
    say(&format!("{style}warning:{style:#} {message}\n"));
}

/// Prints what to do about a line before it.
pub(crate) fn advise(message: &str) {
    if is_spoken_for() {
        return;
    }
    say(&format!("{HINT}hint:{HINT:#} {message}\n"));
}

/// Prints a line that is not part of the output, such as which device was taken.
pub(crate) fn note(message: &str) {
    if is_spoken_for() {
        return;
    }
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
        let out_of_memory = is_out_of_memory(message);
        say(&if out_of_memory {
            describe_out_of_memory()
        } else {
            describe_panic(message, info)
        });
        if backtrace {
            default(info);
        }
        if thread::current().name().is_some_and(is_device_thread) {
            let out_of_memory_status = OUT_OF_MEMORY_STATUS.load(Ordering::Relaxed);
            process::exit(if out_of_memory { out_of_memory_status } else { INTERNAL }.into());
        }
    }));
}

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

/// Prints an error that is not what ends this process by itself.
pub(crate) fn error(message: &str) {
    say(&format!("{ERROR}error:{ERROR:#} {message}\n"));
}

/// Prints to standard error; if that is gone there is no one left to tell.
fn say(text: &str) {
    let prefixed = match RANK.get() {
        Some(rank) if *rank > 0 => {
            let lines: Vec<String> = text.lines().map(|line| format!("[rank {rank}] {line}")).collect();
            lines.join("\n") + "\n"
        }
        _ => text.to_owned(),
    };
    let _ = anstream::stderr().lock().write_all(prefixed.as_bytes());
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
}
