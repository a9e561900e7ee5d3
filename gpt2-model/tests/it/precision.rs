//! The whole model in each precision that the CPU has, against the golden values in `f32`.

use crate::support::{
    DEVICE, Golden, Inference, PRECISIONS, Training, check_loss_and_gradients, floats, golden_model, relative_error,
};
use gpt2_model::{Precision, Recompute};

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
