//! The operations on tensors in the host's memory, for each backend that keeps them there: of `f32`, and of `bf16` where the
//! processor has a unit for its products. Tensors of other types take the reference.

mod attention;
mod attention_tiles;
mod backends;
mod classifier;
mod element;
mod gelu;
mod layer_norm;
mod math;
mod memory;
mod product;
mod reduce;
mod tensor;
mod tiles;

pub use self::tensor::HostTensor;

use self::classifier::{Blas, Classifier, Tiles};
use self::product::{Start, product};
use self::reduce::sum_rows;
use self::tensor::{
    Values, half_heads, halves_like, halves_matrix, heads, like, matrix, of_halves, of_matrix, of_row, operand, scalar,
    values,
};
use self::tiles::Role;
use super::{AffineGradients, Attended, LayerNormGradients};
use crate::precision::Precision;
use ndarray::ArrayView3;

/// Whether the processor multiplies `bf16` numbers faster than `f32`, which takes the tile unit (AMX) of Intel's server
/// processors. Without it products of `bf16` are the reference's, and slow.
pub fn multiplies_bf16() -> bool {
    tiles::available()
}

/// Whether `x` is to be multiplied on the tile unit.
fn on_tiles<T: HostTensor>(x: &T) -> bool {
    x.halves().is_some() && tiles::available()
}

fn logits<T: HostTensor>(hidden: &T, wte: &T) -> Option<T> {
    Some(of_matrix(product(
        matrix(hidden)?,
        matrix(wte)?.reversed_axes(),
        Start::Nothing,
    )))
}

fn classifier_loss<T: HostTensor>(hidden: &T, wte: &T, targets: &T, vocab_size: usize) -> Option<T> {
    let (wte, targets) = (matrix(wte)?, targets.indices()?);
    let loss = if on_tiles(hidden) {
        let products = Tiles::new(halves_matrix(hidden)?, wte);
        Classifier { products, targets }.loss(vocab_size)
    } else {
        let hidden = matrix(hidden)?;
        let products = Blas { hidden, wte };
        Classifier { products, targets }.loss(vocab_size)
    };
    Some(scalar(loss))
}

/// Loss, and its derivatives by the hidden states and the embedding.
fn classifier_gradients<T: HostTensor>(hidden: &T, wte: &T, targets: &T, vocab_size: usize) -> Option<[T; 3]> {
    let (wte, targets) = (matrix(wte)?, targets.indices()?);
    if on_tiles(hidden) {
        let products = Tiles::new(halves_matrix(hidden)?, wte);
        let (loss, hidden, wte) = Classifier { products, targets }.gradients(vocab_size);
        Some([scalar(loss), of_halves(hidden)?, of_matrix(wte)])
    } else {
        let hidden = matrix(hidden)?;
        let products = Blas { hidden, wte };
        let (loss, hidden, wte) = Classifier { products, targets }.gradients(vocab_size);
        Some([scalar(loss), of_matrix(hidden), of_matrix(wte)])
    }
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
    if on_tiles(x) {
        let (x, w) = (operand(x, Role::Left, false)?, operand(w, Role::Right, true)?);
        return of_halves(tiles::product(&x, &w, Start::Row(&values(bias)?)));
    }
    Some(of_matrix(product(matrix(x)?, matrix(w)?, Start::Row(&values(bias)?))))
}

fn affine_onto<T: HostTensor>(residual: &T, x: &T, w: &T, bias: &T) -> Option<T> {
    let (residual, bias) = (matrix(residual)?, values(bias)?);
    if on_tiles(x) {
        let (x, w) = (operand(x, Role::Left, false)?, operand(w, Role::Right, true)?);
        return Some(of_matrix(tiles::product(&x, &w, Start::Onto(residual, &bias))));
    }
    Some(of_matrix(product(matrix(x)?, matrix(w)?, Start::Onto(residual, &bias))))
}

fn affine_backward<T: HostTensor>(x: &T, w: &T, upstream: &T) -> Option<AffineGradients<T>> {
    if on_tiles(x) {
        let by_rows = operand(upstream, Role::Left, false)?;
        let by_x = tiles::product(&by_rows, &operand(w, Role::Right, false)?, Start::Nothing);
        drop(by_rows);
        let (x, by_columns) = (operand(x, Role::Left, true)?, operand(upstream, Role::Right, true)?);
        let bias = match halves_matrix(upstream) {
            Some(upstream) => sum_rows(upstream),
            None => sum_rows(matrix(upstream)?),
        };
        return Some(AffineGradients {
            x: of_halves(by_x)?,
            w: of_matrix(tiles::product(&x, &by_columns, Start::Nothing)),
            bias: of_row(bias),
        });
    }
    let (x, w, upstream) = (matrix(x)?, matrix(w)?, matrix(upstream)?);
    Some(AffineGradients {
        x: of_matrix(product(upstream, w.t(), Start::Nothing)),
        w: of_matrix(product(x.t(), upstream, Start::Nothing)),
        bias: of_row(sum_rows(upstream)),
    })
}

fn layer_norm<T: HostTensor>(x: &T, weight: &T, bias: &T, precision: Precision) -> Option<T> {
    let (elements, weight, bias) = (values(x)?, values(weight)?, values(bias)?);
    match precision {
        Precision::F32 => Some(like(x, layer_norm::value(&elements, &weight, &bias))),
        Precision::Bf16 => halves_like(x, layer_norm::value(&elements, &weight, &bias)),
        Precision::Tf32 => None,
    }
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
    let (elements, gain) = (values(x)?, values(weight)?);
    let found = match Values::of(upstream)? {
        Values::Wide(upstream) => layer_norm::derivatives(&elements, &gain, &upstream, sum.as_deref()),
        Values::Narrow(upstream) => layer_norm::derivatives(&elements, &gain, &upstream, sum.as_deref()),
    };
    Some(LayerNormGradients {
        x: like(x, found.x),
        weight: like(weight, found.weight),
        bias: like(weight, found.bias),
    })
}

fn attention<T: HostTensor>(qkv: &T, n_head: usize) -> Option<Attended<T>> {
    if on_tiles(qkv) {
        let (out, log_sum) = attention_tiles::value(half_heads(qkv, 3 * n_head)?.view());
        let (batch, seq, _, head_dim) = out.dim();
        return Some(Attended {
            out: T::from_halves(out.into_raw_vec_and_offset().0, &[batch, seq, n_head * head_dim])?,
            log_sum: T::from_values(log_sum.into_raw_vec_and_offset().0, &[batch, n_head, seq]),
        });
    }
    let heads = heads(qkv, 3 * n_head)?;
    let (batch, seq, _, head_dim) = heads.dim();
    let (out, log_sum) = attention::value(heads.view());
    Some(Attended {
        out: T::from_values(out.into_raw_vec_and_offset().0, &[batch, seq, n_head * head_dim]),
        log_sum: T::from_values(log_sum.into_raw_vec_and_offset().0, &[batch, n_head, seq]),
    })
}

fn attention_backward<T: HostTensor>(qkv: &T, attended: &Attended<T>, upstream: &T, n_head: usize) -> Option<T> {
    let log_sum = values(&attended.log_sum)?;
    if on_tiles(qkv) {
        let split = half_heads(qkv, 3 * n_head)?;
        let (batch, seq, _, _) = split.dim();
        let by_qkv = attention_tiles::derivative(
            split.view(),
            half_heads(&attended.out, n_head)?.view(),
            ArrayView3::from_shape((batch, n_head, seq), &log_sum).expect("a sum for each row"),
            half_heads(upstream, n_head)?.view(),
        );
        return halves_like(qkv, by_qkv.into_raw_vec_and_offset().0);
    }
    let split = heads(qkv, 3 * n_head)?;
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
    match Values::of(x)? {
        Values::Wide(values) => Some(like(x, gelu::value(&values))),
        Values::Narrow(values) => halves_like(x, gelu::value(&values)),
    }
}

fn gelu_backward<T: HostTensor>(x: &T, upstream: &T) -> Option<T> {
    match (Values::of(x)?, Values::of(upstream)?) {
        (Values::Wide(values), Values::Wide(upstream)) => Some(like(x, gelu::derivative(&values, &upstream))),
        (Values::Narrow(values), Values::Narrow(upstream)) => halves_like(x, gelu::derivative(&values, &upstream)),
        _ => None,
    }
}
