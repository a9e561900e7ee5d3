//! A tensor times a number that is on the device.

use crate::Tensor;
use crate::launch::{array, cubes_over, units};
use burn_cubecl::CubeRuntime;
use cubecl::prelude::*;

#[cube(launch_unchecked)]
fn scale_kernel(tensor: &mut Array<f32>, factor: &Array<f32>) {
    if ABSOLUTE_POS < tensor.len() {
        tensor[ABSOLUTE_POS] *= factor[0];
    }
}

/// Multiplies every element of `tensor` by `factor`, which has one.
pub fn in_place<R: CubeRuntime>(tensor: &Tensor<R>, factor: &Tensor<R>) {
    // SAFETY: no unit goes past the end.
    unsafe {
        scale_kernel::launch_unchecked(
            &tensor.client,
            cubes_over(tensor),
            units(),
            array(tensor),
            array(factor),
        );
    }
}
