//! The reference GELU: `0.5·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))` (Hendrycks & Gimpel 2016, section 2), and its
//! derivative.

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;

/// √(2/π)
pub(in crate::ops) const SCALE: f64 = 0.797_884_560_802_865_4;
/// Of the cube.
pub(in crate::ops) const CUBIC: f64 = 0.044_715;

pub(in crate::ops) fn value<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let tanh = tanh_part::<B>(&x);
    let weight = B::float_add_scalar(tanh, 1.0.into());
    B::float_mul_scalar(B::float_mul(x, weight), 0.5.into())
}

/// With `t` the tanh and `u` its argument: `0.5·(1 + t) + 0.5·x·(1 − t²)·u'`.
pub(in crate::ops) fn derivative<B: Backend>(x: FloatTensor<B>, grad_output: FloatTensor<B>) -> FloatTensor<B> {
    let tanh = tanh_part::<B>(&x);
    let square = B::float_mul(x.clone(), x.clone());
    let slope = B::float_add_scalar(B::float_mul_scalar(square, (3.0 * CUBIC * SCALE).into()), SCALE.into());
    let one_minus_square = B::float_add_scalar(B::float_neg(B::float_mul(tanh.clone(), tanh.clone())), 1.0.into());
    let inner = B::float_mul(B::float_mul(x, one_minus_square), slope);
    let sum = B::float_add(B::float_add_scalar(tanh, 1.0.into()), inner);
    B::float_mul(B::float_mul_scalar(sum, 0.5.into()), grad_output)
}

fn tanh_part<B: Backend>(x: &FloatTensor<B>) -> FloatTensor<B> {
    let square = B::float_mul(x.clone(), x.clone());
    let factor = B::float_add_scalar(B::float_mul_scalar(square, (CUBIC * SCALE).into()), SCALE.into());
    B::float_tanh(B::float_mul(x.clone(), factor))
}
