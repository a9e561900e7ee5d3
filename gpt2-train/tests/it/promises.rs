//! The first promises of ARCHITECTURE.md, bit by bit: on a CPU, where they hold exactly.

use crate::tiny::{Remains, Workshop, checkpoints, copy, newest_checkpoint, records, resume, train, unwatched};
use gpt2_data::DataError;
use gpt2_train::checkpoint::{Checkpoint, Checkpoints};
use gpt2_train::config::RunConfig;
use gpt2_train::error::Quantity;
use gpt2_train::launch::Surroundings;
use gpt2_train::stop::StopRequest;
use gpt2_train::{Launch, StopReason, TrainError};
use std::fs;

#[test]
fn resuming_equals_never_stopping() {
    let workshop = Workshop::new();
    let whole = workshop.config("whole");
    let finished = train(&whole).unwrap();
    assert_eq!(finished.outcome.reason, StopReason::Finished);
    let expected = Remains::of(&workshop.run("whole"));
    assert_eq!(expected.losses.len(), 7, "six steps, and the evaluation before them");

    for stop in 1..6 {
        let name = format!("stopped-{stop}");
        let until = |steps| RunConfig {
            steps: Some(steps),
            ..workshop.config(&name)
        };
        train(&until(stop)).unwrap();
        resume(&until(6)).unwrap();
        let run = workshop.run(&name);
        let resumed = Remains::of(&run);
        // The last step of a session is evaluated and sampled whatever the intervals: what the whole run has, this has.
        for (step, (found, expected)) in resumed.losses.iter().zip(&expected.losses).enumerate() {
            assert_eq!(
                (found[0], found[2], found[3]),
                (expected[0], expected[2], expected[3]),
                "step {step}"
            );
            assert!(expected[1].is_none() || found[1] == expected[1], "step {step}");
        }
        assert_eq!(resumed.losses.len(), expected.losses.len());
        assert!(resumed.weights == expected.weights, "weights after a stop at {stop}");
        assert!(resumed.moments == expected.moments, "moments after a stop at {stop}");
        assert!(expected.samples.iter().all(|sample| resumed.samples.contains(sample)));
    }
}

#[test]
fn a_killed_run_goes_on_from_its_newest_whole_checkpoint() {
    let workshop = Workshop::new();
    let config = RunConfig {
        checkpoint_every: Some(1),
        ..workshop.config("whole")
    };
    train(&config).unwrap();
    let whole = workshop.run("whole");
    let expected = Remains::of(&whole);

    for kept in 1..6 {
        // What a kill after `kept` leaves: the checkpoints until then, one that was being written, and a log that is
        // further, with a torn last line.
        let name = format!("killed-{kept}");
        let run = workshop.run(&name);
        copy(whole.root(), run.root());
        let all = Checkpoints::open(run.checkpoints()).unwrap();
        let torn = run.checkpoints().join(format!(".step-{:08}.partial", kept + 1));
        fs::rename(all.path(kept + 1), &torn).unwrap();
        fs::remove_file(torn.join("manifest.json")).unwrap();
        for step in kept + 2..=6 {
            fs::remove_dir_all(all.path(step)).unwrap();
        }
        let log = fs::read(run.metrics()).unwrap();
        fs::write(run.metrics(), &log[..log.len() - 9]).unwrap();

        let config = RunConfig {
            run: Some(run.root().to_owned()),
            ..config.clone()
        };
        resume(&config).unwrap();
        assert!(Remains::of(&run) == expected, "killed after step {kept}");
        assert!(!torn.exists(), "a half-written checkpoint stays");
    }
}

#[test]
fn the_best_checkpoint_is_the_best() {
    let workshop = Workshop::new();
    let config = RunConfig {
        // Evaluations and checkpoints at other steps; a rate at which the loss soon rises.
        eval_every: Some(2),
        checkpoint_every: Some(3),
        steps: Some(14),
        decay_steps: Some(14),
        lr: Some(0.3),
        keep: Some(1),
        ..workshop.config("a")
    };
    let finished = train(&config).unwrap();
    let run = workshop.run("a");
    // 3, 6, 9 and 12 were saved, each with an evaluation of its own weights, and 14 at the end.
    let losses: Vec<_> = records(&run)
        .into_iter()
        .filter(|record| [3, 6, 9, 12, 14].contains(&record.step))
        .map(|record| (record.step, record.val_loss.unwrap()))
        .collect();
    let &(best, loss) = losses.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert!(best < 14, "{losses:?}");
    assert_eq!(checkpoints(&run), [best, 14]);
    let saved = finished.outcome.state.best.unwrap();
    assert_eq!((saved.step, saved.val_loss), (best, loss));
    let all = Checkpoints::open(run.checkpoints()).unwrap();
    let state = Checkpoint::open(all.path(best)).unwrap().state;
    assert_eq!((state.step, state.val_loss), (best, Some(loss)));
}

#[test]
fn a_run_that_was_stopped_between_evaluations_has_no_loss_of_its_weights() {
    let workshop = Workshop::new();
    let stop = StopRequest::default();
    stop.stop("a test");
    let surroundings = Surroundings { stop, ..unwatched() };
    let finished = Launch::new(&workshop.config("a")).unwrap().run(surroundings).unwrap();
    assert_eq!(finished.outcome.reason, StopReason::Requested("a test".into()));
    let state = &finished.outcome.state;
    // What was saved is what was evaluated before the first step.
    assert_eq!((state.step, state.best.map(|best| best.step)), (0, Some(0)));
    let until = RunConfig {
        steps: Some(1),
        eval_every: Some(0),
        ..workshop.config("b")
    };
    assert_eq!(train(&until).unwrap().outcome.state.val_loss, None);
}

#[test]
fn another_seed_is_another_run() {
    let workshop = Workshop::new();
    train(&workshop.config("a")).unwrap();
    let other = RunConfig {
        seed: Some(7),
        ..workshop.config("b")
    };
    train(&other).unwrap();
    let [a, b] = ["a", "b"].map(|name| Remains::of(&workshop.run(name)).losses);
    assert!(a.iter().zip(&b).all(|(a, b)| a[0].is_none() || a[0] != b[0]));
}

#[test]
fn threads_do_not_change_a_bit() {
    let workshop = Workshop::new();
    let runs = [1, 2, 3].map(|threads| {
        let name = format!("threads-{threads}");
        let config = RunConfig {
            threads: Some(threads),
            // Wide enough that the products are divided among the threads.
            n_embd: Some(64),
            batch: Some(8.into()),
            ..workshop.config(&name)
        };
        train(&config).unwrap();
        Remains::of(&workshop.run(&name))
    });
    assert!(runs[0] == runs[1] && runs[0] == runs[2]);
}

#[test]
fn accumulation_equals_the_larger_batch() {
    let workshop = Workshop::new();
    let shape = |name: &str, batch: usize, grad_accum| RunConfig {
        batch: Some(batch.into()),
        grad_accum: Some(grad_accum),
        // Each micro-step draws its own dropout.
        dropout: Some(0.0),
        ..workshop.config(name)
    };
    train(&shape("one", 4, 1)).unwrap();
    train(&shape("four", 1, 4)).unwrap();
    let [one, four] = ["one", "four"].map(|name| records(&workshop.run(name)));
    for (one, four) in one.iter().zip(&four) {
        assert_eq!(one.tokens, four.tokens);
        for (one, four) in [(one.loss, four.loss), (one.grad_norm, four.grad_norm)] {
            let [one, four] = [one, four].map(|x| x.unwrap_or(1.0));
            assert!((one / four - 1.0).abs() < 1e-5, "{one} {four}");
        }
    }
}

#[test]
fn a_loss_that_is_not_finite_leaves_the_weights() {
    let workshop = Workshop::new();
    let config = |name: &str, steps| RunConfig {
        steps: Some(steps),
        lr: Some(1e30),
        warmup: Some(0),
        eval_every: Some(0),
        sample_every: Some(0),
        checkpoint_every: Some(0),
        ..workshop.config(name)
    };
    // One step at such a rate leaves weights whose loss is not finite.
    train(&config("good", 1)).unwrap();
    let error = train(&config("bad", 6)).unwrap_err();
    let TrainError::NonFinite { step, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(step, 2, "{error}");
    assert_eq!(checkpoints(&workshop.run("bad")), [1]);
    let [good, bad] = ["good", "bad"].map(|name| newest_checkpoint(&workshop.run(name)));
    for file in ["model.safetensors", "optimizer.safetensors"] {
        assert!(
            fs::read(good.join(file)).unwrap() == fs::read(bad.join(file)).unwrap(),
            "{file}"
        );
    }
    let logged: Vec<_> = records(&workshop.run("bad")).iter().map(|record| record.step).collect();
    assert_eq!(logged, [1], "a step that is not finite was not taken");
}

#[test]
fn an_evaluation_that_is_not_finite_is_an_error() {
    let workshop = Workshop::new();
    let config = RunConfig {
        lr: Some(1e30),
        warmup: Some(0),
        eval_every: Some(1),
        ..workshop.config("a")
    };
    let error = train(&config).unwrap_err();
    assert!(
        matches!(
            error,
            TrainError::NonFinite {
                what: Quantity::ValidationLoss,
                step: 1,
                ..
            }
        ),
        "{error}"
    );
    let logged: Vec<_> = records(&workshop.run("a")).iter().map(|record| record.step).collect();
    assert_eq!((logged, checkpoints(&workshop.run("a"))), (vec![0, 1], vec![1]));
}

#[test]
fn a_changed_bit_in_a_checkpoint_is_found() {
    let workshop = Workshop::new();
    train(&workshop.config("a")).unwrap();
    let newest = newest_checkpoint(&workshop.run("a"));
    for file in [
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "config.json",
    ] {
        let path = newest.join(file);
        let whole = fs::read(&path).unwrap();
        let mut damaged = whole.clone();
        damaged[whole.len() / 2] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let error = Checkpoint::open(&newest).unwrap_err();
        assert!(
            matches!(&error, TrainError::CheckpointDamaged { path: found, .. } if *found == path),
            "{error}"
        );
        fs::remove_file(&path).unwrap();
        let error = Checkpoint::open(&newest).unwrap_err();
        assert!(
            matches!(&error, TrainError::CheckpointIncomplete { missing, .. } if missing == file),
            "{error}"
        );
        let (before, damaged) = Checkpoints::open(workshop.run("a").checkpoints())
            .unwrap()
            .newest()
            .unwrap();
        assert_eq!((before.state.step, damaged.len()), (3, 1));
        fs::write(&path, &whole).unwrap();
    }
    assert_eq!(Checkpoint::open(&newest).unwrap().state.step, 6);
}

#[test]
fn a_run_knows_its_data() {
    let workshop = Workshop::new();
    let until = |steps, data| RunConfig {
        steps: Some(steps),
        data: Some(data),
        ..workshop.config("a")
    };
    train(&until(3, workshop.data())).unwrap();

    // The same tokens at another place.
    let moved = workshop.data().with_file_name("moved");
    fs::rename(workshop.data(), &moved).unwrap();
    resume(&until(4, moved.clone())).unwrap();
    let error = resume(&until(5, workshop.data())).unwrap_err();
    assert!(
        matches!(error, TrainError::Data(DataError::MissingDataDirectory { .. })),
        "{error}"
    );

    // Other tokens at the same place.
    fs::remove_dir_all(&moved).unwrap();
    workshop.write_data(2);
    let error = resume(&until(6, workshop.data())).unwrap_err();
    assert!(matches!(error, TrainError::DataChanged { .. }), "{error}");
    assert_eq!(checkpoints(&workshop.run("a")), [3, 4]);

    workshop.write_data(1);
    resume(&until(6, workshop.data())).unwrap();
    let whole = RunConfig {
        run: Some(workshop.run("whole").root().to_owned()),
        ..until(6, workshop.data())
    };
    train(&whole).unwrap();
    let [a, whole] = ["a", "whole"].map(|name| Remains::of(&workshop.run(name)));
    assert!(a.weights == whole.weights && a.moments == whole.moments);
}

#[test]
fn other_settings_do_not_resume() {
    let workshop = Workshop::new();
    let config = workshop.config("a");
    train(&config).unwrap();
    let other = RunConfig {
        seed: Some(7),
        ..config
    };
    let error = resume(&other).unwrap_err();
    assert!(
        matches!(&error, TrainError::ResumeMismatch { differences, .. } if differences[0].key == "seed"),
        "{error}"
    );
}
