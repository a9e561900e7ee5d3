//! Generation: cached equals uncached, and greedy tokens equal those of transformers.

use crate::golden::{Golden, model};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{Int, Tensor, TensorData};
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::sampling::Sampling;
use gpt2_model::{Generator, Gpt2};
use gpt2_train::optimizer::TrainingBackend;

fn check<B>(device: &B::Device, _tolerance: f64)
where
    B: AutodiffBackend + Gpt2Backend,
    B::InnerBackend: TrainingBackend,
{
    let golden = Golden::load();
    let model = model::<B::InnerBackend>(device);
    let prompt = golden.integers("greedy.prompt");

    let greedy: Vec<i32> = Generator::new(&model, &prompt, Sampling::GREEDY, 0).take(32).collect();
    assert_eq!(greedy, golden.integers("greedy.tokens"));

    // Past the block of 64 the window slides, as it does without a cache.
    let long: Vec<i32> = Generator::new(&model, &prompt, Sampling::GREEDY, 0).take(70).collect();
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
}

fn next_without_cache<B: Gpt2Backend>(model: &Gpt2<B>, tokens: &[i32], device: &B::Device) -> i32 {
    let window = &tokens[tokens.len().saturating_sub(model.config.block_size)..];
    let input = Tensor::<B, 2, Int>::from_data(TensorData::new(window.to_vec(), [1, window.len()]), device);
    let best: Vec<i32> = model
        .logits(input)
        .narrow(1, window.len() - 1, 1)
        .argmax(2)
        .into_data()
        .convert::<i32>()
        .into_vec()
        .unwrap();
    best[0]
}

crate::on_every_backend!(check);
