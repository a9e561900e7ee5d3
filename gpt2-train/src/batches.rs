//! From token batches on the host to tensors on the device, as Burn's data loaders.

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::tensor::backend::Backend;
use burn::tensor::{Int, Tensor, TensorData};
use gpt2_data::{DataError, Loader, LoaderConfig, TokenBatch, TokenStream, ValidationWindows};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What one forward and backward pass takes.
#[derive(Debug, Clone)]
pub struct MicroBatch<B: Backend> {
    /// `[B, T]`.
    pub inputs: Tensor<B, 2, Int>,
    /// The token after each of `inputs`, `[B, T]`.
    pub targets: Tensor<B, 2, Int>,
    /// Place of the first sequence in the order of the data.
    pub first_sequence: u64,
    /// How long the data was waited for.
    pub wait: Duration,
}

impl<B: Backend> MicroBatch<B> {
    /// Uploads `batch`.
    pub fn new(batch: TokenBatch, device: &B::Device) -> Self {
        let shape = [batch.batch, batch.seq];
        Self {
            inputs: Tensor::from_data(TensorData::new(batch.inputs, shape), device),
            targets: Tensor::from_data(TensorData::new(batch.targets, shape), device),
            first_sequence: batch.first_sequence,
            wait: batch.wait,
        }
    }
}

/// The training batches of a range of optimizer steps. An item is a step; the iterator yields its micro-batches.
///
/// Burn's iterators cannot fail. An error ends the iteration and waits in [`TrainingBatches::error`].
#[derive(Debug, Clone)]
pub struct TrainingBatches<B: Backend> {
    stream: Arc<TokenStream>,
    config: LoaderConfig,
    /// From the first step that is not yet taken to the last of the run.
    steps: std::ops::Range<u64>,
    device: B::Device,
    error: ErrorSlot,
}

impl<B: Backend> TrainingBatches<B> {
    /// The batches of `steps`, uploaded to `device`.
    pub fn new(stream: Arc<TokenStream>, config: LoaderConfig, steps: std::ops::Range<u64>, device: B::Device) -> Self {
        Self {
            stream,
            config,
            steps,
            device,
            error: ErrorSlot::default(),
        }
    }

    /// The slot in which an iteration leaves the error that ended it.
    pub fn error(&self) -> ErrorSlot {
        self.error.clone()
    }
}

impl<B: Backend> DataLoader<B, MicroBatch<B>> for TrainingBatches<B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<MicroBatch<B>> + 'a> {
        let loader = match Loader::start(Arc::clone(&self.stream), &self.config, self.steps.start) {
            Ok(loader) => Some(loader),
            Err(error) => {
                self.error.put(error);
                None
            }
        };
        let micro_batches = (self.steps.end - self.steps.start) * self.config.grad_accum as u64;
        Box::new(TrainingIterator {
            batches: self,
            loader,
            taken: 0,
            micro_batches,
        })
    }

    fn num_items(&self) -> usize {
        (self.steps.end - self.steps.start) as usize
    }

    fn to_device(&self, device: &B::Device) -> Arc<dyn DataLoader<B, MicroBatch<B>>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, MicroBatch<B>>> {
        let first = self.steps.start;
        let steps = first + start as u64..(first + end as u64).min(self.steps.end);
        Arc::new(Self { steps, ..self.clone() })
    }
}

struct TrainingIterator<'a, B: Backend> {
    batches: &'a TrainingBatches<B>,
    loader: Option<Loader>,
    taken: u64,
    micro_batches: u64,
}

impl<B: Backend> Iterator for TrainingIterator<'_, B> {
    type Item = MicroBatch<B>;

    fn next(&mut self) -> Option<MicroBatch<B>> {
        if self.taken == self.micro_batches {
            return None;
        }
        match self.loader.as_mut()?.next() {
            Ok(batch) => {
                self.taken += 1;
                Some(MicroBatch::new(batch, &self.batches.device))
            }
            Err(error) => {
                self.batches.error.put(error);
                None
            }
        }
    }
}

impl<B: Backend> DataLoaderIterator<MicroBatch<B>> for TrainingIterator<'_, B> {
    fn progress(&self) -> Progress {
        Progress::new(
            (self.taken / self.batches.config.grad_accum as u64) as usize,
            self.batches.num_items(),
        )
    }
}

/// The validation batches, always the same ones in the same order. An item is a batch.
#[derive(Debug, Clone)]
pub struct ValidationBatches<B: Backend> {
    batches: Arc<Vec<TokenBatch>>,
    range: std::ops::Range<usize>,
    device: B::Device,
}

impl<B: Backend> ValidationBatches<B> {
    /// The first `max_batches` batches of `batch` windows of `seq` tokens.
    ///
    /// # Errors
    /// [`DataError`] if the split is shorter than one window or cannot be read.
    pub fn new(
        stream: Arc<TokenStream>,
        batch: usize,
        seq: usize,
        max_batches: usize,
        device: B::Device,
    ) -> Result<Self, DataError> {
        let batches: Vec<_> = ValidationWindows::new(stream)
            .batches(batch, seq, Some(max_batches))?
            .collect::<Result<_, _>>()?;
        Ok(Self {
            range: 0..batches.len(),
            batches: Arc::new(batches),
            device,
        })
    }

    /// No batches, for a run that never evaluates.
    pub fn none(device: B::Device) -> Self {
        Self {
            range: 0..0,
            batches: Arc::default(),
            device,
        }
    }
}

impl<B: Backend> DataLoader<B, MicroBatch<B>> for ValidationBatches<B> {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<MicroBatch<B>> + 'a> {
        Box::new(ValidationIterator {
            batches: self,
            taken: 0,
        })
    }

    fn num_items(&self) -> usize {
        self.range.len()
    }

    fn to_device(&self, device: &B::Device) -> Arc<dyn DataLoader<B, MicroBatch<B>>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<B, MicroBatch<B>>> {
        let range = self.range.start + start..(self.range.start + end).min(self.range.end);
        Arc::new(Self { range, ..self.clone() })
    }
}

struct ValidationIterator<'a, B: Backend> {
    batches: &'a ValidationBatches<B>,
    taken: usize,
}

impl<B: Backend> Iterator for ValidationIterator<'_, B> {
    type Item = MicroBatch<B>;

    fn next(&mut self) -> Option<MicroBatch<B>> {
        let batch = self.batches.batches[self.batches.range.clone()].get(self.taken)?;
        self.taken += 1;
        Some(MicroBatch::new(batch.clone(), &self.batches.device))
    }
}

impl<B: Backend> DataLoaderIterator<MicroBatch<B>> for ValidationIterator<'_, B> {
    fn progress(&self) -> Progress {
        Progress::new(self.taken, self.batches.num_items())
    }
}

/// Holds the error that ended an iteration.
#[derive(Debug, Clone, Default)]
pub struct ErrorSlot(Arc<Mutex<Option<DataError>>>);

impl ErrorSlot {
    fn put(&self, error: DataError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Takes the error out, if there is one.
    pub fn take(&self) -> Option<DataError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
