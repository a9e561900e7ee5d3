//! The name that a misspelt one was meant to be, and the numbers that one which does not fit was.

/// Below this similarity (Jaro-Winkler) a known name is no likely reading of an unknown one.
const AT_LEAST: f64 = 0.8;

/// The known name most similar to `name`, if one is similar enough to be what was meant.
///
/// ```
/// assert_eq!(gpt2_base::nearest("gpt2-medum", ["gpt2", "gpt2-medium"]), Some("gpt2-medium"));
/// assert_eq!(gpt2_base::nearest("llama", ["gpt2", "gpt2-medium"]), None);
/// ```
pub fn nearest<S: AsRef<str>>(name: &str, known: impl IntoIterator<Item = S>) -> Option<S> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate.as_ref()), candidate))
        .filter(|(similarity, _)| *similarity >= AT_LEAST)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// What other programs call settings of ours, so that a slip of the tongue is led to what was meant.
pub const OTHER_NAMES: [(&str, &str); 22] = [
    ("max-iters", "steps"),
    ("max-steps", "steps"),
    ("num-steps", "steps"),
    ("iters", "steps"),
    ("learning-rate", "lr"),
    ("batch-size", "batch"),
    ("per-device-train-batch-size", "batch"),
    ("total-batch-size", "global-batch"),
    ("gradient-accumulation-steps", "grad-accum"),
    ("sequence-length", "seq"),
    ("warmup-iters", "warmup"),
    ("warmup-steps", "warmup"),
    ("lr-decay-iters", "decay-steps"),
    ("eval-interval", "eval-every"),
    ("eval-iters", "eval-batches"),
    ("log-interval", "log-every"),
    ("save-steps", "checkpoint-every"),
    ("out-dir", "run"),
    ("output-dir", "run"),
    ("dtype", "precision"),
    ("max-new-tokens", "max-tokens"),
    ("start", "prompt"),
];

/// Our setting that another program calls `name`, give or take a letter; written with dashes or underscores.
///
/// ```
/// assert_eq!(gpt2_base::other_name("max_iters"), Some("steps"));
/// assert_eq!(gpt2_base::other_name("colour"), None);
/// ```
pub fn other_name(name: &str) -> Option<&'static str> {
    let name = name.trim_start_matches('-').replace('_', "-");
    let letters = |(theirs, _): &(&str, &str)| strsim::osa_distance(theirs, &name);
    let nearest = OTHER_NAMES.iter().min_by_key(|names| letters(names))?;
    (letters(nearest) <= 1).then_some(nearest.1)
}

/// The multiples of `of` next to `value`, for what to try instead: "56 or 64", or "8" where there is none below.
///
/// ```
/// assert_eq!(gpt2_base::nearest_multiples(60, 8), "56 or 64");
/// assert_eq!(gpt2_base::nearest_multiples(5, 8), "8");
/// ```
pub fn nearest_multiples(value: usize, of: usize) -> String {
    let of = of.max(1);
    let below = value / of * of;
    if below > 0 {
        format!("{below} or {}", below.saturating_add(of))
    } else {
        of.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_name_is_found() {
        let keys = ["lr", "n-layer", "n-head", "batch", "backend"].map(str::to_owned);
        assert_eq!(nearest("n_layer", &keys).map(String::as_str), Some("n-layer"));
        assert_eq!(nearest("batch-size", &keys).map(String::as_str), Some("batch"));
        assert_eq!(nearest("train", &keys), None);
        assert_eq!(nearest("train", [""; 0]), None);
    }
}
