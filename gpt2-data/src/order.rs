//! The order of training windows: a pure function of (seed, step, rank). No files and no threads live here.
//!
//! The corpus is one stream of N tokens. [`Windows`] cuts it into W windows of T inputs each; [`BatchPlan`] numbers every
//! row of every batch of every rank with one global sequence number; [`WindowOrder`] maps that number to a window. The map
//! is a permutation of the W windows in each epoch, computed in O(1) memory and expected O(1) time, so seeking to any step
//! costs the same as taking the next one and there is no shuffled list to save in a checkpoint.

use crate::rng::mix2;

/// How a stream of tokens is cut into windows of `seq + 1` tokens: `seq` inputs and, one token later, `seq` targets.
///
/// Window `i` starts at `i * seq`, so each target belongs to one window. The last window is shifted back to end on the
/// stream's last token: fewer than `seq` targets an epoch are seen twice, none is left out and nothing is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    tokens: u64,
    seq: u64,
}

impl Windows {
    /// The windows of a stream of `tokens` tokens, or `None` where not one fits (`seq` is 0 or `tokens` ≤ `seq`).
    pub const fn new(tokens: u64, seq: u64) -> Option<Self> {
        if seq == 0 || tokens <= seq {
            None
        } else {
            Some(Self { tokens, seq })
        }
    }

    /// W = ⌈(N − 1) / T⌉, at least 1.
    pub const fn count(&self) -> u64 {
        (self.tokens - 1).div_ceil(self.seq)
    }

    /// Position in the stream of the first token of window `index`, which must be below [`count`](Self::count).
    pub fn start(&self, index: u64) -> u64 {
        debug_assert!(index < self.count(), "window {index} of {}", self.count());
        (index * self.seq).min(self.tokens - 1 - self.seq)
    }
}

/// The shape of one optimizer step over all ranks, which fixes the global number of every sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchPlan {
    /// Sequences in a micro-step of one rank.
    pub batch: u64,
    /// Micro-steps in an optimizer step.
    pub grad_accum: u64,
    /// Ranks that share the work.
    pub world_size: u64,
}

impl BatchPlan {
    /// Sequences in an optimizer step, over all ranks.
    pub const fn sequences_per_step(&self) -> u64 {
        self.grad_accum * self.world_size * self.batch
    }

    /// Global number of the first row of a batch: `((step * grad_accum + micro_step) * world_size + rank) * batch`. Row `r`
    /// has that number plus `r`.
    pub const fn first_sequence(&self, step: u64, micro_step: u64, rank: u64) -> u64 {
        ((step * self.grad_accum + micro_step) * self.world_size + rank) * self.batch
    }
}

/// Maps the global sequence number to a window: `g / W` is the epoch, and `g % W` goes through that epoch's permutation.
///
/// The permutation is a balanced Feistel network over the smallest 2k-bit domain that holds W, with cycle-walking: a value
/// outside `0..W` goes through the network again until it falls inside (Black and Rogaway, "Ciphers with arbitrary finite
/// domains", 2002). The domain has fewer than 4·W values, so fewer than four passes are expected. The round function hashes
/// one half with the round's key, which hashes (seed, epoch, round).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowOrder {
    windows: u64,
    seed: u64,
}

/// Four rounds make a pseudo-random permutation of a large domain (Luby and Rackoff, 1988). Small domains need more to
/// look shuffled, and eight cost nothing beside reading a window.
const ROUNDS: u64 = 8;

impl WindowOrder {
    /// The order of `windows` windows under `seed`, or `None` for no windows.
    pub const fn new(windows: u64, seed: u64) -> Option<Self> {
        if windows == 0 {
            None
        } else {
            Some(Self { windows, seed })
        }
    }

    /// How often the whole stream has been seen before sequence `sequence`.
    pub const fn epoch(&self, sequence: u64) -> u64 {
        sequence / self.windows
    }

    /// The window that sequence `sequence` reads.
    pub const fn window(&self, sequence: u64) -> u64 {
        permute(
            self.windows,
            mix2(self.seed, self.epoch(sequence)),
            sequence % self.windows,
        )
    }
}

/// The image of `index` under the permutation of `0..n` that `key` picks. `index` must be below `n`.
const fn permute(n: u64, key: u64, index: u64) -> u64 {
    let bits = u64::BITS - (n - 1).leading_zeros();
    let half = if bits == 0 { 1 } else { bits.div_ceil(2) };
    let mut value = feistel(half, key, index);
    // Ends: the network is a bijection of its domain, so following it from a value below n comes back below n.
    while value >= n {
        value = feistel(half, key, value);
    }
    value
}

/// One pass over a domain of `2 * half` bits.
const fn feistel(half: u32, key: u64, value: u64) -> u64 {
    let mask = (1 << half) - 1;
    let (mut left, mut right) = (value >> half, value & mask);
    let mut round = 0;
    while round < ROUNDS {
        (left, right) = (right, left ^ (mix2(mix2(key, round), right) & mask));
        round += 1;
    }
    (left << half) | right
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epoch_of(windows: u64, seed: u64, epoch: u64) -> Vec<u64> {
        let order = WindowOrder::new(windows, seed).unwrap();
        (0..windows).map(|i| order.window(epoch * windows + i)).collect()
    }

    fn sorted(mut values: Vec<u64>) -> Vec<u64> {
        values.sort_unstable();
        values
    }

    #[test]
    fn every_small_count_is_permuted() {
        for windows in 1..=300 {
            assert_eq!(sorted(epoch_of(windows, 42, 0)), (0..windows).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_order_is_frozen() {
        // A changed order silently changes every resumed run, so these values may never change.
        assert_eq!(epoch_of(10, 1337, 0), [2, 9, 3, 8, 1, 6, 0, 7, 5, 4]);
        let order = WindowOrder::new(9_765_625, 1337).unwrap();
        assert_eq!(
            [0, 1, 9_765_625].map(|g| order.window(g)),
            [7_082_769, 7_846_891, 860_272]
        );
    }

    #[test]
    fn the_largest_domains_do_not_overflow() {
        for windows in [u64::MAX, 1 << 63, (1 << 62) + 1] {
            let order = WindowOrder::new(windows, 3).unwrap();
            for sequence in [0, 1, windows - 1] {
                assert!(order.window(sequence) < windows);
            }
        }
    }

    #[test]
    fn neighbours_are_scattered() {
        // In a random permutation of 10,000 the chance that the next window follows in the text is 1 in 10,000.
        let order = epoch_of(10_000, 5, 0);
        let followed = order.windows(2).filter(|pair| pair[1] == pair[0] + 1).count();
        assert!(followed < 10, "{followed} neighbours stayed neighbours");
        // And the first half of the epoch draws from both halves of the stream.
        let low = order[..5000].iter().filter(|&&w| w < 5000).count();
        assert!((2300..2700).contains(&low), "{low} of 5000");
    }

    #[test]
    fn a_stream_too_short_for_one_window_has_none() {
        assert_eq!(Windows::new(8, 8), None);
        assert_eq!(Windows::new(8, 0), None);
        assert_eq!(Windows::new(9, 8).unwrap().count(), 1);
        assert_eq!(WindowOrder::new(0, 1), None);
    }

    proptest! {
        #[test]
        fn an_epoch_is_a_permutation(windows in 1_u64..5000, seed: u64, epoch in 0_u64..1000) {
            prop_assert_eq!(sorted(epoch_of(windows, seed, epoch)), (0..windows).collect::<Vec<_>>());
        }

        #[test]
        fn epochs_and_seeds_differ(windows in 50_u64..2000, seed: u64, epoch in 0_u64..1000) {
            let order = epoch_of(windows, seed, epoch);
            prop_assert_ne!(&order, &epoch_of(windows, seed, epoch + 1));
            prop_assert_ne!(&order, &epoch_of(windows, seed.wrapping_add(1), epoch));
        }

        #[test]
        fn windows_cover_every_target_and_repeat_fewer_than_seq(tokens in 2_u64..3000, seq in 1_u64..200) {
            prop_assume!(tokens > seq);
            let windows = Windows::new(tokens, seq).unwrap();
            let mut seen = vec![0_u32; usize::try_from(tokens).unwrap()];
            for index in 0..windows.count() {
                let start = windows.start(index);
                prop_assert!(start + seq < tokens);
                for target in start + 1..=start + seq {
                    seen[usize::try_from(target).unwrap()] += 1;
                }
            }
            prop_assert_eq!(windows.start(0), 0);
            prop_assert!(seen[1..].iter().all(|&n| n >= 1), "a token is never a target");
            prop_assert!(windows.count() * seq - (tokens - 1) < seq, "too many targets repeat");
            let starts: Vec<u64> = (0..windows.count()).map(|i| windows.start(i)).collect();
            prop_assert!(starts.windows(2).all(|pair| pair[0] < pair[1]), "a window repeats");
        }

        #[test]
        fn ranks_and_micro_steps_share_the_sequences_out(
            batch in 1_u64..5, grad_accum in 1_u64..5, world_size in 1_u64..5, steps in 1_u64..5,
        ) {
            let plan = BatchPlan { batch, grad_accum, world_size };
            let mut seen = Vec::new();
            for step in 0..steps {
                for micro_step in 0..grad_accum {
                    for rank in 0..world_size {
                        let first = plan.first_sequence(step, micro_step, rank);
                        seen.extend(first..first + batch);
                    }
                }
            }
            // Each number once and in order: no two ranks share a sequence, and none is skipped.
            prop_assert_eq!(seen, (0..steps * plan.sequences_per_step()).collect::<Vec<_>>());
        }
    }
}
