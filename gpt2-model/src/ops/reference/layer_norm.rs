//! The reference LayerNorm (Ba, Kiros & Hinton 2016) and its derivatives.

use crate::ops::convert::{primitive, round, tensor, widen};
use crate::ops::types::{LayerNormGradients, Normalised};
use crate::precision::Precision;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;

/// LayerNorm's epsilon in every published GPT-2.
pub(in crate::ops) const EPS: f64 = 1e-5;

pub(in crate::ops) fn value<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    precision: Precision,
) -> Normalised<FloatTensor<B>> {
    let (normal, _) = normalise(tensor::<B, 2>(x));
    let result = normal * tensor::<B, 1>(weight).unsqueeze() + tensor::<B, 1>(bias).unsqueeze();
    Normalised {
        out: primitive(round(result, precision)),
        statistics: None,
    }
}

/// With `n` the normalised rows and `g` the `grad_output` times the gain: `(g − mean g − n·mean(g·n)) / deviation`.
pub(in crate::ops) fn derivatives<B: Backend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    grad_output: FloatTensor<B>,
    sum: Option<FloatTensor<B>>,
) -> LayerNormGradients<FloatTensor<B>> {
    let (normal, per_deviation) = normalise(tensor::<B, 2>(x));
    let grad_output = widen(tensor::<B, 2>(grad_output));
    let g = grad_output.clone() * tensor::<B, 1>(weight).unsqueeze();
    let along = (g.clone() * normal.clone()).mean_dim(1);
    let x = (g.clone() - g.mean_dim(1) - normal.clone() * along) * per_deviation;
    let sum_rows = |matrix: Tensor<B, 2>| primitive(matrix.sum_dim(0).squeeze_dim::<1>(0));
    LayerNormGradients {
        x: primitive(match sum {
            Some(sum) => tensor(sum) + x,
            None => x,
        }),
        weight: sum_rows(grad_output.clone() * normal),
        bias: sum_rows(grad_output),
    }
}

/// Rows of mean 0 and variance 1, `[N, C]`, and the reciprocal of what they were divided by, `[N, 1]`.
fn normalise<B: Backend>(x: Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let centred = x.clone() - x.mean_dim(1);
    let variance = centred.clone().square().mean_dim(1);
    let per_deviation = (variance + EPS).sqrt().recip();
    (centred * per_deviation.clone(), per_deviation)
}
