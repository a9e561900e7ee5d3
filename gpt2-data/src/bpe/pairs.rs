//! What pairs of tokens are merged into.

/// No token: above every rank.
pub(super) const NONE: u16 = u16::MAX;
/// Some one and a half pairs come to each bucket, so that few are full.
const BUCKETS: usize = 1 << 15;
/// What fits into half a cache line.
const BUCKET: usize = 5;

/// The token of each pair that merges.
///
/// Most lookups are in vain, and whether one is cannot be predicted. So a bucket is searched without branches, in one
/// read from memory, where a map of the usual kind has some of both.
pub(super) struct Pairs {
    buckets: Vec<Bucket>,
}

#[derive(Clone, Copy)]
#[repr(align(32))]
struct Bucket {
    pairs: [u32; BUCKET],
    tokens: [u16; BUCKET],
}

impl Pairs {
    pub(super) fn new() -> Self {
        let empty = Bucket {
            pairs: [u32::MAX; BUCKET],
            tokens: [NONE; BUCKET],
        };
        Self {
            buckets: vec![empty; BUCKETS],
        }
    }

    /// What the pair is merged into, or [`NONE`].
    #[inline]
    pub(super) fn get(&self, left: u16, right: u16) -> u16 {
        let pair = pair(left, right);
        let mut place = place(pair);
        loop {
            let Bucket { pairs, tokens } = &self.buckets[place];
            let mut token = NONE;
            for (&found, &its_token) in pairs.iter().zip(tokens) {
                token = if found == pair { its_token } else { token };
            }
            if tokens[BUCKET - 1] == NONE || token != NONE {
                return token;
            }
            place = (place + 1) % BUCKETS;
        }
    }

    pub(super) fn insert(&mut self, left: u16, right: u16, token: u16) {
        let pair = pair(left, right);
        let mut place = place(pair);
        loop {
            let Bucket { pairs, tokens } = &mut self.buckets[place];
            if let Some(free) = tokens.iter().position(|&token| token == NONE) {
                pairs[free] = pair;
                tokens[free] = token;
                return;
            }
            place = (place + 1) % BUCKETS;
        }
    }
}

#[inline]
fn pair(left: u16, right: u16) -> u32 {
    u32::from(left) << 16 | u32::from(right)
}

/// The bucket of a pair: the next one if it is full.
#[inline]
fn place(pair: u32) -> usize {
    // Fibonacci hashing: 2^64 over the golden ratio (Knuth, The Art of Computer Programming, volume 3, section 6.4).
    (u64::from(pair).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 49) as usize % BUCKETS
}
