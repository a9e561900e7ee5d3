//! The tasks: what an example is, how a model is scored on it, and what the scores come to.

pub mod last_word;
pub mod loss;
pub mod multiple_choice;

/// The share of `count` examples that `right` of them are.
fn share(right: usize, count: usize) -> f64 {
    right as f64 / count as f64
}

/// The standard error of a share `p` of `count` examples, √(p(1 − p)/(n − 1)); none of one example.
fn standard_error(p: f64, count: usize) -> Option<f64> {
    (count > 1).then(|| (p * (1.0 - p) / (count - 1) as f64).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_error_of_a_share() {
        assert_eq!(standard_error(share(1, 4), 4), Some(0.25));
        assert_eq!(standard_error(1.0, 10), Some(0.0));
        assert_eq!(standard_error(1.0, 1), None);
    }
}
