//! The classifier on burn-ndarray's arrays: the products go to BLAS, and one pass over each row of logits makes the
//! maximum, the sum, the loss and the derivative in place.

use super::{ClassifierGradients, ClassifierShape, Gpt2Backend, classifier};
use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn_ndarray::{
    FloatNdArrayElement, IntNdArrayElement, NdArray, NdArrayTensor, QuantElement, SharedArray,
};
use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Ix2, s};
use rayon::prelude::*;

/// Rows of logits in memory at once: enough that the product over the vocabulary reuses each row of the embedding, and a
/// buffer of 50 MiB.
const CHUNK_ROWS: usize = 256;

impl<E: FloatNdArrayElement, I: IntNdArrayElement, Q: QuantElement> Gpt2Backend for NdArray<E, I, Q>
where
    Self: Backend<FloatTensorPrimitive = NdArrayTensor, IntTensorPrimitive = NdArrayTensor>,
    NdArrayTensor: From<SharedArray<E>> + From<SharedArray<I>>,
{
    fn classifier_loss(
        hidden: FloatTensor<Self>,
        wte: FloatTensor<Self>,
        targets: IntTensor<Self>,
        shape: ClassifierShape,
    ) -> FloatTensor<Self> {
        match Operands::new(&hidden, &wte, &targets) {
            Some(operands) => scalar(operands.loss(shape.vocab_size)),
            None => classifier::loss::<Self>(hidden, wte, targets, shape),
        }
    }

    fn classifier_gradients(
        hidden: FloatTensor<Self>,
        wte: FloatTensor<Self>,
        targets: IntTensor<Self>,
        shape: ClassifierShape,
    ) -> ClassifierGradients<Self> {
        match Operands::new(&hidden, &wte, &targets) {
            Some(operands) => {
                let (loss, hidden, wte) = operands.gradients(shape.vocab_size);
                ClassifierGradients { loss: scalar(loss), hidden: tensor(hidden), wte: tensor(wte) }
            }
            None => classifier::gradients::<Self>(hidden, wte, targets, shape),
        }
    }
}

/// The operands in `f32`, the only type that BLAS is asked for here; `f64` models take the reference.
struct Operands<'a> {
    hidden: ArrayView2<'a, f32>,
    wte: ArrayView2<'a, f32>,
    targets: Vec<usize>,
}

impl<'a> Operands<'a> {
    fn new(hidden: &'a NdArrayTensor, wte: &'a NdArrayTensor, targets: &NdArrayTensor) -> Option<Self> {
        Some(Self { hidden: matrix(hidden)?, wte: matrix(wte)?, targets: indices(targets)? })
    }

    fn loss(&self, vocab_size: usize) -> f64 {
        let mut buffer = self.buffer();
        self.chunks().map(|rows| self.chunk_loss(rows, vocab_size, None, &mut buffer)).sum::<f64>()
            / self.targets.len() as f64
    }

    fn gradients(&self, vocab_size: usize) -> (f64, Array2<f32>, Array2<f32>) {
        let rows = self.targets.len();
        let mut buffer = self.buffer();
        let mut d_hidden = Array2::zeros(self.hidden.dim());
        let mut d_wte = Array2::zeros(self.wte.dim());
        let mut total = 0.0;
        for chunk in self.chunks() {
            let (start, end) = (chunk.start, chunk.end);
            total += self.chunk_loss(chunk, vocab_size, Some(1.0 / rows as f32), &mut buffer);
            let d_logits = buffer.slice(s![..end - start, ..]);
            general_mat_mul(1.0, &d_logits, &self.wte, 0.0, &mut d_hidden.slice_mut(s![start..end, ..]));
            general_mat_mul(1.0, &d_logits.t(), &self.hidden.slice(s![start..end, ..]), 1.0, &mut d_wte);
        }
        (total / rows as f64, d_hidden, d_wte)
    }

    fn buffer(&self) -> Array2<f32> {
        Array2::zeros((CHUNK_ROWS.min(self.targets.len()), self.wte.nrows()))
    }

    fn chunks(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let rows = self.targets.len();
        (0..rows).step_by(CHUNK_ROWS).map(move |start| start..rows.min(start + CHUNK_ROWS))
    }

    /// Sum of the losses of `rows`; leaves their logits in `buffer`, or with `scale` the derivative by the logits.
    fn chunk_loss(
        &self,
        rows: std::ops::Range<usize>,
        vocab_size: usize,
        scale: Option<f32>,
        buffer: &mut Array2<f32>,
    ) -> f64 {
        let mut logits: ArrayViewMut2<f32> = buffer.slice_mut(s![..rows.len(), ..]);
        general_mat_mul(1.0, &self.hidden.slice(s![rows.clone(), ..]), &self.wte.t(), 0.0, &mut logits);
        let width = logits.ncols();
        let losses: Vec<f64> = logits
            .as_slice_mut()
            .expect("the buffer is in standard layout")
            .par_chunks_exact_mut(width)
            .zip(&self.targets[rows])
            .map(|(row, &target)| row_loss(row, target, vocab_size, scale))
            .collect();
        // Summed in order, not by rayon: the loss must not depend on the number of threads.
        losses.iter().sum()
    }
}

/// Cross-entropy of one row of logits in nats; with `scale`, the row becomes `(softmax − one-hot)·scale`.
fn row_loss(row: &mut [f32], target: usize, vocab_size: usize, scale: Option<f32>) -> f64 {
    let (tokens, padding) = row.split_at_mut(vocab_size);
    let max = max(tokens);
    let picked = tokens[target] - max;
    let sum = exponentiate(tokens, max);
    if let Some(scale) = scale {
        let factor = scale / sum;
        for value in tokens.iter_mut() {
            *value *= factor;
        }
        tokens[target] -= scale;
        padding.fill(0.0);
    }
    f64::from(sum.ln()) - f64::from(picked)
}

/// Independent accumulators of a reduction, so that the compiler may use vectors.
const LANES: usize = 16;

fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Replaces each value by `exp(value − max)` and returns their sum.
fn exponentiate(values: &mut [f32], max: f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (chunks, rest) = values.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *value = exp(*value - max);
            *lane += *value;
        }
    }
    let mut sum = 0.0;
    for value in rest {
        *value = exp(*value - max);
        sum += *value;
    }
    lanes.iter().sum::<f32>() + sum
}

/// `eˣ` for `x ≤ 0` to about one part in 10⁷, written without branches or calls so that it vectorises:
/// `x = k·ln 2 + r` with `|r| ≤ ln 2 / 2`, a Taylor polynomial for `eʳ`, and `2ᵏ` built in the exponent's bits.
/// A NaN stays NaN.
#[inline]
fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    /// ln 2 in two parts, so that `k·ln 2` is exact in the first (Cody & Waite 1980).
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Adding and subtracting 1.5·2²³ rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let k = (x * LOG2_E + ROUND) - ROUND;
    let r = x - k * LN_2_HIGH - k * LN_2_LOW;
    let p = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    // SAFETY: `k` is within [-126, 0], or NaN from a NaN input, for which any integer will do since `p` is NaN too.
    let k = unsafe { (if k.is_nan() { 0.0 } else { k }).to_int_unchecked::<i32>() };
    p * f32::from_bits(((k + 127) << 23).cast_unsigned())
}

fn matrix(tensor: &NdArrayTensor) -> Option<ArrayView2<'_, f32>> {
    match tensor {
        NdArrayTensor::F32(storage) => storage.view().into_dimensionality::<Ix2>().ok(),
        _ => None,
    }
}

fn indices(tensor: &NdArrayTensor) -> Option<Vec<usize>> {
    match tensor {
        NdArrayTensor::I64(storage) => storage.view().iter().map(|&index| index.try_into().ok()).collect(),
        NdArrayTensor::I32(storage) => storage.view().iter().map(|&index| index.try_into().ok()).collect(),
        _ => None,
    }
}

fn tensor(values: Array2<f32>) -> NdArrayTensor {
    values.into_dyn().into_shared().into()
}

fn scalar(value: f64) -> NdArrayTensor {
    Array1::from_elem(1, value as f32).into_dyn().into_shared().into()
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_accurate_to_the_last_bits() {
        let mut worst = 0.0_f64;
        for i in 0..870_000 {
            let x = -(i as f32) / 10_000.0;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2e-7, "relative error {worst}");
        assert_eq!(exp(f32::NEG_INFINITY), exp(-87.0));
        assert!(exp(f32::NAN).is_nan());
    }
}
