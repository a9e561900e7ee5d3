//! The operations in plain tensors, for every backend: the values that the others are held to.

pub(super) mod affine;
pub(super) mod attention;
pub(super) mod classifier;
pub(super) mod embedding;
pub(super) mod feed_forward;
pub(super) mod gelu;
pub(super) mod layer_norm;
pub(super) mod scale;
