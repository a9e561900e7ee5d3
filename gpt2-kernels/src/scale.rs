//! Multiplication by a number that is on the device.

use crate::Tensor;
use crate::launch::{Kernel, Launch, Sources, is_wide};
use burn::tensor::TensorMetadata;

const SOURCES: Sources = Sources::new(&[
    include_str!("cuda/common.cuh"),
    include_str!("cuda/elementwise.cuh"),
    include_str!("cuda/scale.cu"),
]);

const THREADS: usize = 256;

/// Elements of a block.
const CHUNK: usize = 4096;

/// Multiplies `x` by `factor`, `[1]` in `f32`, in place. A factor of 1 costs no pass over `x`.
pub fn in_place(x: &Tensor, factor: &Tensor) {
    let count = x.shape().num_elements();
    Launch::on(x)
        .buffers([x, factor])
        .word(count)
        .run(kernel(is_wide(x.dtype)), [count.div_ceil(CHUNK), 1, 1]);
}

fn kernel(is_f32: bool) -> Kernel {
    let kernel = Kernel::new(SOURCES, "scale", THREADS);
    if is_f32 {
        return kernel.define("ELEMENT_F32", 1);
    }
    kernel
}

/// Every kernel of this file, to be compiled by a test.
#[cfg(test)]
pub(crate) fn kernels() -> Vec<Kernel> {
    vec![kernel(false), kernel(true)]
}
