//! Training batches in the order of their steps, read ahead on worker threads. Which windows a batch holds is decided in
//! `order.rs`, so nothing here can change what is trained on: the threads only change when it is ready.

use std::any::Any;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use gpt2_base::Invalid;

use crate::batch::TokenBatch;
use crate::dataset::TokenStream;
use crate::error::DataError;
use crate::order::{BatchPlan, WindowOrder, Windows};

/// What a [`Loader`] reads. All numbers but `rank`, `seed` and `prefetch` are at least 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Sequences in a micro-step of this rank, B.
    pub batch: usize,
    /// Tokens in a sequence, T.
    pub seq: usize,
    /// Micro-steps in an optimizer step.
    pub grad_accum: usize,
    /// Ranks that share the sequences.
    pub world_size: usize,
    /// This rank, from 0.
    pub rank: usize,
    /// Seed of the order.
    pub seed: u64,
    /// Batches to hold ready, shared out over the workers and rounded up. Each worker holds one more in its hands.
    pub prefetch: usize,
    /// Threads that read.
    pub workers: usize,
}

/// Delivers the batches of one rank in the order of (step, micro-step), whatever the number of workers.
///
/// Worker `w` of `k` makes the batches `w`, `w + k`, `w + 2k`, … into a bounded channel of its own, and the caller takes from
/// the channels one after the other. So the order needs no sorting, and a slow caller stops the workers. Dropping the loader ends and
/// joins them.
#[derive(Debug)]
pub struct Loader {
    workers: Vec<Worker>,
    /// Batches delivered so far.
    delivered: u64,
}

#[derive(Debug)]
struct Worker {
    /// `None` once the loader is being dropped: a closed channel is what ends the thread.
    batches: Option<Receiver<Result<TokenBatch, DataError>>>,
    /// `None` once the thread was joined.
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts to read ahead, beginning with the first batch of `first_step`, in the same time for any step.
    ///
    /// # Errors
    /// If a number in `config` is out of range, the stream has fewer windows than one step takes, or no thread can start.
    pub fn start(stream: Arc<TokenStream>, config: &LoaderConfig, first_step: u64) -> Result<Self, DataError> {
        let source = Source::new(stream, config)?;
        let first = first_step * source.plan.grad_accum;
        Self::spawn(config, first, move |index| source.batch(index))
    }

    /// `make(n)` makes the batch that is the `n`-th of the whole training.
    fn spawn(
        config: &LoaderConfig,
        first: u64,
        make: impl Fn(u64) -> Result<TokenBatch, DataError> + Send + Sync + 'static,
    ) -> Result<Self, DataError> {
        let make = Arc::new(make);
        let mut loader = Self {
            workers: Vec::new(),
            delivered: 0,
        };
        for number in 0..config.workers {
            let (sender, receiver) = sync_channel(config.prefetch.div_ceil(config.workers));
            let make = Arc::clone(&make);
            let mine = (first + number as u64..).step_by(config.workers);
            let work = move || {
                for index in mine {
                    let batch = make(index);
                    let failed = batch.is_err();
                    if sender.send(batch).is_err() || failed {
                        return;
                    }
                }
            };
            let thread = thread::Builder::new()
                .name(format!("loader-{number}"))
                .spawn(work)
                .map_err(|source| DataError::LoaderThread { source })?;
            loader.workers.push(Worker {
                batches: Some(receiver),
                thread: Some(thread),
            });
        }
        Ok(loader)
    }

    /// The next batch, waiting for it if it is not ready. [`TokenBatch::wait`] tells how long.
    ///
    /// # Errors
    /// What reading it gave, such as [`DataError::ShardChanged`], or [`DataError::LoaderWorker`] if the thread that owes
    /// it has died. No more batches come after an error.
    #[expect(
        clippy::should_implement_trait,
        reason = "the batches do not end, so there is no `None` to tell apart"
    )]
    pub fn next(&mut self) -> Result<TokenBatch, DataError> {
        let turn = (self.delivered % self.workers.len() as u64) as usize;
        let worker = &mut self.workers[turn];
        let asked = Instant::now();
        if let Some(Ok(batch)) = worker.batches.as_ref().map(Receiver::recv) {
            let batch = batch?;
            self.delivered += 1;
            return Ok(TokenBatch {
                wait: asked.elapsed(),
                ..batch
            });
        }
        // The channel closes before the loader does only after an error, or if the thread panicked.
        let reason = match worker.thread.take().map(JoinHandle::join) {
            Some(Err(panic)) => panic_message(panic.as_ref()),
            _ => "it had stopped before".to_owned(),
        };
        Err(DataError::LoaderWorker { worker: turn, reason })
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Close every channel before waiting for any thread, so that they all end at once.
        for worker in &mut self.workers {
            worker.batches = None;
        }
        for thread in self.workers.iter_mut().filter_map(|worker| worker.thread.take()) {
            // A panic now concerns a batch that nobody asks for any more.
            let _ = thread.join();
        }
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it panicked".to_owned())
}

/// Makes any batch of one rank from its number.
struct Source {
    stream: Arc<TokenStream>,
    windows: Windows,
    order: WindowOrder,
    plan: BatchPlan,
    rank: u64,
    seq: usize,
}

impl Source {
    fn new(stream: Arc<TokenStream>, config: &LoaderConfig) -> Result<Self, DataError> {
        config.check()?;
        let windows = stream.windows(config.seq)?;
        let plan = BatchPlan {
            batch: config.batch as u64,
            grad_accum: config.grad_accum as u64,
            world_size: config.world_size as u64,
        };
        let too_few = || DataError::ShorterThanStep {
            path: stream.dir().to_path_buf(),
            split: stream.split(),
            windows: windows.count(),
            seq: config.seq,
            batch: config.batch,
            grad_accum: config.grad_accum,
            world_size: config.world_size,
        };
        if windows.count() < plan.sequences_per_step() {
            return Err(too_few());
        }
        let order = WindowOrder::new(windows.count(), config.seed).ok_or_else(too_few)?;
        Ok(Self {
            windows,
            order,
            plan,
            rank: config.rank as u64,
            seq: config.seq,
            stream,
        })
    }

    fn batch(&self, index: u64) -> Result<TokenBatch, DataError> {
        let (step, micro_step) = (index / self.plan.grad_accum, index % self.plan.grad_accum);
        let first_sequence = self.plan.first_sequence(step, micro_step, self.rank);
        let rows = first_sequence..first_sequence + self.plan.batch;
        let starts = rows.map(|sequence| self.windows.start(self.order.window(sequence)));
        Ok(TokenBatch {
            step,
            micro_step,
            first_sequence,
            ..TokenBatch::read(&self.stream, self.seq, starts)?
        })
    }
}

impl LoaderConfig {
    fn check(&self) -> Result<(), DataError> {
        for (key, value) in [
            ("batch", self.batch),
            ("grad-accum", self.grad_accum),
            ("world-size", self.world_size),
            ("loader-workers", self.workers),
        ] {
            if value == 0 {
                return Err(Invalid::new(key, &0, "at least 1").into());
            }
        }
        if self.rank >= self.world_size {
            let expected = format!("below the world size ({})", self.world_size);
            return Err(Invalid::new("rank", &self.rank, expected).into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Split;
    use crate::shard_writer::ShardWriter;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    const CONFIG: LoaderConfig = LoaderConfig {
        batch: 3,
        seq: 5,
        grad_accum: 2,
        world_size: 2,
        rank: 0,
        seed: 42,
        prefetch: 4,
        workers: 2,
    };

    /// 200 tokens in two shards: 40 windows of 5, and 12 sequences a step, so an epoch ends within the fourth step.
    fn stream() -> Result<(tempfile::TempDir, Arc<TokenStream>), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        for (name, tokens) in [("a_train.bin", 0..73), ("b_train.bin", 73..200)] {
            let mut writer = ShardWriter::create(dir.path().join(name))?;
            writer.extend(&tokens.collect::<Vec<_>>())?;
            writer.finish()?;
        }
        let stream = TokenStream::open(dir.path(), Split::Train)?;
        Ok((dir, Arc::new(stream)))
    }

    fn take(
        stream: &Arc<TokenStream>,
        config: &LoaderConfig,
        first_step: u64,
        count: usize,
    ) -> Result<Vec<TokenBatch>, DataError> {
        let mut loader = Loader::start(Arc::clone(stream), config, first_step)?;
        (0..count)
            .map(|_| {
                Ok(TokenBatch {
                    wait: std::time::Duration::ZERO,
                    ..loader.next()?
                })
            })
            .collect()
    }

    #[test]
    fn threads_and_prefetch_do_not_change_the_batches() -> Outcome {
        let (_dir, stream) = stream()?;
        let one = take(
            &stream,
            &LoaderConfig {
                workers: 1,
                prefetch: 0,
                ..CONFIG
            },
            0,
            20,
        )?;
        for (workers, prefetch) in [(1, 7), (2, 0), (3, 4), (7, 2)] {
            assert_eq!(
                one,
                take(
                    &stream,
                    &LoaderConfig {
                        prefetch,
                        workers,
                        ..CONFIG
                    },
                    0,
                    20
                )?
            );
        }
        let steps: Vec<_> = one.iter().map(|batch| (batch.step, batch.micro_step)).collect();
        assert_eq!(steps[..5], [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]);
        Ok(())
    }

    #[test]
    fn seeking_equals_walking() -> Outcome {
        let (_dir, stream) = stream()?;
        let walked = take(&stream, &CONFIG, 0, 40)?;
        for step in [1, 3, 7, 15] {
            assert_eq!(take(&stream, &CONFIG, step, 4)?, walked[step as usize * 2..][..4]);
        }
        Ok(())
    }

    #[test]
    fn an_epoch_over_all_ranks_has_every_target_once() -> Outcome {
        let (_dir, stream) = stream()?;
        // 200 tokens have 199 targets: 40 windows, the last of which is shifted back by one.
        let epoch = 40;
        let mut rows = Vec::new();
        for rank in 0..2 {
            for batch in take(&stream, &LoaderConfig { rank, ..CONFIG }, 0, 8)? {
                assert_eq!(
                    (batch.batch, batch.seq, batch.inputs.len(), batch.targets.len()),
                    (3, 5, 15, 15)
                );
                for (row, targets) in batch.targets.chunks(5).enumerate() {
                    rows.push((batch.first_sequence + row as u64, targets.to_vec()));
                }
                for (inputs, targets) in batch.inputs.chunks(5).zip(batch.targets.chunks(5)) {
                    assert_eq!(inputs[1..], targets[..4]);
                }
            }
        }
        let mut targets: Vec<i32> = rows
            .into_iter()
            .filter(|(sequence, _)| *sequence < epoch)
            .flat_map(|(_, row)| row)
            .collect();
        targets.sort_unstable();
        assert_eq!(targets.len(), 200);
        targets.dedup();
        assert_eq!(targets, (1..200).collect::<Vec<_>>());
        Ok(())
    }

    #[test]
    fn less_data_than_one_step_is_refused() -> Outcome {
        let (_dir, stream) = stream()?;
        let error = Loader::start(Arc::clone(&stream), &LoaderConfig { batch: 11, ..CONFIG }, 0).unwrap_err();
        assert!(
            matches!(
                error,
                DataError::ShorterThanStep {
                    windows: 40,
                    batch: 11,
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.to_string().contains("44 sequences"), "{error}");
        let error = Loader::start(stream, &LoaderConfig { seq: 200, ..CONFIG }, 0).unwrap_err();
        assert!(matches!(error, DataError::StreamTooShort { .. }), "{error}");
        Ok(())
    }

    #[test]
    fn numbers_out_of_range_are_named() -> Outcome {
        let (_dir, stream) = stream()?;
        for (config, name) in [
            (LoaderConfig { batch: 0, ..CONFIG }, "batch"),
            (LoaderConfig { seq: 0, ..CONFIG }, "seq"),
            (
                LoaderConfig {
                    grad_accum: 0,
                    ..CONFIG
                },
                "grad-accum",
            ),
            (
                LoaderConfig {
                    world_size: 0,
                    ..CONFIG
                },
                "world-size",
            ),
            (LoaderConfig { workers: 0, ..CONFIG }, "loader-workers"),
            (LoaderConfig { rank: 2, ..CONFIG }, "rank"),
        ] {
            let error = Loader::start(Arc::clone(&stream), &config, 0).unwrap_err();
            assert!(
                matches!(&error, DataError::Invalid(Invalid { key, .. }) if key == name),
                "{error}"
            );
        }
        Ok(())
    }

    #[test]
    fn a_worker_that_dies_is_an_error_after_the_batches_before_it() -> Outcome {
        let (_dir, stream) = stream()?;
        let source = Source::new(stream, &CONFIG)?;
        let mut loader = Loader::spawn(&CONFIG, 0, move |index| {
            assert!(index < 3, "batch {index} cannot be made");
            source.batch(index)
        })?;
        for _ in 0..3 {
            loader.next()?;
        }
        let error = loader.next().unwrap_err();
        assert!(error.to_string().contains("batch 3 cannot be made"), "{error}");
        assert!(matches!(loader.next(), Err(DataError::LoaderWorker { worker: 1, .. })));
        Ok(())
    }

    #[test]
    fn dropping_the_loader_ends_its_threads() -> Outcome {
        let (_dir, stream) = stream()?;
        for prefetch in [0, 100] {
            let mut loader = Loader::start(Arc::clone(&stream), &LoaderConfig { prefetch, ..CONFIG }, 0)?;
            loader.next()?;
            drop(loader);
            // The workers' handles to the stream are gone.
            assert_eq!(Arc::strong_count(&stream), 1);
        }
        Ok(())
    }
    #[test]
    fn a_shard_that_is_cut_short_is_an_error_after_the_batches_before_it() -> Outcome {
        let (dir, stream) = stream()?;
        for workers in [1, 3] {
            let mut loader = Loader::start(
                Arc::clone(&stream),
                &LoaderConfig {
                    prefetch: 0,
                    workers,
                    ..CONFIG
                },
                0,
            )?;
            loader.next()?;
            let shard = dir.path().join("b_train.bin");
            let bytes = std::fs::read(&shard)?;
            std::fs::write(&shard, "")?;
            let error = (0..40).find_map(|_| loader.next().err()).ok_or("no error")?;
            assert!(
                matches!(&error, DataError::ShardChanged { path, .. } if *path == shard),
                "{error}"
            );
            drop(loader);
            std::fs::write(&shard, bytes)?;
        }
        Ok(())
    }
}
