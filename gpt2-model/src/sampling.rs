//! From logits to a token: temperature, top-k and top-p. Pure functions of the logits, the settings and the generator.

use rand::{Rng, RngExt};

/// How a token is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most probable token.
    pub temperature: f32,
    /// Keeps the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the smallest set of most probable tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
}

impl Default for Sampling {
    /// nanoGPT's: temperature 0.8, the 200 most probable tokens.
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 200,
            top_p: 1.0,
        }
    }
}

impl Sampling {
    /// Always the most probable token.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
    };

    /// Draws a token. A logit of −∞ masks its token, which is never drawn.
    ///
    /// ```
    /// use gpt2_model::sampling::Sampling;
    /// use rand::SeedableRng;
    ///
    /// let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    /// assert_eq!(Sampling::GREEDY.draw(&[0.5, 2.0, f32::NEG_INFINITY], &mut rng), 1);
    /// ```
    ///
    /// # Panics
    /// If a logit is NaN or +∞, or none is finite: nothing can be drawn from them.
    pub fn draw(&self, logits: &[f32], rng: &mut impl Rng) -> usize {
        assert!(
            logits.iter().all(|&logit| logit < f32::INFINITY),
            "a logit is NaN or +∞"
        );
        let count = match self.top_k {
            _ if self.temperature <= 0.0 => 1,
            0 => logits.len(),
            top_k => top_k,
        };
        let ranked = best(logits, count);
        assert!(!ranked.is_empty(), "every token is masked");
        let max = ranked[0].1;
        let mut weights: Vec<f64> = ranked
            .iter()
            .map(|(_, logit)| f64::from((logit - max) / self.temperature).exp())
            .collect();
        let kept = nucleus(&weights, f64::from(self.top_p));
        weights.truncate(kept);
        let mut left = rng.random::<f64>() * weights.iter().sum::<f64>();
        for (weight, &(token, _)) in weights.iter().zip(&ranked) {
            left -= weight;
            if left < 0.0 {
                return token;
            }
        }
        ranked[kept - 1].0
    }
}

/// The `count` tokens of the highest logits, the highest first; those that are masked are left out. Ties go to the lower
/// token, so that a draw does not depend on the sort.
fn best(logits: &[f32], count: usize) -> Vec<(usize, f32)> {
    let by_rank = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let mut best: Vec<(usize, f32)> = Vec::new();
    // What a token has to exceed, now that `count` earlier ones do not fall below.
    let mut least = f32::NEG_INFINITY;
    for (token, &logit) in logits.iter().enumerate() {
        if logit.total_cmp(&least).is_gt() {
            best.push((token, logit));
            if best.len() == count.saturating_mul(2) {
                best.select_nth_unstable_by(count - 1, by_rank);
                best.truncate(count);
                least = best[count - 1].1;
            }
        }
    }
    best.sort_unstable_by(by_rank);
    best.truncate(count);
    best
}

/// How many of the descending `weights` it takes to reach the share `top_p` (Holtzman et al. 2020, section 3.1); at
/// least one.
fn nucleus(weights: &[f64], top_p: f64) -> usize {
    let target = weights.iter().sum::<f64>() * top_p;
    let mut sum = 0.0;
    for (i, weight) in weights.iter().enumerate() {
        sum += weight;
        if sum >= target {
            return i + 1;
        }
    }
    weights.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    const LOGITS: [f32; 5] = [0.0, 2.0, 1.0, f32::NEG_INFINITY, -1.0];

    fn shares(sampling: Sampling) -> [f64; 5] {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut counts = [0.0; 5];
        for _ in 0..20_000 {
            counts[sampling.draw(&LOGITS, &mut rng)] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert_eq!(Sampling::GREEDY.draw(&[1.0, 3.0, 3.0], &mut rng), 1);
        assert_eq!(Sampling::GREEDY.draw(&[f32::NEG_INFINITY, -3.0], &mut rng), 1);
    }

    #[test]
    fn the_best_are_those_of_a_sort() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for count in [1, 2, 5, 100, 1_000, usize::MAX] {
            // Few values, so that there are ties.
            let mut logits: Vec<f32> = (0..1_000)
                .map(|_| (rng.random_range(0..300) as f32 - 150.0) / 8.0)
                .collect();
            logits[17] = f32::NEG_INFINITY;
            let mut sorted: Vec<(usize, f32)> =
                logits.iter().copied().enumerate().filter(|&(at, _)| at != 17).collect();
            sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
            sorted.truncate(count);
            assert_eq!(best(&logits, count), sorted, "{count}");
        }
    }

    #[test]
    fn nothing_is_drawn_from_logits_that_are_not_finite() {
        for logits in [&[f32::NAN, 1.0][..], &[f32::INFINITY, 1.0], &[f32::NEG_INFINITY], &[]] {
            for sampling in [Sampling::GREEDY, Sampling::default()] {
                let mut rng = ChaCha8Rng::seed_from_u64(1);
                let drawn = std::panic::catch_unwind(move || sampling.draw(logits, &mut rng));
                assert!(drawn.is_err(), "{logits:?}");
            }
        }
    }

    #[test]
    fn shares_follow_the_softmax() {
        let shares = shares(Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
        });
        let total: f64 = LOGITS.iter().map(|&logit| f64::from(logit).exp()).sum();
        for (share, &logit) in shares.iter().zip(&LOGITS) {
            assert!((share - f64::from(logit).exp() / total).abs() < 0.01, "{shares:?}");
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let top_2 = shares(Sampling {
            temperature: 1.0,
            top_k: 2,
            top_p: 1.0,
        });
        assert_eq!((top_2[0], top_2[3], top_2[4]), (0.0, 0.0, 0.0));
        assert!(top_2[1] > 0.7 && top_2[2] > 0.2);
        let nucleus = shares(Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 0.7,
        });
        assert_eq!((nucleus[0], nucleus[4]), (0.0, 0.0), "the two first hold 0.88");
        assert!(
            shares(Sampling {
                temperature: 1.0,
                top_k: 0,
                top_p: 0.0
            })[1]
                > 0.9999
        );
    }
}
