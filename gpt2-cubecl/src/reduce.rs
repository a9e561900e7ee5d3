//! Reductions over the units of a cube.

use crate::launch::UNITS;
use cubecl::prelude::*;

/// The sum of `value` over the units of a cube, on every one of them.
#[cube]
pub(crate) fn sum_of_cube(value: f32, shared: &mut SharedMemory<f32>) -> f32 {
    let unit = UNIT_POS as usize;
    // Somebody may still read what an earlier sum left there.
    sync_cube();
    shared[unit] = value;
    let mut half = UNITS.runtime() / 2;
    while half > 0 {
        sync_cube();
        if unit < half {
            shared[unit] += shared[unit + half];
        }
        half /= 2;
    }
    sync_cube();
    shared[0]
}

/// The greatest `value` of a cube's units, on every one of them.
#[cube]
pub(crate) fn max_of_cube(value: f32, shared: &mut SharedMemory<f32>) -> f32 {
    let unit = UNIT_POS as usize;
    sync_cube();
    shared[unit] = value;
    let mut half = UNITS.runtime() / 2;
    while half > 0 {
        sync_cube();
        if unit < half {
            shared[unit] = max(shared[unit], shared[unit + half]);
        }
        half /= 2;
    }
    sync_cube();
    shared[0]
}
