//! What the ranks of a run exchange, through rank 0.

use crate::environment::RankInfo;
use crate::error::RanksError;
use crate::frame::{self, ANY_LENGTH};
use crate::lost::LostRank;
use crate::monitor::Monitor;
use crate::rendezvous::{Timeouts, meet};
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Elements that are summed at a time.
const CHUNK: usize = 1 << 18;

/// The ranks of a run, met and connected. All of them call the same operations in the same order.
#[derive(Debug)]
pub struct ProcessGroup {
    rank: usize,
    world_size: usize,
    /// On rank 0 to all others in their order, else to rank 0.
    data: Vec<TcpStream>,
    monitor: Monitor,
}

impl ProcessGroup {
    /// Meets the other ranks. `on_loss` is called once, from a thread of its own, as soon as one of them is lost.
    ///
    /// # Errors
    /// [`RanksError`] if they do not all come.
    pub fn join(
        info: &RankInfo,
        timeouts: Timeouts,
        on_loss: impl Fn(&LostRank) + Send + Sync + 'static,
    ) -> Result<Self, RanksError> {
        let peers = meet(info, timeouts)?;
        let monitor = Monitor::start(info.rank, &peers, timeouts.peer, on_loss)?;
        Ok(Self {
            rank: info.rank,
            world_size: info.world_size,
            data: peers.into_iter().map(|peer| peer.data).collect(),
            monitor,
        })
    }

    /// The number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many ranks there are.
    pub fn world_size(&self) -> usize {
        self.world_size
    }

    /// What watches the other ranks.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// What each rank has given, in their order, on all of them.
    ///
    /// # Errors
    /// [`RanksError::Lost`], or [`RanksError::Io`].
    pub fn all_gather(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        self.gather(own).map_err(|error| self.monitor.verdict(error))
    }

    fn gather(&mut self, own: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        if self.rank == 0 {
            let others = self.data.iter_mut().map(|peer| frame::read(peer, ANY_LENGTH));
            let all: Vec<_> = std::iter::once(Ok(own.to_vec()))
                .chain(others)
                .collect::<io::Result<_>>()?;
            for peer in &mut self.data {
                all.iter().try_for_each(|each| frame::write(peer, each))?;
            }
            Ok(all)
        } else {
            let host = &mut self.data[0];
            frame::write(host, own)?;
            (0..self.world_size).map(|_| frame::read(host, ANY_LENGTH)).collect()
        }
    }

    /// What the other ranks have given, in their order, on rank 0; nothing on the others.
    ///
    /// # Errors
    /// Those of [`ProcessGroup::all_gather`].
    pub fn gather_on_first(&mut self, own: &[u8]) -> Result<Vec<Vec<u8>>, RanksError> {
        let gathered = if self.rank == 0 {
            self.data.iter_mut().map(|peer| frame::read(peer, ANY_LENGTH)).collect()
        } else {
            frame::write(&mut self.data[0], own).map(|()| Vec::new())
        };
        gathered.map_err(|error| self.monitor.verdict(error))
    }

    /// What rank 0 has given, on all ranks.
    ///
    /// # Errors
    /// Those of [`ProcessGroup::all_gather`].
    pub fn broadcast(&mut self, own: &[u8]) -> Result<Vec<u8>, RanksError> {
        let given = if self.rank == 0 { own } else { &[] };
        let mut all = self.all_gather(given)?;
        Ok(all.swap_remove(0))
    }

    /// Adds up `values` over all ranks, element by element and in the order of the ranks, so that the sums are those of one
    /// process that adds them in this order.
    ///
    /// Gives how long the slowest rank was waited for.
    ///
    /// # Errors
    /// Those of [`ProcessGroup::all_gather`]. What `values` holds then is not defined.
    pub fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<Duration, RanksError> {
        self.reduce(values).map_err(|error| self.monitor.verdict(error))
    }

    fn reduce(&mut self, values: &mut [f32]) -> io::Result<Duration> {
        let own_count = values.len() as u64;
        let began = Instant::now();
        let counts = self.gather(&own_count.to_le_bytes())?;
        let wait = began.elapsed();
        if counts.iter().any(|count| count[..] != own_count.to_le_bytes()) {
            return Err(frame::invalid("the ranks sum different numbers of elements".into()));
        }
        let mut theirs = vec![0.0_f32; CHUNK.min(values.len())];
        for chunk in values.chunks_mut(CHUNK) {
            if self.rank == 0 {
                let theirs = &mut theirs[..chunk.len()];
                for peer in &mut self.data {
                    peer.read_exact(bytemuck::cast_slice_mut(theirs))?;
                    for (sum, term) in chunk.iter_mut().zip(&*theirs) {
                        *sum += term;
                    }
                }
                for peer in &mut self.data {
                    peer.write_all(bytemuck::cast_slice(chunk))?;
                }
            } else {
                let host = &mut self.data[0];
                host.write_all(bytemuck::cast_slice(chunk))?;
                host.read_exact(bytemuck::cast_slice_mut(chunk))?;
            }
        }
        Ok(wait)
    }
}
