//! The operations on burn-ndarray's arrays. Tensors of other types than `f32` take the reference.

mod attention;
mod classifier;
mod gelu;
mod layer_norm;
mod math;
mod memory;
mod product;
mod reduce;

use self::classifier::Operands;
use self::product::{Start, product};
use super::{AffineGradients, Attended, ClassifierGradients, ClassifierShape, Gpt2Backend, LayerNormGradients};
use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn_ndarray::{FloatNdArrayElement, IntNdArrayElement, NdArray, NdArrayTensor, QuantElement, SharedArray};
use ndarray::{
    Array1, Array2, Array4, ArrayD, ArrayView1, ArrayView2, ArrayView3, ArrayView4, Axis, CowArray, Ix2, Ix4, IxDyn,
};
use std::borrow::Cow;

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
            None => super::classifier::loss::<Self>(hidden, wte, targets, shape),
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
                ClassifierGradients {
                    loss: scalar(loss),
                    hidden: tensor(hidden),
                    wte: tensor(wte),
                }
            }
            None => super::classifier::gradients::<Self>(hidden, wte, targets, shape),
        }
    }

    fn scale(tensor: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        match values(&factor).as_deref() {
            Some([1.0]) => tensor,
            _ => super::scaled::<Self>(tensor, factor),
        }
    }

    fn lookup_backward(
        table: FloatTensor<Self>,
        indices: IntTensor<Self>,
        upstream: FloatTensor<Self>,
        sum: Option<FloatTensor<Self>>,
    ) -> FloatTensor<Self> {
        match (matrix(&table), self::indices(&indices), values(&upstream)) {
            (Some(table), Some(rows), Some(upstream)) => {
                let mut sum = match sum {
                    Some(NdArrayTensor::F32(sum)) => sum.into_shared(),
                    _ => ArrayD::zeros(table.shape()).into_shared(),
                };
                for (row, upstream) in rows.into_iter().zip(upstream.chunks_exact(table.ncols())) {
                    let mut row = sum.index_axis_mut(Axis(0), row);
                    row += &ArrayView1::from(upstream);
                }
                sum.into()
            }
            _ => super::lookup::derivative::<Self>(table, indices, upstream, sum),
        }
    }

    fn affine(x: FloatTensor<Self>, w: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        match (matrix(&x), matrix(&w), values(&bias)) {
            (Some(a), Some(b), Some(row)) => tensor(product(a, b, Start::Row(&row))),
            _ => super::affine::value::<Self>(x, w, bias),
        }
    }

    fn affine_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        upstream: FloatTensor<Self>,
        wanted: AffineGradients<bool>,
    ) -> AffineGradients<Option<FloatTensor<Self>>> {
        match (matrix(&x), matrix(&w), matrix(&upstream)) {
            (Some(x), Some(w), Some(upstream)) => AffineGradients {
                x: wanted.x.then(|| tensor(product(upstream, w.t(), Start::Nothing))),
                w: wanted.w.then(|| tensor(product(x.t(), upstream, Start::Nothing))),
                bias: wanted
                    .bias
                    .then(|| upstream.sum_axis(Axis(0)).into_dyn().into_shared().into()),
            },
            _ => super::affine::derivatives::<Self>(x, w, upstream, wanted),
        }
    }

    fn normalise_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        match (values(&x), values(&weight), values(&bias)) {
            (Some(values), Some(weight), Some(bias)) => like(&x, layer_norm::value(&values, &weight, &bias)),
            _ => super::layer_norm::value::<Self>(x, weight, bias),
        }
    }

    fn normalise_rows_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        upstream: FloatTensor<Self>,
    ) -> LayerNormGradients<FloatTensor<Self>> {
        match (values(&x), values(&weight), values(&upstream)) {
            (Some(values), Some(gain), Some(upstream)) => {
                let found = layer_norm::derivatives(&values, &gain, &upstream);
                LayerNormGradients {
                    x: like(&x, found.x),
                    weight: like(&weight, found.weight),
                    bias: like(&weight, found.bias),
                }
            }
            _ => super::layer_norm::derivatives::<Self>(x, weight, upstream),
        }
    }

    fn causal_attention(qkv: FloatTensor<Self>, n_head: usize) -> Attended<FloatTensor<Self>> {
        match heads(&qkv, 3 * n_head) {
            Some(heads) => {
                let (batch, seq, _, head_dim) = heads.dim();
                let (out, log_sum) = attention::value(heads.view());
                let out = out.into_shape_with_order((batch, seq, n_head * head_dim));
                Attended {
                    out: out.expect("in standard layout").into_dyn().into_shared().into(),
                    log_sum: log_sum.into_dyn().into_shared().into(),
                }
            }
            None => super::attention::value::<Self>(qkv, n_head),
        }
    }

    fn causal_attention_backward(
        qkv: FloatTensor<Self>,
        attended: Attended<FloatTensor<Self>>,
        upstream: FloatTensor<Self>,
        n_head: usize,
    ) -> FloatTensor<Self> {
        let operands = (
            heads(&qkv, 3 * n_head),
            heads(&attended.out, n_head),
            values(&attended.log_sum),
            heads(&upstream, n_head),
        );
        match operands {
            (Some(heads), Some(out), Some(log_sum), Some(upstream)) => {
                let (batch, seq, _, _) = heads.dim();
                let log_sum = ArrayView3::from_shape((batch, n_head, seq), &log_sum).expect("a sum for each row");
                let by_qkv = attention::derivative(heads.view(), out.view(), log_sum, upstream.view());
                like(&qkv, by_qkv.into_raw_vec_and_offset().0)
            }
            _ => super::attention::derivative::<Self>(qkv, upstream, n_head),
        }
    }

    fn tanh_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match values(&x) {
            Some(values) => like(&x, gelu::value(&values)),
            None => super::gelu::value::<Self>(x),
        }
    }

    fn tanh_gelu_backward(x: FloatTensor<Self>, upstream: FloatTensor<Self>) -> FloatTensor<Self> {
        match (values(&x), values(&upstream)) {
            (Some(values), Some(upstream)) => like(&x, gelu::derivative(&values, &upstream)),
            _ => super::gelu::derivative::<Self>(x, upstream),
        }
    }
}

/// The elements, if they are `f32`: where they lie, or a copy if they do not lie in order.
fn values(tensor: &NdArrayTensor) -> Option<Cow<'_, [f32]>> {
    let NdArrayTensor::F32(storage) = tensor else {
        return None;
    };
    let view = storage.view();
    Some(match view.to_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(view.iter().copied().collect()),
    })
}

/// `[B, T, C]` as `[B, T, heads, D]`, if it is `f32`.
fn heads(tensor: &NdArrayTensor, heads: usize) -> Option<CowArray<'_, f32, Ix4>> {
    let NdArrayTensor::F32(storage) = tensor else {
        return None;
    };
    let view = storage.view();
    let &[batch, seq, width] = view.shape() else {
        return None;
    };
    let shape = (batch, seq, heads, width / heads);
    let values = match view.to_slice() {
        Some(slice) => CowArray::from(ArrayView4::from_shape(shape, slice).ok()?),
        None => CowArray::from(Array4::from_shape_vec(shape, view.iter().copied().collect()).ok()?),
    };
    Some(values)
}

/// `values` in the shape of `tensor`.
fn like(tensor: &NdArrayTensor, values: Vec<f32>) -> NdArrayTensor {
    let shape = IxDyn(&burn::tensor::TensorMetadata::shape(tensor));
    ArrayD::from_shape_vec(shape, values)
        .expect("as many values as the tensor has")
        .into_shared()
        .into()
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
