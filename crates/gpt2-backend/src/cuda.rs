//! NVIDIA GPUs. The driver is asked first, since Burn panics on a machine without one.

use crate::device::{DeviceInfo, DeviceKind};
use crate::error::Unavailable;
use crate::probe::{DeviceMemory, DeviceProbe};
use burn_cuda::CudaDevice;
use cubecl::Runtime;
use cubecl::cuda::CudaRuntime;
use cudarc::driver::{result, sys};

pub(crate) fn devices() -> Result<Vec<DeviceInfo>, Unavailable> {
    let not_found = |what: &str| Err(Unavailable::NotFound(what.to_owned()));
    // SAFETY: both calls only try to open the library.
    let (driver, compiler) = unsafe { (sys::is_culib_present(), cudarc::nvrtc::sys::is_culib_present()) };
    if !driver {
        return not_found("no CUDA driver (looked for libcuda.so)");
    }
    let failed = |call: &str, error: result::DriverError| {
        Unavailable::NotFound(format!("the CUDA driver answers {error} to {call}"))
    };
    result::init().map_err(|error| failed("cuInit", error))?;
    let count = result::device::get_count().map_err(|error| failed("cuDeviceGetCount", error))?;
    if count == 0 {
        return not_found("the CUDA driver finds no device");
    }
    if !compiler {
        return not_found("no CUDA run-time compiler (looked for libnvrtc.so; it comes with the CUDA toolkit)");
    }
    (0..count)
        .map(|index| {
            let device = result::device::get(index).map_err(|error| failed("cuDeviceGet", error))?;
            let name = result::device::get_name(device).map_err(|error| failed("cuDeviceGetName", error))?;
            // SAFETY: the driver gave this device just now.
            let memory = unsafe { result::device::total_mem(device) };
            let memory_bytes = memory.ok().map(|bytes| bytes as u64);
            Ok(DeviceInfo {
                index: index as usize,
                name,
                memory_bytes,
                kind: DeviceKind::Gpu,
            })
        })
        .collect()
}

pub(crate) fn device(index: usize) -> CudaDevice {
    CudaDevice::new(index)
}

/// Whether the device multiplies in TF32, as NVIDIA's GPUs do from Ampere (compute capability 8.0) on.
pub(crate) fn has_tf32(index: usize) -> bool {
    let major = || {
        let device = result::device::get(i32::try_from(index).ok()?).ok()?;
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
        // SAFETY: the driver gave this device just now.
        unsafe { result::device::get_attribute(device, attribute) }.ok()
    };
    major().is_some_and(|major| major >= 8)
}

/// Looks at CubeCL's pool and, through the driver, at the whole device.
pub(crate) struct Probe {
    info: DeviceInfo,
}

impl Probe {
    pub(crate) fn new(info: &DeviceInfo) -> Self {
        Self { info: info.clone() }
    }
}

impl DeviceProbe for Probe {
    fn name(&self) -> String {
        self.info.name.clone()
    }

    fn memory(&self) -> Option<DeviceMemory> {
        let usage = CudaRuntime::client(&device(self.info.index)).memory_usage().ok()?;
        Some(DeviceMemory {
            in_use: usage.bytes_in_use,
            reserved: usage.bytes_reserved,
            driver_used: driver_used(self.info.index),
        })
    }

    fn total_memory(&self) -> Option<u64> {
        self.info.memory_bytes
    }

    fn compiled_kernels(&self) -> usize {
        gpt2_model::ops::compiled_kernels()
    }
}

/// Memory in use on the whole device. The driver answers for the context that is current, so the device's is made current.
fn driver_used(index: usize) -> Option<u64> {
    let device = result::device::get(i32::try_from(index).ok()?).ok()?;
    // SAFETY: the primary context is retained, made current, asked, and given back.
    unsafe {
        let context = result::primary_ctx::retain(device).ok()?;
        let asked = result::ctx::set_current(context).and_then(|()| result::mem_get_info());
        let _ = result::primary_ctx::release(device);
        asked.ok().map(|(free, total)| (total - free) as u64)
    }
}
