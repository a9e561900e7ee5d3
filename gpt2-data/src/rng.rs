//! The crate's one source of pseudo-random numbers: `SplitMix64`, as a hash and as a generator.
//!
//! It is written out here rather than taken from a crate because the values are part of two promises: a run resumed years
//! later sees the same windows, and the demo corpus is byte-identical everywhere. `rand` keeps the right to change what its
//! samplers return between versions. Eight lines of integer arithmetic cannot change. Nothing here is for cryptography.

/// The golden ratio times 2^64, the increment of `SplitMix64` (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014).
const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// Mixes all bits of `x`: a bijection of the 64-bit integers (Stafford's "Mix13", the finaliser of `SplitMix64`).
#[inline]
pub(crate) const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A hash of two words that depends on their order.
#[inline]
pub(crate) const fn mix2(a: u64, b: u64) -> u64 {
    mix(mix(a.wrapping_add(GOLDEN_GAMMA)) ^ b.wrapping_mul(GOLDEN_GAMMA).wrapping_add(1))
}

/// A small generator whose output is the same in every version of this crate and on every platform.
#[derive(Debug, Clone)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// A generator whose whole output is fixed by `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        mix(self.state)
    }

    /// An integer in `0..bound`; 0 when `bound` is 0.
    ///
    /// Takes the high word of a product (Lemire's method without the rejection step): off from uniform by less than
    /// `bound` / 2^64, which no sample of a corpus can show.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next_u64() as u128 * bound as u128) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_published_generator() {
        // First outputs of Vigna's splitmix64.c for the seed 1234567.
        let mut rng = SplitMix64::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn below_stays_below_and_reaches_every_value() {
        let mut rng = SplitMix64::new(7);
        let mut seen = [0_u32; 5];
        for _ in 0..1000 {
            seen[usize::try_from(rng.below(5)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|&n| n > 150), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }
}
