//! Tests of every operation and of golden values on every backend that the build and the machine have: see
//! `tests/backends`. There is nothing here but the choice of backends, by the features.
