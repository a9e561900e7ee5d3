//! How ranks meet: rank 0 listens until all are there, and the others come to it with what proves that they are of its run.

use crate::environment::RankInfo;
use crate::error::RanksError;
use crate::frame::{self, LONGEST_HELLO};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};
use sysinfo::System;

const POLL: Duration = Duration::from_millis(10);

/// How long a caller may take to say who it is.
const HELLO: Duration = Duration::from_secs(5);

/// How long to wait for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For all ranks to come.
    pub rendezvous: Duration,
    /// For a sign of life of a rank that has come.
    pub peer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            rendezvous: Duration::from_mins(2),
            peer: Duration::from_mins(1),
        }
    }
}

/// A rank, as others name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) rank: usize,
    pub(crate) host: String,
    pub(crate) pid: u32,
}

impl Identity {
    fn own(rank: usize) -> Self {
        Self {
            rank,
            host: System::host_name().unwrap_or_else(|| "unknown".to_owned()),
            pid: std::process::id(),
        }
    }
}

/// Another rank, and the ways to it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) identity: Identity,
    /// Signs of life, and the news of a loss.
    pub(crate) control: TcpStream,
    /// What is exchanged.
    pub(crate) data: TcpStream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Channel {
    Control,
    Data,
}

/// What a rank says when it comes.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    token: String,
    identity: Identity,
    channel: Channel,
}

/// What rank 0 answers.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// The rank is of this run.
    Heard,
    /// It is not, or not all ranks have come.
    Refused(String),
    /// All ranks are there.
    Welcome(Identity),
}

/// Meets the other ranks: rank 0 gets all others in their order, the others get rank 0.
pub(crate) fn meet(info: &RankInfo, timeouts: Timeouts) -> Result<Vec<Peer>, RanksError> {
    let addresses: Vec<SocketAddr> = (info.host.as_str(), info.port)
        .to_socket_addrs()
        .map_err(|source| RanksError::Host {
            host: info.host.clone(),
            source,
        })?
        .collect();
    if info.rank == 0 {
        Host::listen(info, &addresses)?.receive_all(timeouts.rendezvous)
    } else {
        // Rank 0 should be the one that says who did not come.
        Ok(vec![join(info, &addresses, timeouts.rendezvous + HELLO)?])
    }
}

fn shown(info: &RankInfo) -> String {
    format!("{}:{}", info.host, info.port)
}

/// The ports from that of `address` on.
fn candidates(address: &SocketAddr, ports: u16) -> impl Iterator<Item = SocketAddr> + use<> {
    let mut address = *address;
    (0..ports).filter_map(move |nth| {
        address.set_port(address.port().checked_add(u16::from(nth > 0))?);
        Some(address)
    })
}

/// Rank 0 while it waits for the others.
struct Host<'a> {
    info: &'a RankInfo,
    identity: Identity,
    listener: TcpListener,
}

impl<'a> Host<'a> {
    fn listen(info: &'a RankInfo, addresses: &[SocketAddr]) -> Result<Self, RanksError> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses.iter().flat_map(|address| candidates(address, info.ports)) {
            match TcpListener::bind(address) {
                Ok(listener) => {
                    listener.set_nonblocking(true)?;
                    return Ok(Self {
                        info,
                        identity: Identity::own(0),
                        listener,
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(RanksError::Listen {
            address: shown(info),
            source: last,
        })
    }

    /// Waits for all others. The port is closed when this returns.
    fn receive_all(self, limit: Duration) -> Result<Vec<Peer>, RanksError> {
        let deadline = Instant::now() + limit;
        let (sender, callers) = mpsc::channel();
        let mut came = Came::new(self.info);
        while !came.are_all() {
            self.accept(&sender)?;
            self.welcome_callers(&callers, &mut came);
            if Instant::now() >= deadline {
                let missing = came.missing();
                came.dismiss(&format!("{missing} did not come"));
                return Err(RanksError::Missing {
                    missing,
                    address: shown(self.info),
                    seconds: limit.as_secs(),
                });
            }
            thread::sleep(POLL);
        }
        drop(self.listener);
        let welcome = Answer::Welcome(self.identity);
        let mut peers = came.into_peers();
        for peer in &mut peers {
            for channel in [&mut peer.control, &mut peer.data] {
                // From now on a rank may be waited for as long as it gives signs of life.
                channel.set_read_timeout(None)?;
                frame::write_json(channel, &welcome)?;
            }
        }
        Ok(peers)
    }

    /// Listens to whoever has called, each in a thread: a stranger who says nothing keeps no one waiting.
    fn accept(&self, heard: &Sender<(Hello, TcpStream)>) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((mut connection, _)) => {
                    let heard = heard.clone();
                    let listen = move || {
                        let hello = prepare(&connection, Some(HELLO))
                            .and_then(|()| frame::read_json::<Hello>(&mut connection, LONGEST_HELLO));
                        // A stranger gets no answer, and the meeting may be over.
                        if let Ok(hello) = hello {
                            let _ = heard.send((hello, connection));
                        }
                    };
                    thread::Builder::new().name("rendezvous".into()).spawn(listen)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // One that has gone away again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn welcome_callers(&self, callers: &Receiver<(Hello, TcpStream)>, came: &mut Came) {
        for (hello, mut connection) in callers.try_iter() {
            let answer = match self.refusal(&hello, came) {
                Some(reason) => Answer::Refused(reason),
                None => Answer::Heard,
            };
            let is_heard = matches!(answer, Answer::Heard);
            if frame::write_json(&mut connection, &answer).is_ok() && is_heard {
                came.take(hello, connection);
            }
        }
    }

    fn refusal(&self, hello: &Hello, came: &Came) -> Option<String> {
        let Identity { rank, .. } = hello.identity;
        if hello.token != self.info.token {
            return Some("it is of another run, which should use another port (MASTER_PORT)".into());
        }
        if !(1..self.info.world_size).contains(&rank) {
            return Some(format!(
                "it is rank {rank}, and the others are 1 to {}",
                self.info.world_size - 1
            ));
        }
        came.slot(rank, hello.channel)
            .is_some()
            .then(|| format!("rank {rank} is there already, twice started"))
    }
}

/// What has come of each other rank.
struct Came(Vec<Half>);

#[derive(Default)]
struct Half {
    identity: Option<Identity>,
    control: Option<TcpStream>,
    data: Option<TcpStream>,
}

impl Came {
    fn new(info: &RankInfo) -> Self {
        Self((1..info.world_size).map(|_| Half::default()).collect())
    }

    fn slot(&self, rank: usize, channel: Channel) -> Option<&TcpStream> {
        let half = &self.0[rank - 1];
        match channel {
            Channel::Control => half.control.as_ref(),
            Channel::Data => half.data.as_ref(),
        }
    }

    fn take(&mut self, hello: Hello, connection: TcpStream) {
        let half = &mut self.0[hello.identity.rank - 1];
        half.identity = Some(hello.identity);
        match hello.channel {
            Channel::Control => half.control = Some(connection),
            Channel::Data => half.data = Some(connection),
        }
    }

    fn are_all(&self) -> bool {
        self.0.iter().all(|half| half.control.is_some() && half.data.is_some())
    }

    /// "rank 2" or "ranks 2, 3".
    fn missing(&self) -> String {
        let missing: Vec<String> = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, half)| half.control.is_none() || half.data.is_none())
            .map(|(nth, _)| (nth + 1).to_string())
            .collect();
        let ranks = if missing.len() == 1 { "rank" } else { "ranks" };
        format!("{ranks} {}", missing.join(", "))
    }

    fn dismiss(&mut self, reason: &str) {
        for half in &mut self.0 {
            for connection in [&mut half.control, &mut half.data].into_iter().flatten() {
                // It may be gone as well.
                let _ = frame::write_json(connection, &Answer::Refused(reason.to_owned()));
            }
        }
    }

    fn into_peers(self) -> Vec<Peer> {
        let whole = |half: Half| {
            Some(Peer {
                identity: half.identity?,
                control: half.control?,
                data: half.data?,
            })
        };
        self.0.into_iter().filter_map(whole).collect()
    }
}

/// Comes to rank 0, with both connections.
fn join(info: &RankInfo, addresses: &[SocketAddr], limit: Duration) -> Result<Peer, RanksError> {
    let deadline = Instant::now() + limit;
    let own = Identity::own(info.rank);
    let (control, found) = call_until(info, addresses, info.ports, &own, Channel::Control, deadline)?;
    let (data, _) = call_until(info, &[found], 1, &own, Channel::Data, deadline)?;
    let mut connections = [control, data];
    let mut host = None;
    for connection in &mut connections {
        let left = deadline.saturating_duration_since(Instant::now()).max(POLL);
        connection.set_read_timeout(Some(left))?;
        match frame::read_json(connection, LONGEST_HELLO) {
            Ok(Answer::Welcome(identity)) => host = Some(identity),
            Ok(Answer::Refused(reason)) => return Err(refused(info, reason)),
            Ok(Answer::Heard) => return Err(frame::invalid("two answers to one call".into()).into()),
            Err(error) => return Err(refused(info, format!("it has left: {error}"))),
        }
        connection.set_read_timeout(None)?;
    }
    let [control, data] = connections;
    let identity = host.expect("both have been welcomed");
    Ok(Peer {
        identity,
        control,
        data,
    })
}

fn refused(info: &RankInfo, reason: String) -> RanksError {
    RanksError::Refused {
        address: shown(info),
        reason,
    }
}

/// Calls the first of `ports` ports from that of each address on until rank 0 has heard; with the address at which it did.
fn call_until(
    info: &RankInfo,
    addresses: &[SocketAddr],
    ports: u16,
    own: &Identity,
    channel: Channel,
    deadline: Instant,
) -> Result<(TcpStream, SocketAddr), RanksError> {
    let began = Instant::now();
    loop {
        let mut reason = "no answer".to_owned();
        for address in addresses.iter().flat_map(|address| candidates(address, ports)) {
            match call(info, &address, own, channel) {
                Ok((connection, Answer::Heard)) => return Ok((connection, address)),
                // Another run may have the port before.
                Ok((_, Answer::Refused(refusal))) if ports == 1 => return Err(refused(info, refusal)),
                Ok((_, Answer::Refused(refusal))) => reason = refusal,
                Ok(_) => "it answers what it should not".clone_into(&mut reason),
                Err(error) => reason = error.to_string(),
            }
        }
        if Instant::now() >= deadline {
            return Err(RanksError::NotReached {
                address: shown(info),
                seconds: began.elapsed().as_secs(),
                reason,
            });
        }
        thread::sleep(10 * POLL);
    }
}

fn call(info: &RankInfo, address: &SocketAddr, own: &Identity, channel: Channel) -> io::Result<(TcpStream, Answer)> {
    let mut connection = TcpStream::connect_timeout(address, HELLO)?;
    prepare(&connection, Some(HELLO))?;
    let hello = Hello {
        token: info.token.clone(),
        identity: own.clone(),
        channel,
    };
    frame::write_json(&mut connection, &hello)?;
    let answer = frame::read_json(&mut connection, LONGEST_HELLO)?;
    connection.set_read_timeout(None)?;
    Ok((connection, answer))
}

fn prepare(connection: &TcpStream, read_timeout: Option<Duration>) -> io::Result<()> {
    connection.set_nonblocking(false)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(read_timeout)
}
