//! How the operations see a backend's tensors.

use super::element::Element;
use super::tiles::{Operand, Role};
use half::bf16;
use ndarray::{Array2, Array4, ArrayView2, ArrayView4, ArrayViewD, CowArray, Ix2, Ix4};
use std::borrow::Cow;

/// A tensor in the host's memory.
pub trait HostTensor: Sized {
    /// The elements, if they are `f32`, with their strides.
    fn view(&self) -> Option<ArrayViewD<'_, f32>>;

    /// The elements, if they are `bf16`, with their strides.
    fn halves(&self) -> Option<ArrayViewD<'_, bf16>>;

    /// The elements in order, if they are whole numbers from 0 up.
    fn indices(&self) -> Option<Vec<usize>>;

    /// A tensor of these elements.
    ///
    /// # Panics
    /// If there are more or fewer than `shape` has.
    fn from_values(values: Vec<f32>, shape: &[usize]) -> Self;

    /// A tensor of these elements, or nothing where the backend has none of `bf16`.
    ///
    /// # Panics
    /// If there are more or fewer than `shape` has.
    fn from_halves(values: Vec<bf16>, shape: &[usize]) -> Option<Self>;

    /// The elements in order, if they are `f32`, to be changed: copied first where another tensor shares them or they lie in
    /// another order.
    fn values_mut(&mut self) -> Option<&mut [f32]>;
}

/// The elements in order, if they are `f32`: where they lie, or else a copy.
pub(super) fn values<T: HostTensor>(tensor: &T) -> Option<Cow<'_, [f32]>> {
    Some(in_order(tensor.view()?))
}

fn in_order<E: Element>(view: ArrayViewD<'_, E>) -> Cow<'_, [E]> {
    match view.to_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(view.iter().copied().collect()),
    }
}

/// The elements in order, if they are floating-point numbers of one type or the other.
pub(super) enum Values<'a> {
    Wide(Cow<'a, [f32]>),
    Narrow(Cow<'a, [bf16]>),
}

impl<'a> Values<'a> {
    pub(super) fn of<T: HostTensor>(tensor: &'a T) -> Option<Self> {
        match tensor.halves() {
            Some(view) => Some(Self::Narrow(in_order(view))),
            None => values(tensor).map(Self::Wide),
        }
    }
}

/// The operand of a product on the tile unit: `tensor` is `[lines, inner]`, or with `turned` `[inner, lines]`.
pub(super) fn operand<T: HostTensor>(tensor: &T, role: Role, turned: bool) -> Option<Operand> {
    fn of<E: Element>(view: ArrayViewD<E>, role: Role, turned: bool) -> Option<Operand> {
        let matrix = view.into_dimensionality::<Ix2>().ok()?;
        Some(Operand::new(if turned { matrix.reversed_axes() } else { matrix }, role))
    }
    match tensor.halves() {
        Some(view) => of(view, role, turned),
        None => of(tensor.view()?, role, turned),
    }
}

/// The matrix, if it is one of `f32`.
pub(super) fn matrix<T: HostTensor>(tensor: &T) -> Option<ArrayView2<'_, f32>> {
    tensor.view()?.into_dimensionality::<Ix2>().ok()
}

/// The matrix, if it is one of `bf16`.
pub(super) fn halves_matrix<T: HostTensor>(tensor: &T) -> Option<ArrayView2<'_, bf16>> {
    tensor.halves()?.into_dimensionality::<Ix2>().ok()
}

/// `[B, T, C]` as `[B, T, heads, D]`, if it is `f32`.
pub(super) fn heads<T: HostTensor>(tensor: &T, heads: usize) -> Option<CowArray<'_, f32, Ix4>> {
    split(tensor.view()?, heads)
}

/// `[B, T, C]` as `[B, T, heads, D]`, if it is `bf16`.
pub(super) fn half_heads<T: HostTensor>(tensor: &T, heads: usize) -> Option<CowArray<'_, bf16, Ix4>> {
    split(tensor.halves()?, heads)
}

fn split<E: Element>(view: ArrayViewD<'_, E>, heads: usize) -> Option<CowArray<'_, E, Ix4>> {
    let &[batch, seq, width] = view.shape() else {
        return None;
    };
    let shape = (batch, seq, heads, width / heads);
    Some(match in_order(view) {
        Cow::Borrowed(values) => ArrayView4::from_shape(shape, values).ok()?.into(),
        Cow::Owned(values) => Array4::from_shape_vec(shape, values).ok()?.into(),
    })
}

/// The sides of a tensor of floating-point numbers.
fn shape<T: HostTensor>(tensor: &T) -> Option<Vec<usize>> {
    let halves = tensor.halves().map(|view| view.shape().to_vec());
    halves.or_else(|| Some(tensor.view()?.shape().to_vec()))
}

/// `values` in the shape of `tensor`.
pub(super) fn like<T: HostTensor>(tensor: &T, values: Vec<f32>) -> T {
    T::from_values(values, &shape(tensor).expect("its values were read"))
}

/// `values` in the shape of `tensor`.
pub(super) fn halves_like<T: HostTensor>(tensor: &T, values: Vec<bf16>) -> Option<T> {
    T::from_halves(values, &shape(tensor)?)
}

pub(super) fn of_row<T: HostTensor>(values: Vec<f32>) -> T {
    let shape = [values.len()];
    T::from_values(values, &shape)
}

pub(super) fn of_matrix<T: HostTensor>(matrix: Array2<f32>) -> T {
    let (rows, columns) = matrix.dim();
    T::from_values(matrix.into_raw_vec_and_offset().0, &[rows, columns])
}

pub(super) fn of_halves<T: HostTensor>(matrix: Array2<bf16>) -> Option<T> {
    let (rows, columns) = matrix.dim();
    T::from_halves(matrix.into_raw_vec_and_offset().0, &[rows, columns])
}

pub(super) fn scalar<T: HostTensor>(value: f64) -> T {
    T::from_values(vec![value as f32], &[1])
}
