//! Where there is no tile unit.

use super::tile::Tile;
use ndarray::ArrayViewMut2;

pub(super) enum Unit {}

pub(super) fn available() -> bool {
    false
}

pub(super) fn with_tiles(_work: impl FnOnce(&Unit)) {
    unreachable!("asked for only where it is available");
}

impl Unit {
    pub(super) fn multiply(&self, _a: &[Tile], _b: &[Tile], _steps: usize, _fresh: bool, _sums: ArrayViewMut2<f32>) {
        match *self {}
    }
}
