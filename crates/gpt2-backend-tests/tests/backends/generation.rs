//! Generation: cached equals uncached, and greedy tokens equal those of transformers.

use crate::golden::{Golden, model};
use crate::{floats, relative_error};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, Tensor, TensorData};
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::ops::training::TrainingBackend;
use gpt2_model::sampling::Sampling;
use gpt2_model::{Gpt2, Gpt2Config, KvCache, Variant};
use std::ops::Range;

fn check<B>(device: &B::Device, tolerance: f64)
where
    B: AutodiffBackend + Gpt2Backend,
    B::InnerBackend: TrainingBackend,
{
    let golden = Golden::load();
    let model = model::<B::InnerBackend>(device);
    let prompt = golden.integers("greedy.prompt");

    let greedy: Vec<i32> = generate(&model, &prompt, 32);
    assert_eq!(greedy, golden.integers("greedy.tokens"));

    // Past the block of 64 the window slides, as it does without a cache.
    let long: Vec<i32> = generate(&model, &prompt, 70);
    let mut tokens = prompt;
    for &token in &long {
        assert_eq!(
            token,
            next_without_cache(&model, &tokens, device),
            "after {} tokens",
            tokens.len()
        );
        tokens.push(token);
    }
    check_growing_cache::<B::InnerBackend>(device, tolerance);
}

/// Logits with a cache that has to grow, once by a token and once by several at a time, equal those without one.
fn check_growing_cache<B: Gpt2Backend>(device: &B::Device, tolerance: f64) {
    let config = Gpt2Config {
        vocab_size: 61,
        block_size: 150,
        n_layer: 2,
        n_head: 2,
        n_embd: 32,
        dropout: 0.0,
        variant: Variant::default(),
    };
    let model: Gpt2<B> = config.init(1, device).unwrap();
    let tokens: Vec<i32> = (0..150).map(|i| i * 17 % 61).collect();
    let input = |range: Range<usize>| {
        let tokens = tokens[range].to_vec();
        let shape = [1, tokens.len()];
        Tensor::<B, 2, Int>::from_data(TensorData::new(tokens, shape), device)
    };
    let expected = model.forward(input(0..150));
    let mut cache = KvCache::new(config.n_layer);
    for (start, end) in [(0, 60), (60, 64), (64, 65), (65, 66), (66, 150)] {
        let found = floats(model.next_logits(input(start..end), &mut cache));
        let error = relative_error(&found, &floats(expected.clone().narrow(1, end - 1, 1)));
        assert!(error <= tolerance, "after {end} tokens: relative error {error:e}");
    }
}

fn generate<B: Gpt2Backend>(model: &Gpt2<B>, prompt: &[i32], count: usize) -> Vec<i32> {
    model
        .generate(prompt, Sampling::GREEDY, 0)
        .take(count)
        .collect::<Result<_, _>>()
        .unwrap()
}

fn next_without_cache<B: Gpt2Backend>(model: &Gpt2<B>, tokens: &[i32], device: &B::Device) -> i32 {
    let window = &tokens[tokens.len().saturating_sub(model.config.block_size)..];
    let input = Tensor::<B, 2, Int>::from_data(TensorData::new(window.to_vec(), [1, window.len()]), device);
    let best: Vec<i32> = model
        .forward(input)
        .narrow(1, window.len() - 1, 1)
        .argmax(2)
        .into_data()
        .convert::<i32>()
        .into_vec()
        .unwrap();
    best[0]
}

crate::on_every_backend!(check);
