//! A model of eight channels that trains in this process, on tokens made up here.

use gpt2_backend::BackendChoice;
use gpt2_data::{ShardWriter, SplitMix64};
use gpt2_train::checkpoint::Checkpoints;
use gpt2_train::config::RunConfig;
use gpt2_train::launch::{Finished, Keep, Surroundings, View};
use gpt2_train::report::Provenance;
use gpt2_train::run_dir::RunPaths;
use gpt2_train::step_log::{StepRecord, read_records};
use gpt2_train::stop::StopRequest;
use gpt2_train::{Launch, TrainError};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Tokens of the training split.
const TRAIN_TOKENS: u64 = 4_000;

/// Data and runs in a directory that goes with it.
pub(crate) struct Workshop {
    dir: TempDir,
}

impl Workshop {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let workshop = Self { dir };
        workshop.write_data(1);
        workshop
    }

    /// Writes both splits, drawn from `seed`.
    pub(crate) fn write_data(&self, seed: u64) {
        let data = self.data();
        fs::create_dir_all(&data).unwrap();
        let mut rng = SplitMix64::new(seed);
        for (split, tokens) in [("train", TRAIN_TOKENS), ("val", 200)] {
            let mut shard = ShardWriter::create(data.join(format!("{split}_000000.bin"))).unwrap();
            for _ in 0..tokens {
                shard.push((rng.next_u64() % 50_000) as u16).unwrap();
            }
            shard.finish().unwrap();
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn run(&self, name: &str) -> RunPaths {
        RunPaths::new(self.dir.path().join(name))
    }

    /// Six steps of two micro-steps with dropout: everything that a resumed run could get wrong.
    pub(crate) fn config(&self, name: &str) -> RunConfig {
        RunConfig {
            run: Some(self.run(name).root().to_owned()),
            data: Some(self.data()),
            n_layer: Some(2),
            n_head: Some(2),
            n_embd: Some(8),
            block_size: Some(16),
            dropout: Some(0.1),
            backend: Some(BackendChoice::Ndarray),
            threads: Some(2),
            steps: Some(6),
            decay_steps: Some(6),
            warmup: Some(1),
            lr: Some(1e-2),
            batch: Some(2.into()),
            seq: Some(16),
            grad_accum: Some(2),
            eval_every: Some(2),
            eval_batches: Some(3),
            sample_every: Some(3),
            sample_tokens: Some(4),
            checkpoint_every: Some(3),
            keep: Some(100),
            ..RunConfig::default()
        }
    }
}

/// The files of the run of `config`.
pub(crate) fn run_of(config: &RunConfig) -> RunPaths {
    RunPaths::new(config.run.clone().unwrap())
}

/// Starts a run.
pub(crate) fn train(config: &RunConfig) -> Result<Finished, TrainError> {
    Launch::new(config)?.run(unwatched())
}

/// Goes on with a run from its newest whole checkpoint.
pub(crate) fn resume(config: &RunConfig) -> Result<Finished, TrainError> {
    Launch::resume(config.clone())?.run(unwatched())
}

/// A run that is not watched and that keeps everything.
pub(crate) fn unwatched() -> Surroundings {
    Surroundings {
        view: View::silent(),
        stop: StopRequest::default(),
        announcement: None,
        keep: Keep::Everything(Provenance::default()),
        tensorboard: false,
    }
}

/// What a run has left: the bits of its losses, and the bytes of its newest checkpoint and of its samples.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Remains {
    pub(crate) losses: Vec<[Option<u64>; 4]>,
    pub(crate) weights: Vec<u8>,
    pub(crate) moments: Vec<u8>,
    pub(crate) samples: Vec<(PathBuf, Vec<u8>)>,
}

impl Remains {
    pub(crate) fn of(run: &RunPaths) -> Self {
        let newest = newest_checkpoint(run);
        let read = |name: &str| fs::read(newest.join(name)).unwrap();
        let mut samples: Vec<_> = fs::read_dir(run.samples())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap()))
            .collect();
        samples.sort();
        Self {
            losses: records(run)
                .iter()
                .map(|record| [record.loss, record.val_loss, record.lr, record.grad_norm].map(|x| x.map(f64::to_bits)))
                .collect(),
            weights: read("model.safetensors"),
            moments: read("optimizer.safetensors"),
            samples,
        }
    }
}

pub(crate) fn records(run: &RunPaths) -> Vec<StepRecord> {
    read_records(&run.metrics()).unwrap()
}

/// The steps that have a checkpoint.
pub(crate) fn checkpoints(run: &RunPaths) -> Vec<u64> {
    Checkpoints::open(run.checkpoints()).unwrap().steps().unwrap()
}

pub(crate) fn newest_checkpoint(run: &RunPaths) -> PathBuf {
    let all = Checkpoints::open(run.checkpoints()).unwrap();
    all.path(*all.steps().unwrap().last().unwrap())
}

/// Copies a directory with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}
