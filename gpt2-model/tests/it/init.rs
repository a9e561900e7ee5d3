//! Initial weights.

use crate::support::{DEVICE, Inference};
use gpt2_model::weights::{NamedTensor, NamedVisitor, parameters, visit_parameters};
use gpt2_model::{Gpt2, Gpt2Config, Variant};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

/// Large enough for its moments to be sharp; a vocabulary that is padded.
fn model(seed: u64) -> Gpt2<Inference> {
    let config = Gpt2Config {
        vocab_size: 1000,
        block_size: 128,
        n_layer: 8,
        n_head: 4,
        n_embd: 64,
        dropout: 0.0,
        variant: Variant::default(),
    };
    config.init(seed, &DEVICE).unwrap()
}

#[test]
fn deviations_are_gpt2s() {
    for NamedTensor { name, shape, values } in parameters(&model(5)) {
        let constant = |expected: f32| {
            assert!(
                values.iter().all(|value| value.to_bits() == expected.to_bits()),
                "{name}"
            );
        };
        if name.ends_with("bias") {
            constant(0.0);
        } else if shape.len() == 1 {
            constant(1.0);
        } else {
            // 1/√(2·8) is a quarter.
            let expected = if name.ends_with("c_proj.weight") {
                0.02 / 4.0
            } else {
                0.02
            };
            let count = values.len() as f64;
            let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
            let square = values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>() / count;
            // Five standard errors.
            assert!(mean.abs() < 5.0 * expected / count.sqrt(), "{name}: mean {mean}");
            let error = (square.sqrt() / expected - 1.0).abs();
            assert!(
                error < 5.0 / (2.0 * count).sqrt(),
                "{name}: deviation {}",
                square.sqrt()
            );
        }
    }
}

/// In the order of the model: the tables, then four matrices a block.
#[test]
fn each_matrix_is_drawn_from_a_stream_of_its_own() {
    let matrices = parameters(&model(5))
        .into_iter()
        .filter(|tensor| tensor.shape.len() == 2);
    for (stream, NamedTensor { name, values, .. }) in matrices.enumerate() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        rng.set_stream(stream as u64);
        let std = if name.ends_with("c_proj.weight") {
            0.02_f32 / 4.0
        } else {
            0.02
        };
        let expected = Normal::new(0.0, std).unwrap().sample_iter(&mut rng);
        assert!(
            expected
                .zip(&values)
                .all(|(expected, value)| expected.to_bits() == value.to_bits()),
            "{name}"
        );
    }
}

#[test]
fn padded_rows_are_zero() {
    let model = model(5);
    let wte = model.wte.weight.val();
    assert_eq!(wte.dims(), [1024, 64]);
    let padding: Vec<f32> = wte.slice([1000..1024, 0..64]).into_data().into_vec().unwrap();
    assert!(padding.iter().all(|value| value.to_bits() == 0));
}

/// A seed must go on meaning the same weights: runs are compared by it. The hash changes only with a new major version.
#[test]
fn a_seed_draws_what_it_always_drew() {
    struct Bytes(Vec<u8>);
    impl NamedVisitor<Inference> for Bytes {
        fn visit<const D: usize>(&mut self, _: &str, param: &burn::module::Param<burn::Tensor<Inference, D>>) {
            self.0.extend_from_slice(&param.val().into_data().bytes);
        }
    }
    let mut bytes = Bytes(Vec::new());
    visit_parameters(&model(1337), &mut bytes);
    assert_eq!(
        gpt2_base::fs::sha256(&bytes.0),
        "6dc8893432aa0d4508a97368bbb2e443542d7ee74251c1fdd9dd054e0d0da3d1"
    );
    let first = parameters(&model(1338)).swap_remove(0);
    assert_ne!(first.values, parameters(&model(1337)).swap_remove(0).values);
}
