//! Signs of life between the ranks, and the news that one is lost: ranks that wait for each other inside a device's library
//! would never return.

use crate::error::RanksError;
use crate::frame::{self, ANY_LENGTH};
use crate::lost::{How, LostRank};
use crate::rendezvous::{Identity, Peer};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

const BEAT: Duration = Duration::from_secs(1);

/// A sign of life that cannot be written within this long is given up.
const WRITE: Duration = Duration::from_secs(5);

/// How long the news of a loss may take to the others before this rank leaves.
const NEWS: Duration = Duration::from_millis(100);

/// How long after a connection has failed it must be known which rank is lost.
const VERDICT: Duration = Duration::from_secs(5);

/// What the ranks tell each other at all times.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// A sign of life, and the step that the rank is in.
    Beat(u64),
    /// The rank ends with this error.
    Failed(String),
    /// Another rank is lost; from rank 0.
    Lost(LostRank),
    /// Something that rank 0 collects.
    Note(String),
    /// The rank has nothing left to do.
    Done,
}

/// Watches the other ranks from threads of its own. Clones watch the same ones.
#[derive(Clone)]
pub struct Monitor(Arc<Shared>);

struct Shared {
    rank: usize,
    /// On rank 0 all others, else rank 0.
    watched: Vec<Watched>,
    /// The step that this rank is in.
    step: AtomicU64,
    /// This rank ends by itself: what becomes of the others is not its business any more.
    is_leaving: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    on_loss: Box<dyn Fn(&LostRank) + Send + Sync>,
}

#[derive(Default)]
struct State {
    lost: Option<LostRank>,
    /// How many of those that are watched have nothing left to do.
    done: usize,
    notes: Vec<(usize, String)>,
}

struct Watched {
    identity: Identity,
    control: Mutex<TcpStream>,
    /// Closed at a loss, so that whoever waits for it goes on.
    data: TcpStream,
    step: AtomicU64,
}

impl Monitor {
    /// Watches `peers`. `on_loss` is called once, from another thread, as soon as a rank is lost.
    pub(crate) fn start(
        rank: usize,
        peers: &[Peer],
        timeout: Duration,
        on_loss: impl Fn(&LostRank) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let watched = peers.iter().map(|peer| {
            let control = peer.control.try_clone()?;
            control.set_write_timeout(Some(WRITE))?;
            Ok(Watched {
                identity: peer.identity.clone(),
                control: Mutex::new(control),
                data: peer.data.try_clone()?,
                step: AtomicU64::new(0),
            })
        });
        let monitor = Self(Arc::new(Shared {
            rank,
            watched: watched.collect::<io::Result<_>>()?,
            step: AtomicU64::new(0),
            is_leaving: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
            on_loss: Box::new(on_loss),
        }));
        for (nth, peer) in peers.iter().enumerate() {
            let control = peer.control.try_clone()?;
            control.set_read_timeout(Some(timeout))?;
            let shared = Arc::downgrade(&monitor.0);
            let listen = move || listen(control, &shared, nth, timeout);
            thread::Builder::new().name("ranks".into()).spawn(listen)?;
        }
        let shared = Arc::downgrade(&monitor.0);
        let every = BEAT.min(timeout / 4);
        let beat = move || {
            while let Some(shared) = shared.upgrade() {
                shared.tell_all(&Message::Beat(shared.step.load(Ordering::Relaxed)));
                drop(shared);
                thread::sleep(every);
            }
        };
        thread::Builder::new().name("heartbeat".into()).spawn(beat)?;
        Ok(monitor)
    }

    /// This rank begins `step`.
    pub fn at_step(&self, step: u64) {
        self.0.step.store(step, Ordering::Relaxed);
    }

    /// Gives rank 0 something to collect, without waiting for it.
    pub fn note(&self, note: String) {
        if self.0.rank == 0 {
            self.0.state().notes.push((0, note));
        } else {
            self.0.tell_all(&Message::Note(note));
        }
    }

    /// What has been collected since the last call: the rank, and its note.
    pub fn take_notes(&self) -> Vec<(usize, String)> {
        std::mem::take(&mut self.0.state().notes)
    }

    /// Tells the others that this rank ends with an error. Nothing is watched any more.
    pub fn fail(&self, message: &str) {
        if !self.0.is_leaving.swap(true, Ordering::SeqCst) {
            self.0.tell_all(&Message::Failed(message.to_owned()));
        }
    }

    /// Waits until every rank has nothing left to do. Nothing is watched any more.
    ///
    /// # Errors
    /// [`RanksError::Lost`] if one is lost before.
    pub fn finish(&self) -> Result<(), RanksError> {
        let shared = &self.0;
        if shared.rank != 0 {
            shared.tell_all(&Message::Done);
        }
        let mut state = shared.state();
        loop {
            if let Some(lost) = &state.lost {
                return Err(RanksError::Lost(lost.clone()));
            }
            if state.done == shared.watched.len() {
                break;
            }
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        shared.is_leaving.store(true, Ordering::SeqCst);
        if shared.rank == 0 {
            shared.tell_all(&Message::Done);
        }
        Ok(())
    }

    /// What `message`, the error of a device's sum over the ranks, comes from: usually of a lost rank, as
    /// [`RanksError::Lost`] says.
    pub fn cause(&self, message: String) -> RanksError {
        self.verdict(io::Error::other(message))
    }

    /// What `error` of a connection comes from: usually of a lost rank, which the threads are about to notice.
    pub(crate) fn verdict(&self, error: io::Error) -> RanksError {
        let until = Instant::now() + VERDICT;
        let mut state = self.0.state();
        loop {
            if let Some(lost) = &state.lost {
                return RanksError::Lost(lost.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return error.into();
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Monitor")
    }
}

impl Drop for Shared {
    /// Ends the threads, which wait for what the others say; those see that this rank is gone.
    fn drop(&mut self) {
        for watched in &self.watched {
            let control = watched.control.lock().unwrap_or_else(PoisonError::into_inner);
            // They may be closed already.
            let _ = control.shutdown(Shutdown::Both);
            let _ = watched.data.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all that are watched; one that is not there any more is noticed by whoever listens to it.
    fn tell_all(&self, message: &Message) {
        for watched in &self.watched {
            watched.tell(message);
        }
    }

    fn lose(&self, lost: &LostRank) {
        if self.is_leaving.load(Ordering::SeqCst) {
            return;
        }
        {
            let mut state = self.state();
            if state.lost.is_some() {
                return;
            }
            state.lost = Some(lost.clone());
        }
        self.changed.notify_all();
        if self.rank == 0 {
            let news = Message::Lost(lost.clone());
            let others = self.watched.iter().filter(|watched| watched.identity.rank != lost.rank);
            others.for_each(|watched| watched.tell(&news));
            thread::sleep(NEWS);
        }
        (self.on_loss)(lost);
        for watched in &self.watched {
            // It may be closed already.
            let _ = watched.data.shutdown(Shutdown::Both);
        }
    }
}

impl Watched {
    fn tell(&self, message: &Message) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = frame::write_json(&mut *control, message);
    }

    fn lost(&self, how: How) -> LostRank {
        LostRank {
            rank: self.identity.rank,
            host: self.identity.host.clone(),
            pid: self.identity.pid,
            step: self.step.load(Ordering::Relaxed),
            how,
        }
    }
}

/// Listens to one of the ranks that are watched until it is done or lost.
fn listen(mut control: TcpStream, shared: &Weak<Shared>, nth: usize, timeout: Duration) {
    loop {
        let heard = frame::read_json::<Message>(&mut control, ANY_LENGTH);
        let Some(shared) = shared.upgrade() else { return };
        let watched = &shared.watched[nth];
        match heard {
            Ok(Message::Beat(step)) => watched.step.store(step, Ordering::Relaxed),
            Ok(Message::Note(note)) => shared.state().notes.push((watched.identity.rank, note)),
            Ok(Message::Done) => {
                shared.state().done += 1;
                shared.changed.notify_all();
                return;
            }
            Ok(Message::Failed(message)) => return shared.lose(&watched.lost(How::Failed(message))),
            Ok(Message::Lost(lost)) => return shared.lose(&lost),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return shared.lose(&watched.lost(How::Silent(timeout.as_secs())));
            }
            Err(_) => return shared.lose(&watched.lost(How::Gone)),
        }
    }
}
