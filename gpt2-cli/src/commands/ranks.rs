//! Several ranks: starting them on this host, joining them as one, and ending when one is lost.

use crate::diagnostics::{advise, error, speak_as_rank};
use crate::ending::{self, end_started, leave, started};
use crate::error::{CliError, LOST_RANK};
use crate::signals;
use gpt2_ranks::{How, Launcher, LostRank, RankInfo, Timeouts, variables_of};
use gpt2_train::config::Devices;
use gpt2_train::group::Group;
use gpt2_train::run_dir::RunPaths;
use gpt2_train::stop::StopRequest;
use gpt2_train::{TrainError, restore_terminal, wait_for_checkpoints};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Seconds after which a rank that gives no sign of life is lost, where nothing else is said.
pub(crate) const PEER_TIMEOUT: u64 = 60;

const POLL: Duration = Duration::from_millis(20);

/// How long the other ranks may take to end after one has.
const GRACE: Duration = Duration::from_secs(10);
/// What of it is left to a checkpoint that is being written.
const WRITING: Duration = Duration::from_secs(5);

/// Set for the ranks that this program starts, to its process number.
const STARTED_BY: &str = "GPT2_RANKS_PARENT";

/// The run of this rank, once it is decided: where the way back is.
static RUN: OnceLock<RunPaths> = OnceLock::new();

/// Who this process is among several, if a launcher has started it as one.
///
/// # Errors
/// That the launcher's variables make no sense.
pub(crate) fn detect() -> Result<Option<RankInfo>, CliError> {
    if let Some(rank) = std::env::var("RANK").ok().and_then(|rank| rank.parse().ok()) {
        speak_as_rank(rank);
    }
    let info = RankInfo::detect(|name| std::env::var(name).ok()).map_err(TrainError::from)?;
    if let Some(info) = &info {
        speak_as_rank(info.rank);
    }
    Ok(info)
}

/// Joins the other ranks. From now on this process ends with [`LOST_RANK`] when one of them is lost.
///
/// # Errors
/// That they do not all come.
pub(crate) fn join(info: RankInfo, peer_timeout: u64) -> Result<Group, CliError> {
    if info.launcher == Launcher::Gpt2 {
        follow_launcher()?;
    }
    let timeouts = Timeouts {
        peer: Duration::from_secs(peer_timeout),
        ..Timeouts::default()
    };
    ending::become_rank();
    let rank = info.rank;
    let program = format!("gpt2 {}", crate::version::VERSION);
    Ok(Group::join(info, program, timeouts, move |lost| end(rank, lost))?)
}

/// Remembers where the way back is, should a rank be lost.
pub(crate) fn remember(run: RunPaths) {
    let _ = RUN.set(run);
}

/// Waits for the thread that watches the ranks, which has more to say and ends the process.
pub(crate) fn wait_for_end() {
    thread::sleep(GRACE);
}

/// Says which rank is lost, and ends the process without a word to the device's libraries, which may wait for that rank.
fn end(rank: usize, lost: &LostRank) {
    wait_for_checkpoints(WRITING);
    let way_back = match RUN.get().and_then(RunPaths::newest_checkpoint) {
        Some(checkpoint) => format!("newest checkpoint {}; go on with --resume", checkpoint.display()),
        None => "there is no checkpoint yet".to_owned(),
    };
    let message = format!("{lost}; {way_back}");
    restore_terminal();
    let speaker = usize::from(lost.rank == 0);
    // Rank 0 says its own error itself.
    if rank == speaker && !(lost.rank == 0 && matches!(lost.how, How::Failed(_))) {
        error(&message);
    }
    if let Some(run) = RUN.get() {
        let path = if rank == 0 { run.log() } else { run.rank_log(rank) };
        // The disk may be what has failed.
        if let Ok(mut log) = OpenOptions::new().append(true).open(path) {
            let _ = writeln!(log, "{message}");
        }
    }
    leave(LOST_RANK.into());
}

/// Stops when the launcher passes a signal on, or is gone.
#[cfg(unix)]
fn follow_launcher() -> Result<(), CliError> {
    signals::heed_launcher()?;
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        let _ = set_parent_process_death_signal(Some(Signal::TERM));
        let parent = std::env::var(STARTED_BY).ok().and_then(|id| id.parse::<i32>().ok());
        let found = getppid().map(|id| id.as_raw_nonzero().get());
        if parent.is_some() && parent != found {
            leave(LOST_RANK.into());
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn follow_launcher() -> Result<(), CliError> {
    Ok(())
}

/// Starts this command once for each of `devices`, as ranks of each other, and waits for them.
///
/// # Errors
/// [`CliError::RanksEnded`] if they fail, which they say themselves.
pub(crate) fn launch(devices: &Devices) -> Result<(), CliError> {
    let stop = StopRequest::default();
    let _registered = signals::stop_on_signals(&stop);
    let _ranks = Started::start(devices.ranks())?;
    let mut is_told = false;
    let mut first_failed: Option<Instant> = None;
    loop {
        let ended = ended();
        if ended.iter().all(Option::is_some) {
            break;
        }
        if stop.requested_by().is_some() && !std::mem::replace(&mut is_told, true) {
            pass_on();
        }
        if first_failed.is_none() && ended.iter().flatten().any(|status| !status.success()) {
            first_failed = Some(Instant::now());
        }
        if first_failed.is_some_and(|at| at.elapsed() > GRACE) {
            drop(end_started());
        }
        thread::sleep(POLL);
    }
    let ended: Vec<ExitStatus> = ended().into_iter().flatten().collect();
    match exit_code(&ended.iter().map(ExitStatus::code).collect::<Vec<_>>()) {
        0 => Ok(()),
        code => {
            // The two of whom one would have spoken for all.
            if ended.iter().take(2).all(|status| status.code().is_none()) {
                error(&format!(
                    "rank 0 and rank 1 were ended from outside ({}, {})",
                    ended[0], ended[1]
                ));
                advise("the newest checkpoint stands: go on with --resume");
            }
            Err(CliError::RanksEnded { code })
        }
    }
}

/// What the ranks' exit codes come to; one that was ended by a signal has none.
fn exit_code(codes: &[Option<i32>]) -> u8 {
    let first = codes
        .first()
        .copied()
        .flatten()
        .and_then(|code| u8::try_from(code).ok());
    match first {
        Some(code) if codes.iter().all(|other| *other == Some(code.into())) => code,
        _ => LOST_RANK,
    }
}

/// How each has ended, if it has.
fn ended() -> Vec<Option<ExitStatus>> {
    started()
        .iter_mut()
        .map(|rank| rank.try_wait().ok().flatten())
        .collect()
}

/// Asks those that are left to stop.
fn pass_on() {
    #[cfg(unix)]
    for rank in started().iter_mut() {
        use rustix::process::{Pid, kill_process};
        if let (Ok(None), Some(process)) = (rank.try_wait(), Pid::from_raw(rank.id().cast_signed())) {
            // It may have ended meanwhile.
            let _ = kill_process(process, signals::PASSED_ON);
        }
    }
}

/// Has started ranks. None outlives this.
struct Started;

impl Started {
    fn start(world_size: usize) -> Result<Self, CliError> {
        let program = std::env::current_exe().map_err(|source| CliError::OwnProgram { source })?;
        let infos =
            RankInfo::of_this_host(world_size).map_err(|source| CliError::RankNotStarted { rank: 0, source })?;
        let ranks = Self;
        for info in infos {
            let rank = info.rank;
            let mut command = Command::new(&program);
            command
                .args(std::env::args_os().skip(1))
                .envs(variables_of(&info))
                .env(STARTED_BY, std::process::id().to_string());
            if rank > 0 {
                command.stdin(Stdio::null()).stdout(Stdio::null());
            }
            let child = command
                .spawn()
                .map_err(|source| CliError::RankNotStarted { rank, source })?;
            started().push(child);
        }
        Ok(ranks)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        for mut rank in end_started().drain(..) {
            let _ = rank.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_code_of_all_is_passed_on() {
        assert_eq!(exit_code(&[Some(0), Some(0)]), 0);
        assert_eq!(exit_code(&[Some(1), Some(1)]), 1);
        assert_eq!(exit_code(&[Some(1), Some(3)]), LOST_RANK);
        assert_eq!(exit_code(&[Some(3), None]), LOST_RANK);
        assert_eq!(exit_code(&[None, None]), LOST_RANK);
    }
}
