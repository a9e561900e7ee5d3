//! The operations on burn-ndarray's arrays. Tensors of other types than `f32` take the reference.

mod classifier;
mod gelu;
mod math;
mod product;

use self::classifier::Operands;
use self::product::{UNWRITTEN, product};
use super::{AffineGradients, ClassifierGradients, ClassifierShape, Gpt2Backend};
use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor, ModuleOps};
use burn_ndarray::{FloatNdArrayElement, IntNdArrayElement, NdArray, NdArrayTensor, QuantElement, SharedArray};
use ndarray::{Array1, Array2, ArrayD, ArrayView1, ArrayView2, Axis, Ix2, IxDyn};

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

    fn lookup_backward(
        table: FloatTensor<Self>,
        indices: IntTensor<Self>,
        upstream: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let sum = |table: ArrayView2<f32>, rows: Vec<usize>| {
            with_slice(&upstream, |upstream| {
                let mut sum = Array2::zeros(table.dim());
                for (row, upstream) in rows.into_iter().zip(upstream.chunks_exact(table.ncols())) {
                    sum.row_mut(row).scaled_add(1.0, &ArrayView1::from(upstream));
                }
                sum
            })
        };
        match matrix(&table)
            .zip(self::indices(&indices))
            .and_then(|(table, rows)| sum(table, rows))
        {
            Some(sum) => tensor(sum),
            None => Self::embedding_backward(table, upstream, indices),
        }
    }

    fn affine(x: FloatTensor<Self>, w: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        match (matrix(&x), matrix(&w), with_slice(&bias, <[f32]>::to_vec)) {
            (Some(a), Some(b), Some(bias)) => {
                let bias = ArrayView2::from_shape((1, bias.len()), &bias).expect("one row");
                let mut out = bias
                    .broadcast((a.nrows(), b.ncols()))
                    .expect("a row for each row")
                    .to_owned();
                product(a, b, 1.0, out.view_mut());
                tensor(out)
            }
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
                x: wanted.x.then(|| tensor(new_product(upstream, w.t()))),
                w: wanted.w.then(|| tensor(new_product(x.t(), upstream))),
                bias: wanted
                    .bias
                    .then(|| upstream.sum_axis(Axis(0)).into_dyn().into_shared().into()),
            },
            _ => super::affine::derivatives::<Self>(x, w, upstream, wanted),
        }
    }

    fn tanh_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match with_slice(&x, gelu::value) {
            Some(values) => like(&x, values),
            None => super::gelu::value::<Self>(x),
        }
    }

    fn tanh_gelu_backward(x: FloatTensor<Self>, upstream: FloatTensor<Self>) -> FloatTensor<Self> {
        match with_slice(&x, |x| with_slice(&upstream, |upstream| gelu::derivative(x, upstream))).flatten() {
            Some(values) => like(&x, values),
            None => super::gelu::derivative::<Self>(x, upstream),
        }
    }
}

fn new_product(a: ArrayView2<f32>, b: ArrayView2<f32>) -> Array2<f32> {
    let mut out = Array2::from_elem((a.nrows(), b.ncols()), UNWRITTEN);
    product(a, b, 0.0, out.view_mut());
    out
}

/// What `f` makes of the elements, if they are `f32` and lie one after the other.
fn with_slice<T>(tensor: &NdArrayTensor, f: impl FnOnce(&[f32]) -> T) -> Option<T> {
    match tensor {
        NdArrayTensor::F32(storage) => storage.view().as_slice().map(f),
        _ => None,
    }
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
