//! The types in which the host keeps numbers; all arithmetic is in `f32`.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the processor's vectors"
)]

use super::tensor::HostTensor;
use half::bf16;
use ndarray::ArrayViewD;

/// A type that numbers are kept in.
pub(super) trait Element: Copy + Send + Sync + 'static {
    fn wide(self) -> f32;

    /// Rounded to the nearest, of two equally near to the even one.
    fn rounded(value: f32) -> Self;

    /// The elements of `tensor`, if they are of this type.
    fn view<T: HostTensor>(tensor: &T) -> Option<ArrayViewD<'_, Self>>;

    /// A tensor of `values`, if its backend has some of this type.
    fn tensor<T: HostTensor>(values: Vec<Self>, shape: &[usize]) -> Option<T>;
}

impl Element for f32 {
    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn rounded(value: f32) -> Self {
        value
    }

    fn view<T: HostTensor>(tensor: &T) -> Option<ArrayViewD<'_, Self>> {
        tensor.view()
    }

    fn tensor<T: HostTensor>(values: Vec<Self>, shape: &[usize]) -> Option<T> {
        Some(T::from_values(values, shape))
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    /// Without a branch, so that it vectorises.
    #[inline(always)]
    fn rounded(value: f32) -> Self {
        const QUIET: u32 = 1 << 22;
        let bits = value.to_bits();
        let nearest = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
        let bits = if value.is_nan() { bits | QUIET } else { nearest };
        Self::from_bits((bits >> 16) as u16)
    }

    fn view<T: HostTensor>(tensor: &T) -> Option<ArrayViewD<'_, Self>> {
        tensor.halves()
    }

    fn tensor<T: HostTensor>(values: Vec<Self>, shape: &[usize]) -> Option<T> {
        T::from_halves(values, shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_half_to_even() {
        let step = 1.0 / 128.0;
        for (value, expected) in [
            (1.0 + 0.49 * step, 1.0),
            (1.0 + 0.5 * step, 1.0),
            (1.0 + 1.5 * step, 1.0 + 2.0 * step),
            (-1.0 - 0.51 * step, -1.0 - step),
            (f32::MAX, f32::INFINITY),
            (0.0, 0.0),
        ] {
            let rounded = bf16::rounded(value);
            assert_eq!(rounded, bf16::from_f32(value), "as the crate rounds {value}");
            assert_eq!(rounded.wide().to_bits(), f32::to_bits(expected), "{value}");
        }
        assert!(bf16::rounded(f32::NAN).wide().is_nan());
    }
}
