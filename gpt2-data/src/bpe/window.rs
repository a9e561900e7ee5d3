//! Sixteen bytes of text in two integers. The lengths of words cannot be predicted, so a loop over the bytes of a word would
//! stall the processor at the end of each; arithmetic on eight bytes at once does not.

/// Bytes in a window.
pub(super) const WINDOW: usize = 16;
/// The longest word that a [`Key`] holds.
pub(super) const MAX_SHORT: usize = WINDOW - 1;

/// A word of at most [`MAX_SHORT`] bytes, and in the highest byte its length, as words may end in zeros.
pub(super) type Key = u128;

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH_BITS: u64 = 0x80 * ONES;

/// The bytes of a text from some place on, with zeros after its end. The first is in the lowest bits.
#[derive(Clone, Copy)]
pub(super) struct Window {
    low: u64,
    high: u64,
}

impl Window {
    #[inline]
    pub(super) fn at(text: &[u8], start: usize) -> Self {
        let rest = &text[start..];
        let bytes = u128::from_le_bytes(match rest.first_chunk::<WINDOW>() {
            Some(&bytes) => bytes,
            None => padded(rest),
        });
        Self {
            low: bytes as u64,
            high: (bytes >> 64) as u64,
        }
    }

    /// How many bytes the window begins with that are ASCII letters, where the first may be a space.
    #[inline]
    pub(super) fn letters(self) -> usize {
        let is_space = u64::from(self.low as u8 == b' ') << 7;
        let low = (not_letters(self.low) & !is_space).trailing_zeros();
        let high = not_letters(self.high).trailing_zeros();
        (if low < 64 { low } else { 64 + high }) as usize / 8
    }

    /// The key of the first `len` bytes, at most [`MAX_SHORT`].
    #[inline]
    pub(super) fn key(self, len: usize) -> Key {
        const MASKS: [[u64; 2]; WINDOW] = {
            let mut masks = [[0; 2]; WINDOW];
            let mut len = 0;
            while len < WINDOW {
                let mask = (1_u128 << (8 * len)) - 1;
                masks[len] = [mask as u64, (mask >> 64) as u64];
                len += 1;
            }
            masks
        };
        let [low, high] = MASKS[len];
        let high = self.high & high | (len as u64) << 56;
        Key::from(self.low & low) | Key::from(high) << 64
    }
}

#[cold]
fn padded(rest: &[u8]) -> [u8; WINDOW] {
    let mut bytes = [0; WINDOW];
    bytes[..rest.len()].copy_from_slice(rest);
    bytes
}

/// The high bit of each byte that is no ASCII letter.
#[inline]
fn not_letters(bytes: u64) -> u64 {
    let lower_case = (bytes | (0x20 * ONES)) & !HIGH_BITS;
    // Sums of seven bits and at most 0x1f: none carries into the next byte, and the high bit tells which is greater.
    let from_a = lower_case + (0x80 - u64::from(b'a')) * ONES;
    let beyond_z = lower_case + (0x7f - u64::from(b'z')) * ONES;
    (!from_a | beyond_z | bytes) & HIGH_BITS
}
