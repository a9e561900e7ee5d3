//! Ranks in threads of this process: what they compute together is what one process computes alone.

use crate::tiny::{Remains, Workshop, newest_checkpoint, records, resume, run_of, train, unwatched};
use gpt2_ranks::{RankInfo, Timeouts};
use gpt2_train::checkpoint::Checkpoint;
use gpt2_train::config::RunConfig;
use gpt2_train::group::Group;
use gpt2_train::launch::{Finished, Surroundings, View};
use gpt2_train::observer::{Observer, StepReport};
use gpt2_train::stop::StopRequest;
use gpt2_train::{Launch, StopReason, TrainError};
use std::thread;

/// Trains on several ranks, each with the settings that `config` gives it.
fn on_ranks(
    world_size: usize,
    resumes: bool,
    config: impl Fn(usize) -> RunConfig + Sync,
    surroundings: impl Fn(usize) -> Surroundings + Sync,
) -> Vec<Result<Finished, TrainError>> {
    let rank = |info: RankInfo| {
        let rank = info.rank;
        let group = Group::join(info, "a test".into(), Timeouts::default(), |_| {})?;
        Launch::in_group(config(rank), resumes, group)?.run(surroundings(rank))
    };
    thread::scope(|scope| {
        let ranks: Vec<_> = RankInfo::of_this_host(world_size)
            .unwrap()
            .into_iter()
            .map(|info| scope.spawn(|| rank(info)))
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// The same on all ranks, which no one watches.
pub(crate) fn alike(world_size: usize, resumes: bool, config: &RunConfig) {
    for rank in on_ranks(world_size, resumes, |_| config.clone(), |_| unwatched()) {
        rank.unwrap();
    }
}

#[test]
fn ranks_equal_accumulation() {
    let workshop = Workshop::new();
    for ranks in [2, 3] {
        let of_micro_steps = |name: String, grad_accum| RunConfig {
            grad_accum: Some(grad_accum),
            ..workshop.config(&name)
        };
        let alone = of_micro_steps(format!("alone-{ranks}"), ranks);
        assert!(alone.dropout > Some(0.0));
        train(&alone).unwrap();
        let together = of_micro_steps(format!("together-{ranks}"), 1);
        alike(ranks, false, &together);
        let [alone, together] = [alone, together].map(|config| Remains::of(&run_of(&config)));
        assert!(together.losses == alone.losses, "{ranks} ranks");
        assert!(together == alone, "{ranks} ranks");
    }
}

#[test]
fn a_sharded_optimizer_changes_no_bit() {
    let workshop = Workshop::new();
    let config = |name: &str, shard_optimizer, steps| RunConfig {
        grad_accum: None,
        global_batch: Some(6),
        batch: Some(1.into()),
        devices: Some("3".parse().unwrap()),
        shard_optimizer: Some(shard_optimizer),
        steps: Some(steps),
        ..workshop.config(name)
    };
    alike(3, false, &config("whole", false, 6));
    alike(3, false, &config("sharded", true, 6));
    // Whoever goes on, in shards or not.
    alike(3, false, &config("changing", true, 2));
    alike(3, true, &config("changing", false, 4));
    alike(3, true, &config("changing", true, 6));
    let [whole, sharded, mut changing] = ["whole", "sharded", "changing"].map(|name| Remains::of(&workshop.run(name)));
    assert!(sharded == whole);
    // Each end has one of its own.
    changing.samples.clone_from(&whole.samples);
    assert!(changing == whole);
}

#[test]
fn sharded_ranks_that_diverge_save_the_last_good_step_together() {
    let workshop = Workshop::new();
    let config = |name: &str, shard_optimizer, eval_every| RunConfig {
        lr: Some(1e30),
        warmup: Some(0),
        grad_accum: Some(1),
        eval_every: Some(eval_every),
        sample_every: Some(0),
        shard_optimizer: Some(shard_optimizer),
        ..workshop.config(name)
    };
    // By the loss of the step after, or by the validation loss.
    for eval_every in [0, 1] {
        let [whole, sharded] = [false, true].map(|shards| {
            let name = format!("diverged-{shards}-{eval_every}");
            let config = config(&name, shards, eval_every);
            for rank in on_ranks(3, false, |_| config.clone(), |_| unwatched()) {
                let error = rank.unwrap_err();
                assert!(matches!(error, TrainError::NonFinite { .. }), "{error}");
            }
            let newest = newest_checkpoint(&workshop.run(&name));
            ["model.safetensors", "optimizer.safetensors"].map(|file| std::fs::read(newest.join(file)).unwrap())
        });
        assert!(sharded == whole, "{eval_every}");
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let workshop = Workshop::new();
    let config = |name: &str, steps| RunConfig {
        steps: Some(steps),
        batch: Some(1.into()),
        grad_accum: None,
        global_batch: Some(6),
        eval_every: Some(1),
        sample_every: Some(0),
        ..workshop.config(name)
    };
    train(&config("whole", 6)).unwrap();
    alike(2, false, &config("changing", 2));
    let devices = |ranks: usize, steps| RunConfig {
        devices: Some(ranks.to_string().parse().unwrap()),
        ..config("changing", steps)
    };
    resume(&devices(1, 4)).unwrap();
    alike(3, true, &devices(3, 6));
    let [whole, changing] = ["whole", "changing"].map(|name| workshop.run(name));
    let state = |run| Checkpoint::open(newest_checkpoint(run)).unwrap().state;
    assert_eq!(state(&changing).next_sequence, state(&whole).next_sequence);
    let (whole, changing) = (records(&whole), records(&changing));
    assert_eq!((whole.len(), changing.len()), (7, 7));
    for (whole, changing) in whole.iter().zip(&changing) {
        for [whole, changing] in [[whole.loss, changing.loss], [whole.val_loss, changing.val_loss]] {
            let (Some(whole), Some(changing)) = (whole, changing) else {
                assert_eq!(whole, changing);
                continue;
            };
            assert!((whole - changing).abs() <= 1e-5 * whole, "{whole} {changing}");
        }
    }
}

/// Asks to stop at a step.
struct StopAt(u64, StopRequest);

impl Observer for StopAt {
    fn step(&mut self, report: &StepReport) {
        if report.record.step == self.0 {
            self.1.stop("a test");
        }
    }
}

#[test]
fn all_ranks_stop_after_the_same_step() {
    let workshop = Workshop::new();
    let config = workshop.config("stopped");
    let asked = |rank| {
        let stop = StopRequest::default();
        let at = if rank == 2 { 2 } else { u64::MAX };
        Surroundings {
            view: View::Observer(Box::new(StopAt(at, stop.clone()))),
            stop,
            ..unwatched()
        }
    };
    for (rank, finished) in on_ranks(3, false, |_| config.clone(), asked).into_iter().enumerate() {
        let outcome = finished.unwrap().outcome;
        let by = if rank == 2 { "a test" } else { "a signal to rank 2" };
        assert_eq!(outcome.reason, StopReason::Requested(by.into()));
        // The wish goes with the next step's sum.
        assert_eq!(outcome.state.step, 3);
    }
    let state = Checkpoint::open(newest_checkpoint(&workshop.run("stopped")))
        .unwrap()
        .state;
    assert_eq!(state.step, 3);
}

/// Dies at the end of a step, before it is evaluated.
struct DieAt(u64);

impl Observer for DieAt {
    fn step_ends(&mut self, step: u64) {
        assert!(step < self.0, "a rank dies");
    }

    fn step(&mut self, _: &StepReport) {}
}

#[test]
fn a_checkpoint_never_knows_a_step_that_the_log_does_not() {
    let workshop = Workshop::new();
    let config = RunConfig {
        eval_every: Some(2),
        checkpoint_every: Some(1),
        ..workshop.config("lost")
    };
    let watched = |rank| Surroundings {
        view: View::Observer(Box::new(DieAt(if rank == 1 { 2 } else { u64::MAX }))),
        ..unwatched()
    };
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        on_ranks(2, false, |_| config.clone(), watched)
    }));
    assert!(ended.is_err(), "rank 1 has died");
    let run = workshop.run("lost");
    let logged: Vec<_> = records(&run).iter().map(|record| record.step).collect();
    assert_eq!(logged, [0, 1]);
    assert_eq!(Checkpoint::open(newest_checkpoint(&run)).unwrap().state.step, 1);
    // With the step that was lost taken again, nothing is missing.
    alike(2, true, &config);
    alike(
        2,
        false,
        &RunConfig {
            run: Some(workshop.run("whole").root().to_owned()),
            ..config
        },
    );
    let [lost, whole] = ["lost", "whole"].map(|name| Remains::of(&workshop.run(name)));
    assert!(lost.losses == whole.losses && lost == whole);
}

#[test]
fn ranks_that_were_not_started_alike_do_not_begin() {
    let workshop = Workshop::new();
    let refused = |config: &(dyn Fn(usize) -> RunConfig + Sync)| {
        let ended = on_ranks(2, false, config, |_| unwatched());
        let [first, second] = ended.try_into().unwrap();
        (first.unwrap_err().to_string(), second.unwrap_err())
    };
    let (said, second) = refused(&|rank| RunConfig {
        lr: Some(if rank == 0 { 1e-3 } else { 2e-3 }),
        ..workshop.config("rates")
    });
    assert!(
        said.starts_with("rank 1 differs from rank 0 in lr; start all ranks alike: 0.001 on rank 0, 0.002 on rank 1"),
        "{said}"
    );
    assert!(matches!(second, TrainError::OtherRank), "{second}");

    let other = Workshop::new();
    other.write_data(2);
    let (said, _) = refused(&|rank| RunConfig {
        data: Some(if rank == 0 { workshop.data() } else { other.data() }),
        ..workshop.config("other-data")
    });
    assert!(said.starts_with("rank 1 differs from rank 0 in data"), "{said}");

    let (said, second) = refused(&|rank| RunConfig {
        data: Some(if rank == 0 { workshop.data() } else { "nowhere".into() }),
        ..workshop.config("no-data")
    });
    assert!(said.starts_with("rank 1 cannot begin: nowhere"), "{said}");
    assert!(matches!(second, TrainError::Data(_)), "{second}");
    // What is refused leaves nothing behind.
    for name in ["rates", "other-data", "no-data"] {
        assert!(!workshop.run(name).root().exists(), "{name}");
    }
}

#[test]
fn a_run_of_several_is_not_trained_by_one() {
    let workshop = Workshop::new();
    let config = RunConfig {
        devices: Some("2".parse().unwrap()),
        ..workshop.config("alone")
    };
    let error = train(&config).unwrap_err();
    assert!(matches!(error, TrainError::NotInGroup { ranks: 2 }), "{error}");
    assert!(!workshop.run("alone").root().exists());
}
