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
    let mut kernel = Kernel::new(SOURCES, "scale", THREADS);
    if is_wide(x.dtype) {
        kernel = kernel.define("ELEMENT_F32", 1);
    }
    let count = x.shape().num_elements();
    Launch::on(x)
        .buffers([x, factor])
        .word(count)
        .run(kernel, [count.div_ceil(CHUNK), 1, 1]);
}
