//! What a device reaches at most: the rate of a large product, and of copying.

use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Distribution, FloatDType, Tensor};
use gpt2_backend::TrainingJob;
use gpt2_model::Precision;
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::ops::training::TrainingBackend;
use gpt2_records::Ceilings;
use rayon::prelude::*;
use std::time::Instant;

/// Sides of the square matrices whose product is the ceiling of arithmetic: the first that keeps the device busy for a
/// millisecond, or else the last.
const SIDES: [usize; 3] = [2048, 4096, 8192];

/// Milliseconds of work that are queued before the device is waited for.
const QUEUED_MS: f64 = 5.0;

/// Elements of each of the two tensors that are scaled for the ceiling of memory: as many as the smallest limit on a buffer
/// that GPUs have (128 MiB) lets through, and far more than any cache holds.
const ELEMENTS: usize = 1 << 25;

/// How often each is timed: a ceiling is the best of them.
const REPEATS: usize = 10;

/// Measures the ceilings of products of `precision` and of memory.
pub(super) struct MeasureCeilings {
    pub(super) precision: Precision,
    /// Whether the device is the processor.
    pub(super) is_host: bool,
}

impl TrainingJob for MeasureCeilings {
    type Output = Ceilings;

    fn run<B>(self, device: B::Device) -> Ceilings
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend,
    {
        measure::<B::InnerBackend>(self.precision, self.is_host, &device)
    }
}

fn measure<B: TrainingBackend>(precision: Precision, is_host: bool, device: &B::Device) -> Ceilings {
    let mut product_side = SIDES[0];
    let mut ms = square_product::<B>(product_side, precision, device);
    for side in SIDES.into_iter().skip(1) {
        if ms >= 1.0 {
            break;
        }
        product_side = side;
        ms = square_product::<B>(side, precision, device);
    }
    let product_flops = 2.0 * (product_side as f64).powi(3) / ms * 1e3;
    Ceilings {
        product_flops,
        product_side,
        bytes_per_sec: if is_host {
            host_bytes_per_sec()
        } else {
            device_bytes_per_sec::<B>(device)
        },
    }
}

/// Bytes read and written a second by scaling two tensors into two others.
fn device_bytes_per_sec<B: TrainingBackend>(device: &B::Device) -> f64 {
    let scaled = [(); 2].map(|()| normal::<B, 1>([ELEMENTS], device));
    let ms = time::<B, _>(device, || {
        scaled.clone().map(|one| B::float_mul_scalar(one, 0.5.into()))
    });
    bytes_per_sec(ms)
}

/// The same on this thread's pool, in place: where memory is written that was not read, a processor reads it first.
fn host_bytes_per_sec() -> f64 {
    let mut numbers = vec![1.0_f32; 2 * ELEMENTS];
    let mut times = [0.0; REPEATS];
    for ms in &mut times {
        let began = Instant::now();
        numbers
            .par_chunks_mut(1 << 16)
            .for_each(|chunk| chunk.iter_mut().for_each(|number| *number *= 0.999));
        *ms = began.elapsed().as_secs_f64() * 1e3;
    }
    bytes_per_sec(times.into_iter().fold(f64::INFINITY, f64::min))
}

/// Each element is read and written.
fn bytes_per_sec(ms: f64) -> f64 {
    2.0 * 8.0 * ELEMENTS as f64 / ms * 1e3
}

/// Milliseconds of a product of matrices of `side` by `side`.
fn square_product<B: TrainingBackend>(side: usize, precision: Precision, device: &B::Device) -> f64 {
    let [x, w] = [(); 2].map(|()| {
        let x = normal::<B, 2>([side, side], device);
        match B::operand_type(precision) {
            FloatDType::BF16 => B::float_cast(x, FloatDType::BF16),
            // What is not rounded in memory may still be marked as an operand.
            dtype => B::round_weights(x, dtype),
        }
    });
    let bias = normal::<B, 1>([side], device);
    time::<B, _>(device, || B::affine(x.clone(), w.clone(), bias.clone()))
}

fn normal<B: TrainingBackend, const D: usize>(shape: [usize; D], device: &B::Device) -> FloatTensor<B> {
    let tensor = Tensor::<B, D>::random(shape, Distribution::Normal(0.0, 1.0), device);
    tensor.into_primitive().tensor()
}

/// The fewest milliseconds of `operation`. Of short ones many are queued at a time, so that the wait for the device takes no
/// part.
fn time<B: TrainingBackend, T>(device: &B::Device, mut operation: impl FnMut() -> T) -> f64 {
    let wait = || B::sync(device).expect("the device has done its work");
    let mut queue = |count: usize| {
        wait();
        let began = Instant::now();
        for _ in 0..count {
            drop(operation());
        }
        wait();
        began.elapsed().as_secs_f64() * 1e3 / count as f64
    };
    // The first may compile kernels.
    queue(1);
    let count = (QUEUED_MS / queue(1)).ceil().clamp(1.0, 100.0) as usize;
    (0..REPEATS).map(|_| queue(count)).fold(f64::INFINITY, f64::min)
}
