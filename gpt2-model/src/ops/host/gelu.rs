//! GELU and its derivative in one pass each.

use super::element::Element;
use super::math::{map, tanh, zip};
use crate::ops::reference::gelu::{CUBIC, SCALE};

const SCALE_F32: f32 = SCALE as f32;
const CUBIC_F32: f32 = CUBIC as f32;

pub(super) fn value<E: Element>(x: &[E]) -> Vec<E> {
    map(
        x,
        #[inline(always)]
        |x| 0.5 * x * (1.0 + tanh(SCALE_F32 * (x + CUBIC_F32 * x * x * x))),
    )
}

pub(super) fn derivative<E: Element>(x: &[E], grad_output: &[E]) -> Vec<E> {
    zip(
        x,
        grad_output,
        #[inline(always)]
        |x, grad_output| {
            let tanh = tanh(SCALE_F32 * (x + CUBIC_F32 * x * x * x));
            let slope = SCALE_F32 * (1.0 + 3.0 * CUBIC_F32 * x * x);
            0.5 * (1.0 + tanh + x * (1.0 - tanh * tanh) * slope) * grad_output
        },
    )
}
