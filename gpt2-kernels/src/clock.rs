//! How long the device takes from one point of CubeCL's stream to another, by its own clock. An event of the whole
//! context would wait for other streams too.

use crate::Tensor;
use crate::launch::{Kernel, Launch, Sources};
use burn::tensor::{DType, Shape};
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cuda::CudaDevice;
use cubecl::Runtime;
use cubecl::cuda::CudaRuntime;

const SOURCES: Sources = Sources::new(&[include_str!("cuda/common.cuh"), include_str!("cuda/clock.cu")]);

/// The time when the device comes to this point, 8 bytes, and how many milliseconds it is after `before`, such a time:
/// `[1]` in `f32`, of no meaning if there is none.
pub fn lap(device: &CudaDevice, before: Option<&Tensor>) -> (Tensor, Tensor) {
    let client = CudaRuntime::client(device);
    let now = empty_device_contiguous_dtype(client, device.clone(), Shape::from([2]), DType::F32);
    let milliseconds = crate::launch::empty(&now, &[1], DType::F32);
    Launch::on(&now)
        .buffers([before.unwrap_or(&now), &now, &milliseconds])
        .run(lap_kernel(), [1, 1, 1]);
    (now, milliseconds)
}

/// The one kernel of this file.
pub(crate) fn lap_kernel() -> Kernel {
    Kernel::new(SOURCES, "lap", 1)
}
