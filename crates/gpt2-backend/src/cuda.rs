//! NVIDIA GPUs. The driver is asked first, since Burn panics on a machine without one.

use crate::device::{DeviceInfo, DeviceKind};
use crate::error::Unavailable;
use crate::probe::{DeviceMemory, DeviceProbe};
use burn_cuda::CudaDevice;
use cubecl::Runtime;
use cubecl::cuda::{CudaRuntime, install};
use cudarc::driver::{result, sys};
use nvml_wrapper::Nvml;

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
    // CubeCL names it to the compiler, and its own kernels include what is in it.
    if install::cuda_path().is_none() {
        return not_found(
            "no CUDA headers (looked for CUDA_PATH, /usr/local/cuda and /opt/cuda); set CUDA_PATH to the folder whose \
             include/ has cuda_runtime.h: that of the CUDA toolkit, or nvidia/cu13 of `pip install nvidia-cuda-runtime`",
        );
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

/// The version of CUDA that the driver is of.
pub(crate) fn version() -> Option<String> {
    let mut version = 0;
    // SAFETY: the driver is loaded, and writes a number.
    unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().ok()?;
    Some(format!("{}.{}", version / 1000, version % 1000 / 10))
}

/// How many NVLinks of a device are up. None where the driver's library for management (NVML) does not tell.
pub(crate) fn nvlinks(index: usize) -> Option<u32> {
    /// As many as any device has.
    const LINKS: u32 = 18;
    use sys::CUdevice_attribute as Attribute;
    let device = result::device::get(i32::try_from(index).ok()?).ok()?;
    // SAFETY: the driver gave this device just now.
    let number = |attribute| unsafe { result::device::get_attribute(device, attribute) }.ok();
    let address = format!(
        "{:08x}:{:02x}:{:02x}.0",
        number(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)?,
        number(Attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)?,
        number(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)?,
    );
    let nvml = Nvml::init().ok()?;
    let device = nvml.device_by_pci_bus_id(address).ok()?;
    let links = (0..LINKS).filter(|link| device.link_wrapper_for(*link).is_active().unwrap_or(false));
    u32::try_from(links.count()).ok()
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
