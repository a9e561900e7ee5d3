//! The unit that is encoded.

/// A document, or a part of one that encodes to the same tokens alone as within the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub text: String,
    /// The segment begins a document; otherwise it continues the one before.
    pub starts_document: bool,
}
