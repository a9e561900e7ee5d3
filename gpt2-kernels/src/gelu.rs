//! GELU by itself, where no product is beside it.

use crate::Tensor;
use crate::launch::{Kernel, Launch, Sources, empty, is_wide};
use burn::tensor::TensorMetadata;

const SOURCES: Sources = Sources::new(&[
    include_str!("cuda/common.cuh"),
    include_str!("cuda/elementwise.cuh"),
    include_str!("cuda/gelu.cu"),
]);

const FORWARD: &str = "gelu_forward";
const BACKWARD: &str = "gelu_backward";

const THREADS: usize = 256;

/// Elements of a block.
const CHUNK: usize = 4096;

/// GELU of each element of `x`.
pub fn forward(x: &Tensor) -> Tensor {
    let y = empty(x, x.shape().as_slice(), x.dtype);
    launch(FORWARD, &[x, &y]);
    y
}

/// GELU's derivative at each element of `x`, times `grad_output`.
pub fn backward(x: &Tensor, grad_output: &Tensor) -> Tensor {
    let grad_x = empty(x, x.shape().as_slice(), x.dtype);
    launch(BACKWARD, &[x, grad_output, &grad_x]);
    grad_x
}

fn launch(entry: &'static str, tensors: &[&Tensor]) {
    let x = tensors[0];
    let count = x.shape().num_elements();
    Launch::on(x)
        .buffers(tensors.iter().copied())
        .word(count)
        .run(kernel(entry, is_wide(x.dtype)), [count.div_ceil(CHUNK), 1, 1]);
}

fn kernel(entry: &'static str, is_f32: bool) -> Kernel {
    let kernel = Kernel::new(SOURCES, entry, THREADS);
    if is_f32 {
        return kernel.define("ELEMENT_F32", 1);
    }
    kernel
}

/// Every kernel of this file, to be compiled by a test.
#[cfg(test)]
pub(crate) fn kernels() -> Vec<Kernel> {
    [FORWARD, BACKWARD]
        .into_iter()
        .flat_map(|entry| [false, true].map(|is_f32| kernel(entry, is_f32)))
        .collect()
}
