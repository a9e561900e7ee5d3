//! The whole model in each precision that the CPU has, against the golden values in `f32`.

use crate::support::{
    DEVICE, Golden, Inference, PRECISIONS, Training, check_loss_and_gradients, floats, golden_model, gradients,
    relative_error,
};
use gpt2_model::{Gpt2, Precision, Recompute};

#[test]
fn loss_and_gradients_are_within_the_precisions_rounding() {
    // `f32` as on every CPU; `bf16` has eight bits, and rounds at each product.
    for &precision in PRECISIONS {
        let tolerance = if precision == Precision::Bf16 { 4e-2 } else { 1e-4 };
        for recompute in Recompute::ALL {
            let model = golden_model::<Training>(0.0, &DEVICE)
                .with_precision(precision)
                .with_recompute(recompute);
            check_loss_and_gradients(&model, &DEVICE, tolerance);
        }
    }
}

/// Weights that are kept in the type of the products are those that each forward pass would round.
#[test]
fn kept_operands_change_no_bit() {
    let golden = Golden::load();
    for &precision in PRECISIONS {
        let model = golden_model::<Training>(0.0, &DEVICE).with_precision(precision);
        let operands = model.round_operands();
        // Four products a block, and the classifier.
        let expected = if precision == Precision::Bf16 { 2 * 4 + 1 } else { 0 };
        assert_eq!(operands.len(), expected, "{precision}");
        let of = |model: &Gpt2<Training>| {
            let loss = model.loss(golden.tokens("inputs", &DEVICE), golden.tokens("targets", &DEVICE));
            (floats(loss.clone()), gradients(model, &loss))
        };
        let keeping = model.clone().with_operands(&operands);
        assert!(of(&keeping) == of(&model), "{precision}");
        // Those of another precision are not used.
        let in_f32 = |model: &Gpt2<Training>| of(&model.clone().with_precision(Precision::F32));
        assert!(in_f32(&keeping) == in_f32(&model), "{precision}");
    }
}

/// Generation's logits are those of the precision in which generation computes, with a cache and without.
#[test]
fn logits_are_those_of_the_plain_precision() {
    let golden = Golden::load();
    let inputs = || golden.tokens("inputs", &DEVICE);
    let model = golden_model::<Inference>(0.0, &DEVICE);
    let expected = floats(model.forward(inputs()));
    // Products of `bf16` are not for generation on this backend.
    for &precision in PRECISIONS {
        let logits = model.clone().with_precision(precision).forward(inputs());
        assert_eq!(floats(logits), expected, "{precision}");
    }
    let error = relative_error(&expected, &golden.floats("logits"));
    assert!(error < 1e-4, "relative error {error:.2e}");
}
