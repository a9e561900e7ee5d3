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
mod tile;
#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), path = "no_tile_unit.rs")]
mod tile_unit;
mod tiles;
mod views;

pub use self::tensor::HostTensor;

use self::classifier::{Blas, Classifier, Products, Tiles};
use self::element::Element;
use self::product::{Start, product};
use self::reduce::sum_rows;
use self::tiles::Role;
use self::views::{heads, like, matrix, of_matrix, of_row, operand, scalar, values};
use super::types::{AffineGradients, Attended, LayerNormGradients};
use crate::precision::Precision;
use half::bf16;
use ndarray::{Array3, Array4, ArrayView3, ArrayView4};

/// Whether the processor multiplies `bf16` numbers faster than `f32`, which takes the tile unit (AMX) of Intel's server
/// processors. Without it products of `bf16` are the reference's, and slow.
pub fn multiplies_bf16() -> bool {
    tile_unit::available()
}

/// Whether `x` is to be multiplied on the tile unit.
fn on_tiles<T: HostTensor>(x: &T) -> bool {
    x.halves().is_some() && tile_unit::available()
}

/// Whether products of `x` are computed here.
fn computes<T: HostTensor>(x: &T) -> bool {
    x.view().is_some() || on_tiles(x)
}

fn logits<T: HostTensor>(hidden: &T, wte: &T) -> Option<T> {
    of_matrix(product(matrix(hidden)?, matrix(wte)?.reversed_axes(), Start::Nothing))
}

fn classifier_loss<T: HostTensor>(hidden: &T, wte: &T, targets: &T, vocab_size: usize) -> Option<T> {
    let (wte, targets) = (matrix(wte)?, targets.indices()?);
    let loss = if on_tiles(hidden) {
        let products = Tiles::new(matrix(hidden)?, wte);
        Classifier { products, targets }.loss(vocab_size)
    } else {
        let hidden = matrix(hidden)?;
        let products = Blas { hidden, wte };
        Classifier { products, targets }.loss(vocab_size)
    };
    Some(scalar(loss))
}

/// The loss of each row.
fn token_losses<T: HostTensor>(hidden: &T, wte: &T, targets: &T, vocab_size: usize) -> Option<T> {
    let (wte, targets) = (matrix(wte)?, targets.indices()?);
    let losses = if on_tiles(hidden) {
        let products = Tiles::new(matrix(hidden)?, wte);
        Classifier { products, targets }.token_losses(vocab_size)
    } else {
        let hidden = matrix(hidden)?;
        let products = Blas { hidden, wte };
        Classifier { products, targets }.token_losses(vocab_size)
    };
    Some(of_row(losses))
}

/// Loss, and its derivatives by the hidden states and the embedding.
fn classifier_gradients<T: HostTensor>(hidden: &T, wte: &T, targets: &T, vocab_size: usize) -> Option<[T; 3]> {
    fn with<P: Products, T: HostTensor>(products: P, targets: Vec<usize>, vocab_size: usize) -> Option<[T; 3]> {
        let (loss, hidden, wte) = Classifier { products, targets }.gradients(vocab_size);
        Some([scalar(loss), of_matrix(hidden)?, of_matrix(wte)?])
    }
    let (wte, targets) = (matrix(wte)?, targets.indices()?);
    if on_tiles(hidden) {
        with(Tiles::new(matrix(hidden)?, wte), targets, vocab_size)
    } else {
        let hidden = matrix(hidden)?;
        with(Blas { hidden, wte }, targets, vocab_size)
    }
}

/// Whether every element is 1.
fn is_one<T: HostTensor>(tensor: &T) -> bool {
    let is_one = |&value: &f32| value.to_bits() == 1.0_f32.to_bits();
    tensor.view().is_some_and(|view| view.iter().all(is_one))
}

/// Gives `sum` back where the tensors are not of the types that are taken here.
fn embed_backward<T: HostTensor>(table: &T, indices: &T, grad_output: &T, sum: Option<T>) -> Result<T, Option<T>> {
    let (Some(table), Some(rows), Some(grad_output)) =
        (matrix::<f32, T>(table), indices.indices(), values(grad_output))
    else {
        return Err(sum);
    };
    let mut sum = sum.unwrap_or_else(|| T::from_values(vec![0.0; table.len()], table.shape()));
    let Some(elements) = sum.values_mut() else {
        return Err(Some(sum));
    };
    let width = table.ncols();
    for (row, grad_output) in rows.into_iter().zip(grad_output.chunks_exact(width)) {
        for (sum, grad_output) in elements[row * width..][..width].iter_mut().zip(grad_output) {
            *sum += grad_output;
        }
    }
    Ok(sum)
}

fn affine<T: HostTensor>(x: &T, w: &T, bias: &T) -> Option<T> {
    let bias = values(bias)?;
    if on_tiles(x) {
        let (x, w) = (operand(x, Role::Left, false)?, operand(w, Role::Right, true)?);
        return of_matrix(tiles::product::<bf16>(&x, &w, Start::Row(&bias)));
    }
    of_matrix(product(matrix(x)?, matrix(w)?, Start::Row(&bias)))
}

fn affine_onto<T: HostTensor>(residual: &T, x: &T, w: &T, bias: &T) -> Option<T> {
    let (residual, bias) = (matrix(residual)?, values(bias)?);
    if on_tiles(x) {
        let (x, w) = (operand(x, Role::Left, false)?, operand(w, Role::Right, true)?);
        return of_matrix(tiles::product::<f32>(&x, &w, Start::Onto(residual, &bias)));
    }
    of_matrix(product(matrix(x)?, matrix(w)?, Start::Onto(residual, &bias)))
}

fn affine_backward<T: HostTensor>(x: &T, w: &T, grad_output: &T) -> Option<AffineGradients<T>> {
    if on_tiles(x) {
        let by_rows = operand(grad_output, Role::Left, false)?;
        let grad_x = tiles::product::<bf16>(&by_rows, &operand(w, Role::Right, false)?, Start::Nothing);
        drop(by_rows);
        let (x, by_columns) = (operand(x, Role::Left, true)?, operand(grad_output, Role::Right, true)?);
        let bias = match matrix::<bf16, T>(grad_output) {
            Some(grad_output) => sum_rows(grad_output),
            None => sum_rows(matrix::<f32, T>(grad_output)?),
        };
        return Some(AffineGradients {
            x: of_matrix(grad_x)?,
            w: of_matrix(tiles::product::<f32>(&x, &by_columns, Start::Nothing))?,
            bias: of_row(bias),
        });
    }
    let (x, w, grad_output) = (matrix(x)?, matrix(w)?, matrix(grad_output)?);
    Some(AffineGradients {
        x: of_matrix(product(grad_output, w.t(), Start::Nothing))?,
        w: of_matrix(product(x.t(), grad_output, Start::Nothing))?,
        bias: of_row(sum_rows(grad_output)),
    })
}

fn layer_norm<T: HostTensor>(x: &T, weight: &T, bias: &T, precision: Precision) -> Option<T> {
    let (elements, weight, bias) = (values(x)?, values(weight)?, values(bias)?);
    match precision {
        Precision::F32 => like::<f32, f32, T>(x, layer_norm::value(&elements, &weight, &bias)),
        Precision::Bf16 => like::<f32, bf16, T>(x, layer_norm::value(&elements, &weight, &bias)),
        Precision::Tf32 => None,
    }
}

fn layer_norm_backward<T: HostTensor>(
    x: &T,
    weight: &T,
    grad_output: &T,
    sum: Option<&T>,
) -> Option<LayerNormGradients<T>> {
    let sum = match sum {
        Some(sum) => Some(values(sum)?),
        None => None,
    };
    let (elements, gain) = (values(x)?, values(weight)?);
    let found = match values::<bf16, T>(grad_output) {
        Some(grad_output) => layer_norm::derivatives(&elements, &gain, &grad_output, sum.as_deref()),
        None => layer_norm::derivatives(&elements, &gain, &values::<f32, T>(grad_output)?, sum.as_deref()),
    };
    Some(LayerNormGradients {
        x: like::<f32, f32, T>(x, found.x)?,
        weight: of_row(found.weight),
        bias: of_row(found.bias),
    })
}

fn attention<T: HostTensor>(qkv: &T, n_head: usize) -> Option<Attended<T>> {
    fn with<E: Element, T: HostTensor>(
        qkv: &T,
        n_head: usize,
        value: impl Fn(ArrayView4<E>) -> (Array4<E>, Array3<f32>),
    ) -> Option<Attended<T>> {
        let (out, log_sum) = value(heads(qkv, 3 * n_head)?.view());
        let (batch, seq, _, head_dim) = out.dim();
        Some(Attended {
            out: E::tensor(out.into_raw_vec_and_offset().0, &[batch, seq, n_head * head_dim])?,
            log_sum: T::from_values(log_sum.into_raw_vec_and_offset().0, &[batch, n_head, seq]),
        })
    }
    if on_tiles(qkv) {
        with(qkv, n_head, attention_tiles::value)
    } else {
        with(qkv, n_head, attention::value)
    }
}

fn attention_backward<T: HostTensor>(qkv: &T, attended: &Attended<T>, grad_output: &T, n_head: usize) -> Option<T> {
    fn with<E: Element, T: HostTensor>(
        [qkv, out, log_sum, grad_output]: [&T; 4],
        n_head: usize,
        derivative: impl Fn(ArrayView4<E>, ArrayView4<E>, ArrayView3<f32>, ArrayView4<E>) -> Array4<E>,
    ) -> Option<T> {
        let (split, log_sum) = (heads(qkv, 3 * n_head)?, values(log_sum)?);
        let (batch, seq, _, _) = split.dim();
        let grad_qkv = derivative(
            split.view(),
            heads(out, n_head)?.view(),
            ArrayView3::from_shape((batch, n_head, seq), &log_sum).expect("a sum for each row"),
            heads(grad_output, n_head)?.view(),
        );
        like::<E, E, T>(qkv, grad_qkv.into_raw_vec_and_offset().0)
    }
    let tensors = [qkv, &attended.out, &attended.log_sum, grad_output];
    if on_tiles(qkv) {
        with(tensors, n_head, attention_tiles::derivative)
    } else {
        with(tensors, n_head, attention::derivative)
    }
}

fn gelu<T: HostTensor>(x: &T) -> Option<T> {
    fn of<E: Element, T: HostTensor>(x: &T) -> Option<T> {
        like::<E, E, T>(x, gelu::value::<E>(&values(x)?))
    }
    of::<f32, T>(x).or_else(|| of::<bf16, T>(x))
}

fn gelu_backward<T: HostTensor>(x: &T, grad_output: &T) -> Option<T> {
    fn of<E: Element, T: HostTensor>(x: &T, grad_output: &T) -> Option<T> {
        like::<E, E, T>(x, gelu::derivative::<E>(&values(x)?, &values(grad_output)?))
    }
    of::<f32, T>(x, grad_output).or_else(|| of::<bf16, T>(x, grad_output))
}
