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

/// The time when the device comes to this point: 8 bytes, for [`milliseconds_since`].
pub(crate) fn now(device: &CudaDevice) -> Tensor {
    let at = of_device(device);
    Launch::on(&at).buffer(&at).run(kernel("now"), [1, 1, 1]);
    at
}

/// Where a time is written.
fn of_device(device: &CudaDevice) -> Tensor {
    let client = CudaRuntime::client(device);
    empty_device_contiguous_dtype(client, device.clone(), Shape::from([2]), DType::F32)
}

/// The time when the device comes to this point, for the next call, and how many milliseconds it is after `before`, what the
/// last call gave: `[1]` in `f32`, of no meaning if there is none.
pub fn lap(device: &CudaDevice, before: Option<&Tensor>) -> (Tensor, Tensor) {
    let now = of_device(device);
    let milliseconds = crate::launch::empty(&now, &[1], DType::F32);
    Launch::on(&now)
        .buffers([before.unwrap_or(&now), &now, &milliseconds])
        .run(lap_kernel(), [1, 1, 1]);
    (now, milliseconds)
}

/// The time from `began` until the device comes to this point, in milliseconds, `[1]` in `f32`.
pub(crate) fn milliseconds_since(began: &Tensor) -> Tensor {
    let milliseconds = crate::launch::empty(began, &[1], DType::F32);
    Launch::on(began)
        .buffers([began, &milliseconds])
        .run(kernel("milliseconds_since"), [1, 1, 1]);
    milliseconds
}

fn kernel(entry: &'static str) -> Kernel {
    Kernel::new(SOURCES, entry, 1)
}

/// What every step ends with.
pub(crate) fn lap_kernel() -> Kernel {
    kernel("lap")
}

/// Every kernel of this file, to be compiled by a test.
#[cfg(test)]
pub(crate) fn kernels() -> Vec<Kernel> {
    ["now", "lap", "milliseconds_since"].map(kernel).to_vec()
}
