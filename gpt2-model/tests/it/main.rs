//! The model as a whole, on a backend of the CPU: weights in files, initial weights, dropout, precisions, losses, text.

#![cfg(any(feature = "flex", feature = "ndarray"))]

mod dropout;
#[cfg(feature = "flex")]
mod example;
mod formats;
mod init;
mod losses;
mod precision;
mod support;
mod text;
mod weights;
