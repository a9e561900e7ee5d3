//! Several runs in one process do not touch each other.

use crate::tiny::{Remains, Workshop, newest_checkpoint, train, unwatched};
use burn_ndarray::{NdArray, NdArrayDevice};
use gpt2_data::{Split, TokenStream};
use gpt2_model::Gpt2;
use gpt2_train::Launch;
use gpt2_train::config::RunConfig;
use gpt2_train::evaluate::EvaluationSet;
use gpt2_train::run_dir::RunPaths;
use gpt2_train::sample::sample;
use std::fs;
use std::sync::Arc;
use std::thread;

/// The lines of `log.txt` without what depends on the clock and on other runs of the process.
fn log(run: &RunPaths) -> Vec<String> {
    let text = fs::read_to_string(run.log()).unwrap();
    let steady = |line: &str| {
        let parts = line
            .split(" | ")
            .filter(|part| !part.ends_with("tok/s") && !part.ends_with("ms"));
        let parts = parts.filter(|part| !part.starts_with("peak") && !part.starts_with("ETA"));
        parts.collect::<Vec<_>>().join(" | ")
    };
    text.lines().map(steady).collect()
}

#[test]
fn two_runs_at_once_equal_each_alone() {
    let workshop = Workshop::new();
    // With dropout, whose random state is the process's on a CPU.
    let config = |name: &str, seed, threads| RunConfig {
        seed: Some(seed),
        threads: Some(threads),
        log_every: Some(1),
        ..workshop.config(name)
    };
    for (name, seed, threads) in [("one-alone", 1, 1), ("two-alone", 2, 3)] {
        train(&config(name, seed, threads)).unwrap();
    }
    let launches = [config("one", 1, 1), config("two", 2, 3)].map(|config| Launch::new(&config).unwrap());
    let plans = launches.each_ref().map(|launch| launch.plan().clone());
    thread::scope(|scope| {
        let runs = launches.map(|launch| scope.spawn(|| launch.run(unwatched()).unwrap()));
        for run in runs {
            run.join().unwrap();
        }
    });
    for name in ["one", "two"] {
        let (together, alone) = (workshop.run(name), workshop.run(&format!("{name}-alone")));
        assert!(Remains::of(&together) == Remains::of(&alone), "{name}");
        assert_eq!(log(&together), log(&alone));
        assert_eq!(
            log(&together).iter().filter(|line| line.starts_with("step")).count(),
            7,
            "{name}"
        );
    }
    assert_ne!(log(&workshop.run("one")), log(&workshop.run("two")));

    // Afterwards, in this same process: what each run left evaluates and writes as the run itself did.
    for (name, plan) in ["one", "two"].into_iter().zip(&plans) {
        let device = NdArrayDevice::Cpu;
        let run = workshop.run(name);
        let model = Gpt2::<NdArray>::load(newest_checkpoint(&run), &device).unwrap();
        let stream = Arc::new(TokenStream::open(workshop.data(), Split::Val).unwrap());
        let set = EvaluationSet::new(
            stream,
            plan.batch.micro_batch,
            plan.batch.seq,
            plan.intervals.eval_batches,
        )
        .unwrap();
        let [.., last] = Remains::of(&run).losses[..] else {
            panic!("no steps")
        };
        assert_eq!(Some(set.evaluate(&model).loss.to_bits()), last[1], "{name}");
        let text = sample(&model, plan, 6).unwrap();
        assert_eq!(
            format!("{text}\n"),
            fs::read_to_string(run.sample(6)).unwrap(),
            "{name}"
        );
    }
}
