//! Reductions over the units of a cube.

use crate::launch::UNITS;
use cubecl::prelude::*;

/// The sum of `value` over the units of a cube, on every one of them.
#[cube]
pub(crate) fn sum_of_cube(value: f32, shared: &mut SharedMemory<f32>) -> f32 {
    fold_cube(value, shared, false)
}

/// The greatest `value` of a cube's units, on every one of them.
#[cube]
pub(crate) fn max_of_cube(value: f32, shared: &mut SharedMemory<f32>) -> f32 {
    fold_cube(value, shared, true)
}

/// The greatest `value` of a cube's units, or else the sum of all, on every one of them.
#[cube]
fn fold_cube(value: f32, shared: &mut SharedMemory<f32>, #[comptime] greatest: bool) -> f32 {
    let unit = UNIT_POS as usize;
    // Somebody may still read what an earlier reduction left there.
    sync_cube();
    shared[unit] = value;
    let mut half = UNITS.runtime() / 2;
    while half > 0 {
        sync_cube();
        if unit < half {
            if comptime!(greatest) {
                shared[unit] = max(shared[unit], shared[unit + half]);
            } else {
                shared[unit] += shared[unit + half];
            }
        }
        half /= 2;
    }
    sync_cube();
    shared[0]
}
