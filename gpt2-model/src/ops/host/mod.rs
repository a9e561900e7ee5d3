//! The operations on tensors in the host's memory, for each backend that keeps them there. Tensors of other types than `f32`
//! take the reference.

mod attention;
mod backends;
mod classifier;
mod gelu;
mod layer_norm;
mod math;
mod memory;
mod product;
mod reduce;
mod tensor;

pub use self::tensor::HostTensor;

use self::classifier::Operands;
use self::product::{Start, product};
use self::reduce::sum_rows;
use self::tensor::{heads, like, matrix, of_matrix, scalar, values};
use super::{AffineGradients, Attended, LayerNormGradients};
use ndarray::ArrayView3;

fn classifier_loss<T: HostTensor>(hidden: &T, wte: &T, targets: &T, vocab_size: usize) -> Option<T> {
    Some(scalar(Operands::new(hidden, wte, targets)?.loss(vocab_size)))
}

/// Loss, and its derivatives by the hidden states and the embedding.
fn classifier_gradients<T: HostTensor>(hidden: &T, wte: &T, targets: &T, vocab_size: usize) -> Option<[T; 3]> {
    let (loss, hidden, wte) = Operands::new(hidden, wte, targets)?.gradients(vocab_size);
    Some([scalar(loss), of_matrix(hidden), of_matrix(wte)])
}

/// Whether every element is 1.
fn is_one<T: HostTensor>(tensor: &T) -> bool {
    let is_one = |&value: &f32| value.to_bits() == 1.0_f32.to_bits();
    tensor.view().is_some_and(|view| view.iter().all(is_one))
}

/// Gives `sum` back where the tensors are not of the types that are taken here.
fn embed_backward<T: HostTensor>(table: &T, indices: &T, upstream: &T, sum: Option<T>) -> Result<T, Option<T>> {
    let (Some(table), Some(rows), Some(upstream)) = (matrix(table), indices.indices(), values(upstream)) else {
        return Err(sum);
    };
    let mut sum = sum.unwrap_or_else(|| T::from_values(vec![0.0; table.len()], table.shape()));
    let Some(elements) = sum.values_mut() else {
        return Err(Some(sum));
    };
    let width = table.ncols();
    for (row, upstream) in rows.into_iter().zip(upstream.chunks_exact(width)) {
        for (sum, upstream) in elements[row * width..][..width].iter_mut().zip(upstream) {
            *sum += upstream;
        }
    }
    Ok(sum)
}

fn affine<T: HostTensor>(x: &T, w: &T, bias: &T) -> Option<T> {
    Some(of_matrix(product(matrix(x)?, matrix(w)?, Start::Row(&values(bias)?))))
}

fn affine_onto<T: HostTensor>(residual: &T, x: &T, w: &T, bias: &T) -> Option<T> {
    let (residual, bias) = (matrix(residual)?, values(bias)?);
    Some(of_matrix(product(matrix(x)?, matrix(w)?, Start::Onto(residual, &bias))))
}

fn affine_backward<T: HostTensor>(x: &T, w: &T, upstream: &T) -> Option<AffineGradients<T>> {
    let (x, w, upstream) = (matrix(x)?, matrix(w)?, matrix(upstream)?);
    Some(AffineGradients {
        x: of_matrix(product(upstream, w.t(), Start::Nothing)),
        w: of_matrix(product(x.t(), upstream, Start::Nothing)),
        bias: T::from_values(sum_rows(upstream), &[upstream.ncols()]),
    })
}

fn layer_norm<T: HostTensor>(x: &T, weight: &T, bias: &T) -> Option<T> {
    Some(like(
        x,
        layer_norm::value(&values(x)?, &values(weight)?, &values(bias)?),
    ))
}

fn layer_norm_backward<T: HostTensor>(
    x: &T,
    weight: &T,
    upstream: &T,
    sum: Option<&T>,
) -> Option<LayerNormGradients<T>> {
    let sum = match sum {
        Some(sum) => Some(values(sum)?),
        None => None,
    };
    let found = layer_norm::derivatives(&values(x)?, &values(weight)?, &values(upstream)?, sum.as_deref());
    Some(LayerNormGradients {
        x: like(x, found.x),
        weight: like(weight, found.weight),
        bias: like(weight, found.bias),
    })
}

fn attention<T: HostTensor>(qkv: &T, n_head: usize) -> Option<Attended<T>> {
    let heads = heads(qkv, 3 * n_head)?;
    let (batch, seq, _, head_dim) = heads.dim();
    let (out, log_sum) = attention::value(heads.view());
    Some(Attended {
        out: T::from_values(out.into_raw_vec_and_offset().0, &[batch, seq, n_head * head_dim]),
        log_sum: T::from_values(log_sum.into_raw_vec_and_offset().0, &[batch, n_head, seq]),
    })
}

fn attention_backward<T: HostTensor>(qkv: &T, attended: &Attended<T>, upstream: &T, n_head: usize) -> Option<T> {
    let (split, log_sum) = (heads(qkv, 3 * n_head)?, values(&attended.log_sum)?);
    let (batch, seq, _, _) = split.dim();
    let by_qkv = attention::derivative(
        split.view(),
        heads(&attended.out, n_head)?.view(),
        ArrayView3::from_shape((batch, n_head, seq), &log_sum).expect("a sum for each row"),
        heads(upstream, n_head)?.view(),
    );
    Some(like(qkv, by_qkv.into_raw_vec_and_offset().0))
}

fn gelu<T: HostTensor>(x: &T) -> Option<T> {
    Some(like(x, gelu::value(&values(x)?)))
}

fn gelu_backward<T: HostTensor>(x: &T, upstream: &T) -> Option<T> {
    Some(like(x, gelu::derivative(&values(x)?, &values(upstream)?)))
}
