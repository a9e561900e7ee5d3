//! The types of numbers in weights files.

use crate::error::ModelError;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

/// Values that are converted at a time: more would not be faster.
const CHUNK: usize = 1 << 16;

/// The type of the numbers in a weights file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dtype {
    /// 32 bits.
    #[default]
    F32,
    /// IEEE's 16 bits: at most 65,504.
    F16,
    /// The upper 16 bits of an `f32`.
    Bf16,
}

impl Dtype {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// Its name in flags and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of a number.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Writes `values`, little-endian, rounded to the nearest.
    pub(super) fn write(self, values: &[f32], file: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::new();
        for chunk in values.chunks(CHUNK) {
            match self {
                Self::F32 => put(chunk, &mut bytes, f32::to_le_bytes),
                Self::F16 => put(chunk, &mut bytes, |value| half::f16::from_f32(value).to_le_bytes()),
                Self::Bf16 => put(chunk, &mut bytes, |value| half::bf16::from_f32(value).to_le_bytes()),
            }
            file.write_all(&bytes)?;
        }
        Ok(())
    }

    /// The numbers in `bytes`, whose length is a multiple of a number's.
    pub(super) fn read(self, bytes: &[u8]) -> Vec<f32> {
        let halves = bytes.as_chunks::<2>().0.iter().copied();
        match self {
            Self::F32 => bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&of| f32::from_le_bytes(of))
                .collect(),
            Self::F16 => halves.map(|of| half::f16::from_le_bytes(of).to_f32()).collect(),
            Self::Bf16 => halves.map(|of| half::bf16::from_le_bytes(of).to_f32()).collect(),
        }
    }

    /// Refuses numbers that this type does not reach and an `f32` does: they would become infinite.
    pub(super) fn check(self, values: &[f32], name: &str, path: &Path) -> Result<(), ModelError> {
        let is_lost = |value: f32| match self {
            Self::F32 => false,
            Self::F16 => half::f16::from_f32(value).is_infinite(),
            Self::Bf16 => half::bf16::from_f32(value).is_infinite(),
        };
        match values.iter().find(|value| value.is_finite() && is_lost(**value)) {
            Some(value) => Err(ModelError::BeyondType {
                path: path.to_owned(),
                name: name.to_owned(),
                value: *value,
                dtype: self.as_str(),
                wider: if self == Self::F16 { "bf16 or f32" } else { "f32" },
            }),
            None => Ok(()),
        }
    }
}

/// Puts the numbers that `to_bytes` makes of `values` into `bytes`, in the place of what is there.
fn put<const N: usize>(values: &[f32], bytes: &mut Vec<u8>, to_bytes: impl Fn(f32) -> [u8; N]) {
    bytes.resize(N * values.len(), 0);
    let (places, _) = bytes.as_chunks_mut();
    for (place, &value) in places.iter_mut().zip(values) {
        *place = to_bytes(value);
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_the_nearest() {
        let values = [0.0, -1.5, 1.0 + f32::EPSILON, 65_504.0, 1e-30];
        for (dtype, expected) in [
            (Dtype::F32, values),
            (Dtype::F16, [0.0, -1.5, 1.0, 65_504.0, 0.0]),
            (
                Dtype::Bf16,
                [0.0, -1.5, 1.0, 65_536.0, half::bf16::from_f32(1e-30).to_f32()],
            ),
        ] {
            let mut bytes = Vec::new();
            dtype.write(&values, &mut bytes).unwrap();
            assert_eq!(bytes.len(), values.len() * dtype.size());
            assert_eq!(dtype.read(&bytes), expected, "{dtype}");
        }
    }

    #[test]
    fn a_number_beyond_the_type_is_refused() {
        let path = Path::new("m.gguf");
        let message = Dtype::F16
            .check(&[1.0, -70_000.0], "wpe.weight", path)
            .unwrap_err()
            .to_string();
        assert_eq!(
            message,
            "m.gguf: tensor `wpe.weight` holds -70000, which f16 cannot hold; choose bf16 or f32"
        );
        Dtype::Bf16.check(&[1.0, -70_000.0], "wpe.weight", path).unwrap();
        // What is no number already stays so.
        Dtype::F16
            .check(&[f32::NAN, f32::INFINITY], "wpe.weight", path)
            .unwrap();
    }
}
