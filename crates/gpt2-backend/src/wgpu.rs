//! GPUs through wgpu: Vulkan on Linux, Metal and DirectX elsewhere.

use crate::device::{DeviceInfo, DeviceKind};
use crate::error::{BackendError, Unavailable};
use crate::host::HostFacts;
use crate::probe::{DeviceMemory, DeviceProbe};
use burn_wgpu::WgpuDevice;
use cubecl::Runtime;
use cubecl::wgpu::WgpuRuntime;
use gpt2_model::capabilities::BackendKind;
use std::sync::OnceLock;
use wgpu::{Backends, DeviceType};

/// The graphics interfaces that Burn's wgpu backend is built for here.
const GRAPHICS: Backends = Backends::PRIMARY.difference(Backends::BROWSER_WEBGPU);

pub(crate) fn devices() -> Result<Vec<DeviceInfo>, Unavailable> {
    let found = adapters();
    if found.is_empty() {
        let what = "no adapter (looked for Vulkan, Metal and DirectX 12 drivers)";
        return Err(Unavailable::NotFound(what.to_owned()));
    }
    let devices = found.into_iter().enumerate().map(|(index, (_, name, kind))| {
        let is_software = kind == DeviceType::Cpu;
        DeviceInfo {
            index,
            name,
            // wgpu does not tell; a software adapter has the host's.
            memory_bytes: is_software.then(|| HostFacts::detect().memory_bytes),
            kind: if is_software {
                DeviceKind::SoftwareGpu
            } else {
                DeviceKind::Gpu
            },
        }
    });
    Ok(devices.collect())
}

/// What the drivers are asked through, for as long as the process lives. With the last of such instances the drivers'
/// libraries would go, but not what NVIDIA's has left to be called at the end of each thread that used it.
fn instance() -> &'static wgpu::Instance {
    static INSTANCE: OnceLock<wgpu::Instance> = OnceLock::new();
    INSTANCE.get_or_init(|| {
        wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: GRAPHICS,
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        })
    })
}

/// The adapters that computing can run on, the best first: Burn's name for each, the driver's, and its kind.
fn adapters() -> Vec<(WgpuDevice, String, DeviceType)> {
    let mut counts = [0; 3];
    let mut numbered = |kind: usize| {
        counts[kind] += 1;
        counts[kind] - 1
    };
    let mut adapters: Vec<_> = pollster::block_on(instance().enumerate_adapters(GRAPHICS))
        .into_iter()
        .filter_map(|adapter| {
            let info = adapter.get_info();
            let device = match info.device_type {
                DeviceType::DiscreteGpu => WgpuDevice::DiscreteGpu(numbered(0)),
                DeviceType::IntegratedGpu => WgpuDevice::IntegratedGpu(numbered(1)),
                DeviceType::VirtualGpu => WgpuDevice::VirtualGpu(numbered(2)),
                DeviceType::Cpu => WgpuDevice::Cpu,
                DeviceType::Other => return None,
            };
            Some((device, format!("{} ({:?})", info.name, info.backend), info.device_type))
        })
        .collect();
    adapters.sort_by_key(|(_, _, kind)| match kind {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other | DeviceType::Cpu => 3,
    });
    adapters
}

pub(crate) fn device(index: usize) -> Result<WgpuDevice, BackendError> {
    let adapters = adapters();
    let found = adapters.len();
    let chosen = adapters.into_iter().nth(index).map(|(device, ..)| device);
    chosen.ok_or(BackendError::NoSuchDevice {
        backend: BackendKind::Wgpu,
        index,
        found,
    })
}

/// Whether the device has what products of `bf16` are computed by.
pub(crate) fn multiplies_bf16(index: usize) -> Result<bool, BackendError> {
    Ok(gpt2_model::ops::wgpu_multiplies_bf16(&device(index)?))
}

/// Looks at CubeCL's pool.
pub(crate) struct Probe {
    info: DeviceInfo,
    device: Option<WgpuDevice>,
}

impl Probe {
    pub(crate) fn new(info: &DeviceInfo) -> Self {
        Self {
            info: info.clone(),
            device: device(info.index).ok(),
        }
    }
}

impl DeviceProbe for Probe {
    fn name(&self) -> String {
        self.info.name.clone()
    }

    fn memory(&self) -> Option<DeviceMemory> {
        let usage = WgpuRuntime::client(self.device.as_ref()?).memory_usage().ok()?;
        Some(DeviceMemory {
            in_use: usage.bytes_in_use,
            reserved: usage.bytes_reserved,
            driver_used: None,
        })
    }

    fn total_memory(&self) -> Option<u64> {
        self.info.memory_bytes
    }
}
