//! A tensor in the host's memory, as a backend gives it.

use half::bf16;
use ndarray::ArrayViewD;

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
