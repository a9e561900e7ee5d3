//! A setting whose value cannot be used.

use std::borrow::Cow;

/// A setting whose value cannot be used. The setting is named as the field is, without dashes: whether it came from a
/// flag, a file or a call is for the caller to say.
///
/// ```
/// let invalid = gpt2_base::Invalid::new("batch", &0, "at least 1").fix("leave it out for the default");
/// assert_eq!(invalid.to_string(), "`batch` is 0, expected at least 1: leave it out for the default");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is {value}, expected {expected}{}", fix.as_ref().map(|fix| format!(": {fix}")).unwrap_or_default())]
pub struct Invalid {
    /// The setting, as its key is spelt.
    pub key: Cow<'static, str>,
    /// Its value, as text.
    pub value: String,
    /// What it must be.
    pub expected: Cow<'static, str>,
    /// What to do, where that does not follow from `expected`.
    pub fix: Option<Cow<'static, str>>,
}

impl Invalid {
    /// Describes the value of `key`.
    pub fn new(
        key: impl Into<Cow<'static, str>>,
        value: &(impl ToString + ?Sized),
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            key: key.into(),
            value: value.to_string(),
            expected: expected.into(),
            fix: None,
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn fix(self, fix: impl Into<Cow<'static, str>>) -> Self {
        Self {
            fix: Some(fix.into()),
            ..self
        }
    }
}
