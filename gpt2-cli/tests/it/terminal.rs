//! `gpt2 train` under a terminal, without one, and with signals.

use crate::support::{prepared, write_tiny};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::ptr::null_mut;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a program sends to take over the screen.
const ALTERNATE_SCREEN: &str = "\u{1b}[?1049h";
const RIGHT: &[u8] = b"\x1b[C";

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The two ends of a new terminal: ours and the program's.
fn open_terminal() -> (File, OwnedFd) {
    let size = libc::winsize {
        ws_row: 40,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let (mut ours, mut theirs) = (-1, -1);
    // SAFETY: the pointers are to values that live through the call; it takes no name and no modes.
    let opened = unsafe { libc::openpty(&raw mut ours, &raw mut theirs, null_mut(), null_mut(), &raw const size) };
    assert_eq!(opened, 0, "{}", io::Error::last_os_error());
    // A process that has our end as well would keep the terminal alive.
    // SAFETY: the descriptor was just opened, and gets a flag that takes nothing from anyone.
    let marked = unsafe { libc::fcntl(ours, libc::F_SETFD, libc::FD_CLOEXEC) };
    assert_eq!(marked, 0, "{}", io::Error::last_os_error());
    // SAFETY: both were just opened for us alone.
    unsafe { (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) }
}

/// How the command is started on the terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// As a shell starts a command.
    Foreground,
    /// As a shell with job control starts a command with `&`.
    Background,
    /// The terminal is only where it writes.
    NoControllingTerminal,
}

/// A process that is gone with the test, whatever comes of that.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is none to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the command on a new terminal; the process, our end of the terminal, and the directory. `errors` is standard
/// error instead of the terminal.
fn start_on_terminal(start: Start, term: Option<&str>, steps: u64, errors: Option<File>) -> (Process, File, TempDir) {
    let dir = tempdir().unwrap();
    prepared(dir.path());
    write_tiny(dir.path());
    let (keyboard, terminal) = open_terminal();
    let gpt2 = env!("CARGO_BIN_EXE_gpt2");
    let mut command = if start == Start::Background {
        let mut shell = Command::new("sh");
        shell.args(["-c", "set -m; \"$@\" & wait $!", "sh", gpt2]);
        shell
    } else {
        Command::new(gpt2)
    };
    command.args("train --config tiny.toml --data data --run run --eval-every 0 --checkpoint-every 0".split(' '));
    command.args(["--log-every", "1", "--steps", &steps.to_string()]);
    command
        .current_dir(dir.path())
        .env_remove("TERM")
        .env_remove("RUST_BACKTRACE");
    command.envs(term.map(|term| ("TERM", term)));
    command.stdin(if start == Start::NoControllingTerminal {
        Stdio::null()
    } else {
        terminal.try_clone().unwrap().into()
    });
    command.stdout(terminal.try_clone().unwrap());
    command.stderr(errors.map_or_else(|| Stdio::from(terminal), Stdio::from));
    // SAFETY: all are system calls that may be made between fork and exec, and standard input is open.
    unsafe {
        command.pre_exec(move || {
            // As a terminal starts it, also where the tests were started with `nohup` or in the background of a script.
            for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
                libc::signal(signal, libc::SIG_DFL);
            }
            let has_own = start != Start::NoControllingTerminal;
            if libc::setsid() < 0 || (has_own && libc::ioctl(0, libc::TIOCSCTTY, 0) < 0) {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let child = command.spawn().unwrap();
    drop(command); // closes the terminal on this side
    (Process(child), keyboard, dir)
}

/// The command on a terminal, and all that it has shown.
struct Session {
    process: Process,
    keyboard: File,
    shown: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
    dir: TempDir,
}

impl Session {
    fn start(start: Start, term: Option<&str>, steps: u64) -> Self {
        let (process, keyboard, dir) = start_on_terminal(start, term, steps, None);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut screen, kept) = (keyboard.try_clone().unwrap(), Arc::clone(&shown));
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end is an error: no process has the terminal open any more.
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                kept.lock().unwrap().extend(&bytes[..count]);
            }
        });
        Self {
            process,
            keyboard,
            shown,
            reader,
            dir,
        }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    fn wait_for(&self, text: &str) {
        wait_until(text, || self.shown().contains(text));
    }

    fn type_keys(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// Waits for the end, and gives the exit code, all that was shown, and the directory.
    fn end(mut self) -> (Option<i32>, String, TempDir) {
        let mut status = None;
        wait_until("the end", || {
            status = self.process.0.try_wait().unwrap();
            status.is_some()
        });
        drop(self.keyboard);
        self.reader.join().unwrap();
        let shown = String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned();
        (status.and_then(|status| status.code()), shown, self.dir)
    }
}

#[test]
fn lines_where_the_dashboard_cannot_be() {
    let cases = [
        (Start::Foreground, Some("dumb")),
        (Start::Foreground, None),
        (Start::Background, Some("xterm")),
        (Start::NoControllingTerminal, Some("xterm")),
    ];
    for (number, (start, term)) in cases.into_iter().enumerate() {
        let (code, shown, _) = Session::start(start, term, 2).end();
        assert_eq!(code, Some(0), "case {number}: {shown}");
        assert!(!shown.contains(ALTERNATE_SCREEN), "case {number}: {shown:?}");
        assert!(shown.contains("Finished: 2 steps"), "case {number}: {shown}");
        assert!(!shown.contains("error"), "case {number}: {shown}");
    }
}

#[test]
fn q_in_the_dashboard_saves_and_leaves() {
    let mut session = Session::start(Start::Foreground, Some("xterm"), 1_000_000);
    session.wait_for(ALTERNATE_SCREEN);
    session.wait_for("Quit");
    session.type_keys(RIGHT);
    session.type_keys(b"q");
    let (code, shown, dir) = session.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains(" by the key q; everything is saved."), "{shown}");
    assert!(!shown.contains("panic") && !shown.contains("Kill"), "{shown}");
    assert!(shown.contains("\u{1b}[?1049l"), "{shown:?}");
    let checkpoints = fs::read_dir(dir.path().join("run/checkpoints")).unwrap();
    assert_eq!(checkpoints.count(), 1);
}

#[test]
fn ctrl_c_in_the_dashboard_does_too() {
    let mut session = Session::start(Start::Foreground, Some("xterm"), 1_000_000);
    session.wait_for("Quit");
    session.type_keys(b"\x03");
    let (code, shown, _) = session.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains(" by SIGINT; everything is saved."), "{shown}");
}

#[test]
fn a_terminal_that_goes_away_saves_and_leaves() {
    for is_errors_in_file in [false, true] {
        let place = tempdir().unwrap();
        let errors = place.path().join("errors");
        let file = is_errors_in_file.then(|| File::create(&errors).unwrap());
        let (mut process, mut terminal, dir) = start_on_terminal(Start::Foreground, Some("xterm"), 1_000_000, file);
        let (mut shown, mut bytes) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&shown).contains("Quit") {
            let count = terminal.read(&mut bytes).unwrap();
            shown.extend(&bytes[..count]);
        }
        drop(terminal);
        let mut status = None;
        wait_until("the end", || {
            status = process.0.try_wait().unwrap();
            status.is_some()
        });
        let said = fs::read_to_string(&errors).unwrap_or_default();
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{status:?}: {said}");
        assert!(!said.contains("error"), "{said}");
        assert!(!dir.path().join("run/run.lock").exists());
        let checkpoints = fs::read_dir(dir.path().join("run/checkpoints")).unwrap();
        assert_eq!(checkpoints.count(), 1, "a whole one, and no part of another");
    }
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let dir = tempdir().unwrap();
    prepared(dir.path());
    write_tiny(dir.path());
    let line = "trap '' HUP INT; exec \"$@\" --config tiny.toml --data data --run run --steps 1000000 --eval-every 0";
    let child = Command::new("sh")
        .args(["-c", line, "sh", env!("CARGO_BIN_EXE_gpt2"), "train"])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let send = |signal| {
        // SAFETY: the child has not been waited for, so that the number is its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    };
    let metrics = dir.path().join("run/metrics.jsonl");
    let steps = || fs::read(&metrics).map_or(0, |bytes| bytes.len());
    wait_until("the first step", || steps() > 0);
    for signal in [libc::SIGHUP, libc::SIGINT] {
        send(signal);
        let before = steps();
        wait_until("another step", || steps() > before);
    }
    send(libc::SIGTERM);
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(shown.contains(" by SIGTERM; everything is saved."), "{shown}");
}
