//! The loss, of each token and their mean.

use crate::support::{
    DEVICE, Golden, Inference, PRECISIONS, Training, bits, floats, golden_model, gradients, relative_error, small,
    tokens,
};
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::{Gpt2, Gpt2Config, Precision};

#[test]
fn token_losses_are_the_golden_logits_cross_entropy() {
    let golden = Golden::load();
    let model = golden_model::<Inference>(0.0, &DEVICE);
    let (inputs, targets) = (golden.tokens("inputs", &DEVICE), golden.tokens("targets", &DEVICE));
    let losses = model.token_losses(inputs, targets.clone());
    assert_eq!(losses.dims(), targets.dims());
    let losses = floats(losses);
    let targets: Vec<i32> = targets.into_data().convert::<i32>().into_vec().unwrap();
    let expected: Vec<f32> = golden
        .floats("logits")
        .chunks_exact(512)
        .zip(targets)
        .map(|(logits, target)| {
            let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            (sum.ln() - f64::from(logits[target as usize])) as f32
        })
        .collect();
    let error = relative_error(&losses, &expected);
    assert!(error < 1e-4, "relative error {error:.2e}");
    let error = relative_error(&[mean(&losses)], &golden.floats("loss"));
    assert!(error < 1e-5, "mean: relative error {error:.2e}");
}

#[test]
fn the_mean_of_the_token_losses_is_the_loss() {
    /// More rows than a chunk of logits.
    const BATCH: usize = 40;
    fn check<B: Gpt2Backend>(device: &B::Device, precision: Precision) {
        let model: Gpt2<B> = small().init(7, device).unwrap().with_precision(precision);
        let batch = |first| tokens(BATCH, 16, 61, first, device);
        let losses = floats(model.token_losses(batch(0), batch(1)));
        let loss = floats(model.loss(batch(0), batch(1)));
        let error = relative_error(&[mean(&losses)], &loss);
        assert!(error < 1e-6, "relative error {error:.2e} in {precision}");
    }
    for &precision in PRECISIONS {
        check::<Inference>(&DEVICE, precision);
        check::<Training>(&DEVICE, precision);
    }
    #[cfg(all(feature = "flex", feature = "ndarray"))]
    check::<burn_ndarray::NdArray>(&burn_ndarray::NdArrayDevice::Cpu, Precision::F32);
}

/// Two models in one process, each with threads of its own, compute what each computes alone.
#[test]
fn models_that_train_at_once_do_not_touch_each_other() {
    fn steps(seed: u64, threads: usize) -> Vec<Vec<u32>> {
        // Another vocabulary, so that the buffers of the logits differ.
        let config = Gpt2Config {
            vocab_size: 61 + 200 * threads,
            ..small()
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let model: Gpt2<Training> = config.init(seed, &DEVICE).unwrap();
            (0..8)
                .flat_map(|step| {
                    let batch = |first| tokens(40, 16, config.vocab_size, first, &DEVICE);
                    let loss = model.loss(batch(step), batch(step + 1));
                    let gradients = gradients(&model, &loss);
                    std::iter::once(bits(&floats(loss))).chain(gradients.into_values().map(|values| bits(&values)))
                })
                .collect()
        })
    }
    let alone = [(1, 1), (2, 3)].map(|(seed, threads)| steps(seed, threads));
    let together = std::thread::scope(|scope| {
        let runs = [(1, 1), (2, 3)].map(|(seed, threads)| scope.spawn(move || steps(seed, threads)));
        runs.map(|run| run.join().unwrap())
    });
    assert!(alone == together);
    assert!(steps(2, 3) == alone[1], "and again");
}

fn mean(losses: &[f32]) -> f32 {
    (losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64) as f32
}
