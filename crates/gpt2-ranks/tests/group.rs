//! Ranks in threads of one process, which meet over the loopback address.

use gpt2_ranks::{How, LostRank, ProcessGroup, RankInfo, RanksError, Timeouts};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

const TIMEOUTS: Timeouts = Timeouts {
    rendezvous: Duration::from_secs(20),
    peer: Duration::from_secs(20),
};

/// Ranks that find each other at one port alone.
fn infos(world_size: usize) -> Vec<RankInfo> {
    let ranks = RankInfo::of_this_host(world_size).unwrap();
    ranks.into_iter().map(|info| RankInfo { ports: 1, ..info }).collect()
}

type Joined = (ProcessGroup, Receiver<LostRank>);

fn join(info: &RankInfo, timeouts: Timeouts) -> Result<Joined, RanksError> {
    let (sender, lost) = mpsc::channel();
    let group = ProcessGroup::join(info, timeouts, move |rank| {
        let _ = sender.send(rank.clone());
    })?;
    Ok((group, lost))
}

/// Runs `work` on each rank; what each came to.
fn on_each<T: Send>(world_size: usize, work: impl Fn(Joined) -> T + Sync) -> Vec<T> {
    let (infos, work) = (infos(world_size), &work);
    thread::scope(|scope| {
        let spawn = |info| scope.spawn(move || work(join(info, TIMEOUTS).unwrap()));
        let ranks: Vec<_> = infos.iter().map(spawn).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn sums_are_those_of_one_process_in_the_order_of_the_ranks() {
    // Enough for several chunks, the last of them not whole.
    let values = |rank: usize| -> Vec<f32> {
        (0..600_001_u32)
            .map(|i| (i as f32).sin() * 10_f32.powi((i % 7) as i32 - 3 * rank as i32))
            .collect()
    };
    let expected: Vec<f32> = (0..values(0).len())
        .zip(values(0).iter().zip(values(1)).zip(values(2)))
        .map(|(_, ((a, b), c))| (a + b) + c)
        .collect();
    for sums in on_each(3, |(mut group, _)| {
        let mut sums = values(group.rank());
        group.all_reduce_sum(&mut sums).unwrap();
        group.monitor().finish().unwrap();
        sums
    }) {
        assert!(
            sums.iter()
                .zip(&expected)
                .all(|(sum, expected)| sum.to_bits() == expected.to_bits())
        );
    }
}

#[test]
fn all_ranks_get_what_each_gives_and_what_the_first_gives() {
    let all = on_each(3, |(mut group, _)| {
        let own = vec![group.rank() as u8; group.rank()];
        let gathered = group.all_gather(&own).unwrap();
        let first = group.broadcast(format!("of {}", group.rank()).as_bytes()).unwrap();
        group.monitor().note(format!("note {}", group.rank()));
        group.monitor().finish().unwrap();
        (gathered, first, group.monitor().take_notes())
    });
    for (gathered, first, _) in &all {
        assert_eq!(gathered, &[vec![], vec![1], vec![2, 2]]);
        assert_eq!(first, b"of 0");
    }
    let mut notes = all[0].2.clone();
    notes.sort();
    assert_eq!(notes, [0, 1, 2].map(|rank| (rank, format!("note {rank}"))));
}

#[test]
fn a_rank_that_is_slow_is_waited_for() {
    let all = on_each(2, |(mut group, _)| {
        // Longer than a stranger may take to say who it is.
        thread::sleep(Duration::from_secs(6 * group.rank() as u64));
        group.all_gather(&[7]).unwrap()
    });
    assert!(all.iter().all(|all| all == &[[7], [7]]));
}

#[test]
fn a_rank_that_is_gone_ends_the_others() {
    for gone in 0..3 {
        let lost = on_each(3, |(mut group, lost)| {
            group.all_gather(b"").unwrap();
            group.monitor().at_step(7);
            // Long enough for a sign of life that tells the step.
            thread::sleep(Duration::from_millis(1500));
            if group.rank() == gone {
                return None;
            }
            let error = group.all_reduce_sum(&mut [1.0]).unwrap_err();
            let lost = lost.recv_timeout(Duration::from_secs(10)).unwrap();
            assert!(
                matches!(error, RanksError::Lost(ref named) if *named == lost),
                "{error}"
            );
            Some(lost)
        });
        for lost in lost.into_iter().flatten() {
            assert_eq!((lost.rank, lost.step, &lost.how), (gone, 7, &How::Gone));
            assert_eq!(lost.pid, std::process::id());
        }
    }
}

#[test]
fn a_rank_that_fails_says_so_to_the_others() {
    for failing in 0..3 {
        let lost = on_each(3, |(mut group, lost)| {
            if group.rank() == failing {
                group.monitor().fail("no space left");
                return None;
            }
            group.all_gather(b"").unwrap_err();
            Some(lost.recv_timeout(Duration::from_secs(10)).unwrap())
        });
        for lost in lost.into_iter().flatten() {
            assert_eq!((lost.rank, lost.how), (failing, How::Failed("no space left".into())));
        }
    }
}

#[test]
fn a_rank_without_a_sign_of_life_is_lost() {
    let infos = infos(2);
    thread::scope(|scope| {
        // It gives a sign each second, which is too rare for the other.
        let slow = scope.spawn(|| join(&infos[1], TIMEOUTS).unwrap());
        let impatient = Timeouts {
            peer: Duration::from_millis(100),
            ..TIMEOUTS
        };
        let (group, lost) = join(&infos[0], impatient).unwrap();
        let lost = lost.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!((lost.rank, lost.how), (1, How::Silent(0)));
        assert!(matches!(group.monitor().finish(), Err(RanksError::Lost(_))));
        drop(slow.join().unwrap());
    });
}

#[test]
fn a_stranger_is_refused_and_changes_nothing() {
    let infos = infos(2);
    let address = (infos[0].host.as_str(), infos[0].port);
    thread::scope(|scope| {
        let first = scope.spawn(|| join(&infos[0], TIMEOUTS).unwrap());
        let connect = || {
            let began = Instant::now();
            loop {
                match TcpStream::connect(address) {
                    Ok(connection) => return connection,
                    Err(error) => assert!(began.elapsed() < Duration::from_secs(10), "{error}"),
                }
            }
        };
        let silent = connect();
        let mut noisy = connect();
        noisy.write_all(&[0xff; 64]).unwrap();
        assert_eq!(noisy.read(&mut [0; 8]).unwrap_or(0), 0);
        let mut other = infos[1].clone();
        other.token = "theirs".into();
        let message = join(&other, TIMEOUTS).unwrap_err().to_string();
        assert!(message.contains("it is of another run"), "{message}");

        let (mut group, _lost) = join(&infos[1], TIMEOUTS).unwrap();
        let (mut host, _) = first.join().unwrap();
        let theirs = scope.spawn(move || group.all_gather(b"b").unwrap());
        assert_eq!(host.all_gather(b"a").unwrap(), [b"a", b"b"]);
        theirs.join().unwrap();
        assert!(TcpStream::connect(address).is_err(), "the port is still open");
        drop(silent);
    });
}

#[test]
fn those_who_do_not_come_are_named() {
    let infos = infos(4);
    let short = Timeouts {
        rendezvous: Duration::from_millis(800),
        ..TIMEOUTS
    };
    thread::scope(|scope| {
        let came = scope.spawn(|| join(&infos[2], short).unwrap_err().to_string());
        let message = join(&infos[0], short).unwrap_err().to_string();
        assert!(
            message.starts_with("ranks 1, 3 did not come to 127.0.0.1:"),
            "{message}"
        );
        let message = came.join().unwrap();
        assert!(
            message.ends_with("refuses this rank: ranks 1, 3 did not come"),
            "{message}"
        );
    });
}

#[test]
fn a_rank_that_comes_twice_is_refused() {
    let infos = infos(3);
    thread::scope(|scope| {
        let ranks: Vec<_> = [0, 1]
            .map(|rank| {
                scope.spawn({
                    let info = &infos[rank];
                    move || join(info, TIMEOUTS).unwrap()
                })
            })
            .into();
        thread::sleep(Duration::from_millis(500));
        let message = join(&infos[1], TIMEOUTS).unwrap_err().to_string();
        assert!(message.contains("rank 1 is there already"), "{message}");
        let last = join(&infos[2], TIMEOUTS).unwrap();
        drop((
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect::<Vec<_>>(),
            last,
        ));
    });
}

#[test]
fn two_runs_share_a_port_only_where_there_are_others() {
    let mut one = infos(2);
    let mut two = infos(2);
    for info in &mut two {
        info.port = one[0].port;
        info.token = "another".into();
    }
    thread::scope(|scope| {
        let first = scope.spawn({
            let info = one[0].clone();
            move || join(&info, TIMEOUTS).unwrap()
        });
        thread::sleep(Duration::from_millis(300));
        let message = join(&two[0], TIMEOUTS).unwrap_err().to_string();
        assert!(message.starts_with("rank 0 cannot listen on 127.0.0.1:"), "{message}");
        for info in one.iter_mut().chain(&mut two) {
            info.ports = 17;
        }
        let others: Vec<_> = [&two[0], &two[1], &one[1]]
            .map(|info| scope.spawn(move || join(info, TIMEOUTS).unwrap().0.world_size()))
            .into();
        assert!(others.into_iter().all(|other| other.join().unwrap() == 2));
        drop(first.join().unwrap());
    });
}
