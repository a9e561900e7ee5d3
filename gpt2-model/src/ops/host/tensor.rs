//! How the operations see a backend's tensors.

use ndarray::{Array2, Array4, ArrayView2, ArrayView4, ArrayViewD, CowArray, Ix2, Ix4};
use std::borrow::Cow;

/// A tensor in the host's memory.
pub trait HostTensor: Sized {
    /// The elements, if they are `f32`, with their strides.
    fn view(&self) -> Option<ArrayViewD<'_, f32>>;

    /// The elements in order, if they are whole numbers from 0 up.
    fn indices(&self) -> Option<Vec<usize>>;

    /// A tensor of these elements.
    ///
    /// # Panics
    /// If there are more or fewer than `shape` has.
    fn from_values(values: Vec<f32>, shape: &[usize]) -> Self;

    /// The elements in order, if they are `f32`, to be changed: copied first where another tensor shares them or they lie in
    /// another order.
    fn values_mut(&mut self) -> Option<&mut [f32]>;
}

/// The elements in order, if they are `f32`: where they lie, or else a copy.
pub(super) fn values<T: HostTensor>(tensor: &T) -> Option<Cow<'_, [f32]>> {
    let view = tensor.view()?;
    Some(match view.to_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(view.iter().copied().collect()),
    })
}

/// The matrix, if it is one of `f32`.
pub(super) fn matrix<T: HostTensor>(tensor: &T) -> Option<ArrayView2<'_, f32>> {
    tensor.view()?.into_dimensionality::<Ix2>().ok()
}

/// `[B, T, C]` as `[B, T, heads, D]`, if it is `f32`.
pub(super) fn heads<T: HostTensor>(tensor: &T, heads: usize) -> Option<CowArray<'_, f32, Ix4>> {
    let view = tensor.view()?;
    let &[batch, seq, width] = view.shape() else {
        return None;
    };
    let shape = (batch, seq, heads, width / heads);
    Some(match values(tensor)? {
        Cow::Borrowed(values) => ArrayView4::from_shape(shape, values).ok()?.into(),
        Cow::Owned(values) => Array4::from_shape_vec(shape, values).ok()?.into(),
    })
}

/// `values` in the shape of `tensor`.
pub(super) fn like<T: HostTensor>(tensor: &T, values: Vec<f32>) -> T {
    let view = tensor.view().expect("its values were read");
    T::from_values(values, view.shape())
}

pub(super) fn of_matrix<T: HostTensor>(matrix: Array2<f32>) -> T {
    let (rows, columns) = matrix.dim();
    T::from_values(matrix.into_raw_vec_and_offset().0, &[rows, columns])
}

pub(super) fn scalar<T: HostTensor>(value: f64) -> T {
    T::from_values(vec![value as f32], &[1])
}
