//! Logits position by position, by the kernels that compute one, against a model on the CPU that sees all positions at once.

use crate::{Kernels, floats, relative_error};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use burn_ndarray::{NdArray, NdArrayDevice};
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::{Gpt2, Gpt2Config, KvCache, Operations, Variant};
use std::ops::Range;

/// Sequences of a batch.
const BATCH: usize = 2;

/// Positions, more than a cube has units.
const POSITIONS: usize = 270;

/// Heads of 24 channels, which share out a cube's units with a remainder, and rows past the vocabulary.
fn narrow() -> Gpt2Config {
    Gpt2Config {
        vocab_size: 61,
        block_size: POSITIONS,
        n_layer: 2,
        n_head: 2,
        n_embd: 48,
        dropout: 0.0,
        variant: Variant::default(),
    }
}

/// Heads of 64 channels, a width of its own between the products of the MLP, and a classifier that is not the embedding.
fn wide() -> Gpt2Config {
    Gpt2Config {
        vocab_size: 300,
        n_embd: 192,
        n_head: 3,
        variant: Variant {
            n_inner: Some(504),
            tie_word_embeddings: false,
            ..Variant::default()
        },
        ..narrow()
    }
}

fn tokens(vocab_size: usize) -> Vec<i32> {
    let token = |place: usize| (place * place * 7 + place * 17) % vocab_size;
    (0..BATCH * POSITIONS).map(|place| token(place) as i32).collect()
}

/// Positions `range` of each sequence, `[B, T]`.
fn input<B: Backend>(tokens: &[i32], range: Range<usize>, device: &B::Device) -> Tensor<B, 2, Int> {
    let rows = Tensor::from_data(TensorData::new(tokens.to_vec(), [BATCH, POSITIONS]), device);
    rows.narrow(1, range.start, range.len())
}

fn check<B>(device: &B::Device, kernels: Kernels)
where
    B: AutodiffBackend + Gpt2Backend,
    B::InnerBackend: Gpt2Backend,
{
    for config in [narrow(), wide()] {
        assert!(B::InnerBackend::decode_kernels(&config).is_some());
        let tokens = tokens(config.vocab_size);
        let exact: Gpt2<NdArray> = config.init(1, &NdArrayDevice::Cpu).unwrap();
        let exact = exact.forward(input(&tokens, 0..POSITIONS, &NdArrayDevice::Cpu));
        for &(precision, tolerance) in kernels.precisions {
            let model: Gpt2<B::InnerBackend> = config.init(1, device).unwrap();
            let model = model.with_precision(precision).with_rounded_operands();
            let mut cache = KvCache::new(config.n_layer);
            // First more than are taken one by one.
            let ends = (100..260).chain((262..=POSITIONS).step_by(2));
            for end in ends {
                let new = input(&tokens, cache.len()..end, device);
                let found = floats(model.next_logits(new, &mut cache));
                let expected = floats(exact.clone().narrow(1, end - 1, 1));
                let error = relative_error(&found, &expected);
                assert!(
                    error <= tolerance,
                    "{precision}, {end} positions: relative error {error:e}"
                );
            }
        }
    }
}

/// In plain tensors the same model goes without them.
#[test]
fn plain_tensors_have_none() {
    let model: Gpt2<NdArray> = narrow().init(1, &NdArrayDevice::Cpu).unwrap();
    let tokens = tokens(61);
    let first = |model: &Gpt2<NdArray>| {
        let input = input(&tokens, 0..3, &NdArrayDevice::Cpu);
        floats(model.next_logits(input, &mut KvCache::new(2)))
    };
    assert!(NdArray::<f32>::decode_kernels(&narrow()).is_none());
    let reference = model.clone().with_operations(Operations::Reference);
    assert!(relative_error(&first(&model), &first(&reference)) < 1e-4);
}

crate::job!(run, check);

#[test]
fn cuda() {
    run(gpt2_backend::BackendKind::Cuda);
}

#[test]
fn wgpu() {
    run(gpt2_backend::BackendKind::Wgpu);
}
