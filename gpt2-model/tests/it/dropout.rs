//! Training with dropout, which goes operation by operation.

use crate::support::{
    DEVICE, Training, bits, check_loss_and_gradients, floats, golden_model, relative_error, small, tokens,
};
use burn::nn::DropoutConfig;
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};
use gpt2_model::{Computation, Gpt2, Gpt2Config};
use std::sync::{Mutex, PoisonError};

/// Burn's random state is one for the process.
static RANDOM_STATE: Mutex<()> = Mutex::new(());

/// The smallest probability takes the way of dropout and drops nothing: 1 − p is 1.
#[test]
fn what_drops_nothing_equals_the_golden_values() {
    let _alone = RANDOM_STATE.lock().unwrap_or_else(PoisonError::into_inner);
    check_loss_and_gradients(&golden_model::<Training>(f64::MIN_POSITIVE, &DEVICE), &DEVICE, 1e-4);
}

#[test]
fn the_mean_over_seeds_is_attention_without_dropout() {
    const SEEDS: u64 = 2000;
    let _alone = RANDOM_STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let model: Gpt2<Training> = small().init(3, &DEVICE).unwrap();
    let mut attention = model.h[0].attn.clone();
    Training::seed(&DEVICE, 1);
    let x = Tensor::<Training, 2>::random([2 * 8, 8], Distribution::Normal(0.0, 30.0), &DEVICE);
    let expected = floats(attention.forward(x.clone(), 8, Computation::default(), None));
    attention.attn_dropout = DropoutConfig::new(0.2).init();
    let mut mean = vec![0.0_f32; expected.len()];
    for seed in 0..SEEDS {
        Training::seed(&DEVICE, seed);
        let dropped = floats(attention.forward(x.clone(), 8, Computation::default(), None));
        assert_ne!(dropped, expected);
        for (sum, value) in mean.iter_mut().zip(dropped) {
            *sum += value / SEEDS as f32;
        }
    }
    // Each weight has the deviation √(p/(1−p)) = 0.5 of itself, the mean of 2,000 a hundredth.
    let error = relative_error(&mean, &expected);
    assert!(error < 0.03, "relative error {error}");
}

#[test]
fn the_seed_decides_what_is_dropped() {
    let _alone = RANDOM_STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let config = Gpt2Config {
        dropout: 0.1,
        ..small()
    };
    let model: Gpt2<Training> = config.init(3, &DEVICE).unwrap();
    let loss = |seed| {
        Training::seed(&DEVICE, seed);
        bits(&floats(
            model.loss(tokens(2, 16, 61, 0, &DEVICE), tokens(2, 16, 61, 1, &DEVICE)),
        ))
    };
    assert_eq!(loss(1), loss(1));
    assert_ne!(loss(1), loss(2));
}
