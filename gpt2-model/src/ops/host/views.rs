//! How the operations see a backend's tensors, and how they make new ones.

use super::element::Element;
use super::tensor::HostTensor;
use super::tiles::{Operand, Role};
use half::bf16;
use ndarray::{Array2, Array4, ArrayView2, ArrayView4, CowArray, Ix2, Ix4};
use std::borrow::Cow;

/// The elements in order, if they are of this type: where they lie, or else a copy.
pub(super) fn values<E: Element, T: HostTensor>(tensor: &T) -> Option<Cow<'_, [E]>> {
    let view = E::view(tensor)?;
    Some(match view.to_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(view.iter().copied().collect()),
    })
}

/// The operand of a product on the tile unit: `tensor` is `[lines, inner]`, or with `turned` `[inner, lines]`.
pub(super) fn operand<T: HostTensor>(tensor: &T, role: Role, turned: bool) -> Option<Operand> {
    fn of<E: Element>(matrix: ArrayView2<E>, role: Role, turned: bool) -> Operand {
        Operand::new(if turned { matrix.reversed_axes() } else { matrix }, role)
    }
    match matrix::<bf16, T>(tensor) {
        Some(matrix) => Some(of(matrix, role, turned)),
        None => Some(of(matrix::<f32, T>(tensor)?, role, turned)),
    }
}

/// The matrix, if it is one of this type.
pub(super) fn matrix<E: Element, T: HostTensor>(tensor: &T) -> Option<ArrayView2<'_, E>> {
    E::view(tensor)?.into_dimensionality::<Ix2>().ok()
}

/// `[B, T, C]` as `[B, T, heads, D]`, if it is of this type.
pub(super) fn heads<E: Element, T: HostTensor>(tensor: &T, heads: usize) -> Option<CowArray<'_, E, Ix4>> {
    let view = E::view(tensor)?;
    let &[batch, seq, width] = view.shape() else {
        return None;
    };
    let shape = (batch, seq, heads, width / heads);
    Some(match values(tensor)? {
        Cow::Borrowed(values) => ArrayView4::from_shape(shape, values).ok()?.into(),
        Cow::Owned(values) => Array4::from_shape_vec(shape, values).ok()?.into(),
    })
}

/// `values` in the shape of `tensor`, whose elements are of type `E`.
pub(super) fn like<E: Element, F: Element, T: HostTensor>(tensor: &T, values: Vec<F>) -> Option<T> {
    F::tensor(values, E::view(tensor)?.shape())
}

pub(super) fn of_row<T: HostTensor>(values: Vec<f32>) -> T {
    let shape = [values.len()];
    T::from_values(values, &shape)
}

pub(super) fn of_matrix<E: Element, T: HostTensor>(matrix: Array2<E>) -> Option<T> {
    let (rows, columns) = matrix.dim();
    E::tensor(matrix.into_raw_vec_and_offset().0, &[rows, columns])
}

pub(super) fn scalar<T: HostTensor>(value: f64) -> T {
    T::from_values(vec![value as f32], &[1])
}
