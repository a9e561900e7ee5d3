//! A process of its own for a configuration: its output goes to files, and it ends at its time limit or when asked.

use crate::error::BenchError;
use gpt2_train::TrainError;
use gpt2_train::stop::StopRequest;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);

/// How long a process that was asked to end may take.
const GRACE: Duration = Duration::from_secs(5);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// At its time limit.
    TimedOut,
}

/// The variable by which the processes of a run of a study are known, with those that they have started.
const RUN: &str = "GPT2_STUDY_RUN";

/// Marks the processes of the run in `dir`.
pub(crate) fn mark(command: &mut Command, dir: &Path) {
    command.env(RUN, whole(dir));
}

/// The path from the root, as no other run has it.
fn whole(dir: &Path) -> PathBuf {
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned())
}

/// Ends what is left of the run in `dir` by a study that was killed: it would compete with the run that follows. Linux
/// alone tells which processes those are.
pub(crate) fn end_leftovers(dir: &Path) {
    let mark = format!("{RUN}={}", whole(dir).display());
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return;
    };
    for process in processes.flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let environment = std::fs::read(process.path().join("environ")).unwrap_or_default();
        if environment
            .split(|&byte| byte == 0)
            .any(|variable| variable == mark.as_bytes())
        {
            kill(id);
        }
    }
}

#[cfg(unix)]
fn kill(id: u32) {
    use rustix::process::{Pid, Signal, kill_process};
    if let Some(process) = Pid::from_raw(id.cast_signed()) {
        let _ = kill_process(process, Signal::KILL);
    }
}

#[cfg(not(unix))]
fn kill(_: u32) {}

/// Runs `command` with its output in the two files, and the time that it took.
///
/// # Errors
/// If it cannot be started, and [`BenchError::Stopped`] if the study was asked to stop: the process is ended then.
pub(crate) fn run(
    command: &mut Command,
    [stdout, stderr]: [&Path; 2],
    limit: Duration,
    stop: &StopRequest,
) -> Result<(Ended, Duration), BenchError> {
    let file = |path: &Path| File::create(path).map_err(|source| TrainError::io("create", path, source));
    command.stdin(Stdio::null()).stdout(file(stdout)?).stderr(file(stderr)?);
    own_group(command);
    let began = Instant::now();
    let mut child = command.spawn().map_err(|source| BenchError::NotStarted {
        program: command.get_program().to_string_lossy().into_owned(),
        source,
    })?;
    loop {
        if let Some(status) = wait(&mut child)? {
            return Ok((Ended::Exited(status), began.elapsed()));
        }
        if let Some(by) = stop.requested_by() {
            end(&mut child)?;
            return Err(BenchError::Stopped { by });
        }
        if began.elapsed() >= limit {
            end(&mut child)?;
            return Ok((Ended::TimedOut, began.elapsed()));
        }
        thread::sleep(POLL);
    }
}

fn wait(child: &mut Child) -> Result<Option<ExitStatus>, BenchError> {
    child.try_wait().map_err(|source| BenchError::NotStarted {
        program: "a process of the study".to_owned(),
        source,
    })
}

/// Asks the process and all that it has started to end, and ends them if they do not.
fn end(child: &mut Child) -> Result<(), BenchError> {
    signal(child, Signal::Terminate);
    let asked = Instant::now();
    while asked.elapsed() < GRACE {
        if wait(child)?.is_some() {
            break;
        }
        thread::sleep(POLL);
    }
    signal(child, Signal::Kill);
    // Only what cannot be waited for is left then.
    let _ = child.wait();
    Ok(())
}

#[derive(Clone, Copy)]
enum Signal {
    Terminate,
    Kill,
}

/// Makes the process the head of a group, so that what it starts ends with it. A Ctrl-C at the terminal does not reach the
/// group: the study ends it.
#[cfg(unix)]
fn own_group(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    command.process_group(0);
}

#[cfg(unix)]
fn signal(child: &mut Child, signal: Signal) {
    use rustix::process::{Pid, Signal as Unix, kill_process_group};
    let signal = match signal {
        Signal::Terminate => Unix::TERM,
        Signal::Kill => Unix::KILL,
    };
    if let Some(group) = Pid::from_raw(child.id().cast_signed()) {
        // A group that is gone needs no signal.
        let _ = kill_process_group(group, signal);
    }
}

#[cfg(not(unix))]
fn own_group(_: &mut Command) {}

#[cfg(not(unix))]
fn signal(child: &mut Child, _: Signal) {
    let _ = child.kill();
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration, stop: &StopRequest) -> (Result<(Ended, Duration), BenchError>, String) {
        let dir = tempfile::tempdir().unwrap();
        let [out, err] = ["out", "err"].map(|name| dir.path().join(name));
        let ended = run(Command::new("sh").args(["-c", script]), [&out, &err], limit, stop);
        (ended, std::fs::read_to_string(out).unwrap())
    }

    #[test]
    fn the_output_of_a_process_is_kept() {
        let (ended, output) = shell("echo a; exit 3", Duration::from_mins(1), &StopRequest::default());
        let (Ended::Exited(status), _) = ended.unwrap() else {
            panic!("it ended")
        };
        assert_eq!((status.code(), output.as_str()), (Some(3), "a\n"));
    }

    #[test]
    fn a_process_that_hangs_is_ended_with_its_children() {
        let script = "trap '' TERM; sleep 600 & echo $!; wait; sleep 600";
        let (ended, output) = shell(script, Duration::from_millis(300), &StopRequest::default());
        assert_eq!(ended.unwrap().0, Ended::TimedOut);
        let sleeping = PathBuf::from(format!("/proc/{}/cmdline", output.trim()));
        // What is left of a process that has ended has no command line. A signal takes a moment to end one.
        let began = Instant::now();
        while !std::fs::read(&sleeping).unwrap_or_default().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(10), "its child still sleeps");
            thread::sleep(POLL);
        }
    }

    #[test]
    fn a_study_that_is_stopped_leaves_no_process() {
        let stop = StopRequest::default();
        stop.stop("a test");
        let (ended, _) = shell("sleep 600", Duration::from_mins(1), &stop);
        assert!(matches!(ended, Err(BenchError::Stopped { .. })));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_killed_study_left_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600; true"]);
        mark(&mut command, dir.path());
        let mut left = command.spawn().unwrap();
        thread::sleep(Duration::from_millis(100));
        end_leftovers(&dir.path().join("another"));
        assert!(left.try_wait().unwrap().is_none());
        end_leftovers(dir.path());
        assert!(!left.wait().unwrap().success());
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let [out, err] = ["out", "err"].map(|name| dir.path().join(name));
        let mut command = Command::new("no-such-program");
        let error = run(
            &mut command,
            [&out, &err],
            Duration::from_secs(1),
            &StopRequest::default(),
        )
        .unwrap_err();
        assert!(
            error.to_string().starts_with("cannot start no-such-program: "),
            "{error}"
        );
    }
}
