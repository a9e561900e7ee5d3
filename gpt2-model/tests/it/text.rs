//! Text from a model whose weights are sound, and from one whose are not.

use crate::support::{DEVICE, Inference, small};
use gpt2_model::sampling::Sampling;
use gpt2_model::{Gpt2, ModelError};

fn model() -> Gpt2<Inference> {
    small().init(1, &DEVICE).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_tokens() {
    let model = model();
    let text = |seed| -> Vec<i32> {
        model
            .generate(&[3], Sampling::default(), seed)
            .take(40)
            .map(|token| token.unwrap())
            .collect()
    };
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
    assert!(
        text(1).iter().all(|&token| (0..61).contains(&token)),
        "padded tokens are never drawn"
    );
}

#[test]
fn logits_that_are_not_finite_are_an_error_and_the_end() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut model = model();
        #[expect(clippy::single_range_in_vec_init, reason = "one range a dimension")]
        let bias = model.ln_f.bias.map(|bias| bias.slice_fill([2..3], value));
        model.ln_f.bias = bias;
        for sampling in [Sampling::GREEDY, Sampling::default()] {
            let mut generator = model.generate(&[1, 2, 3], sampling, 0);
            let error = generator.next().unwrap().unwrap_err();
            assert!(matches!(error, ModelError::NonFiniteLogits { position: 3 }), "{error}");
            assert!(
                error.to_string().starts_with("the model's logits are not finite"),
                "{error}"
            );
            assert!(generator.next().is_none());
        }
    }
}
