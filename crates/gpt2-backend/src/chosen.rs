//! A backend and a device, decided, and what is known of the two.

use crate::choice::BackendChoice;
use crate::cpu;
use crate::device::{DeviceInfo, DeviceKind};
use crate::devices::devices;
use crate::error::{BackendError, Unavailable, reasons};
use crate::peak::{Arithmetic, peak_flops};
use crate::probe::DeviceProbe;
use crate::visit::{BackendVisitor, visit};
use burn::tensor::DType;
use gpt2_model::capabilities::BackendKind;
use gpt2_model::ops::training::{DeviceTimer, TimerError};
use gpt2_model::{InferenceBackend, Precision};
use std::sync::Arc;

/// A backend and a device, decided.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The backend.
    pub backend: BackendKind,
    /// One of its devices.
    pub device: DeviceInfo,
    /// Why this one, for people.
    pub reason: String,
}

impl Chosen {
    /// Decides on a backend and its device `index`.
    ///
    /// # Errors
    /// What was looked for and not found.
    pub fn decide(choice: BackendChoice, index: usize) -> Result<Self, BackendError> {
        if let Some(backend) = choice.kind() {
            let devices = devices(backend).map_err(|reason| BackendError::Unavailable { backend, reason })?;
            return Self::of(backend, devices, index, "asked for".to_owned());
        }
        let mut passed_over = Vec::new();
        for backend in BackendKind::ALL {
            match devices(backend) {
                Ok(devices) if devices.iter().all(|device| device.kind == DeviceKind::SoftwareGpu) => {
                    passed_over.push((backend, Unavailable::OnlySoftware));
                }
                Ok(devices) => {
                    let reason = if passed_over.is_empty() {
                        "auto".to_owned()
                    } else {
                        format!("auto ({})", reasons(&passed_over))
                    };
                    return Self::of(backend, devices, index, reason);
                }
                Err(reason) => passed_over.push((backend, reason)),
            }
        }
        Err(BackendError::NoneAvailable { passed_over })
    }

    /// Decides for a process of several on this host: a CPU is shared by all, and where a launcher shows each process a device
    /// of its own, that is the only one.
    ///
    /// # Errors
    /// Those of [`Chosen::decide`].
    pub fn decide_of_several(choice: BackendChoice, index: usize) -> Result<Self, BackendError> {
        let first = Self::decide(choice, 0)?;
        let is_shared = matches!(first.device.kind, DeviceKind::Cpu);
        let shown = devices(first.backend).map_or(0, |devices| devices.len());
        if index == 0 || is_shared || (shown == 1 && std::env::var_os("CUDA_VISIBLE_DEVICES").is_some()) {
            return Ok(first);
        }
        Self::decide(first.backend.into(), index)
    }

    fn of(backend: BackendKind, devices: Vec<DeviceInfo>, index: usize, reason: String) -> Result<Self, BackendError> {
        let found = devices.len();
        let device = devices
            .into_iter()
            .find(|device| device.index == index)
            .ok_or(BackendError::NoSuchDevice { backend, index, found })?;
        Ok(Self {
            backend,
            device,
            reason,
        })
    }

    /// What looks at the device's memory while a run goes on.
    pub fn probe(&self) -> Arc<dyn DeviceProbe + Send + Sync> {
        match self.backend {
            #[cfg(feature = "cuda")]
            BackendKind::Cuda => Arc::new(crate::cuda::Probe::new(&self.device)),
            #[cfg(feature = "wgpu")]
            BackendKind::Wgpu => Arc::new(crate::wgpu::Probe::new(&self.device)),
            _ => Arc::new(cpu::Probe::new(&self.device)),
        }
    }

    /// What times the device's work while a run goes on.
    ///
    /// # Errors
    /// That of a device that cannot be opened; in the result, why its work cannot be timed.
    pub fn timer(&self) -> Result<Result<Box<dyn DeviceTimer>, TimerError>, BackendError> {
        visit(self.backend, self.device.index, Timer)
    }

    /// Checks that the device computes in `precision`, and not only pretends to: the products of `bf16` of a CPU without a
    /// unit for them are slower than those of `f32`. Opens the device if `precision` is `bf16`.
    ///
    /// # Errors
    /// [`BackendError::UnsupportedPrecision`], and that of a device that cannot be opened.
    pub fn check_precision(&self, precision: Precision) -> Result<(), BackendError> {
        let is_supported = match (precision, self.backend) {
            (Precision::F32, _) => true,
            #[cfg(feature = "cuda")]
            (Precision::Tf32, BackendKind::Cuda) => crate::cuda::has_tf32(self.device.index),
            (Precision::Tf32, _) | (Precision::Bf16, BackendKind::Ndarray) => false,
            #[cfg(feature = "flex")]
            (Precision::Bf16, BackendKind::Flex) => gpt2_model::ops::cpu_multiplies_bf16(),
            #[cfg(feature = "wgpu")]
            (Precision::Bf16, BackendKind::Wgpu) => crate::wgpu::multiplies_bf16(self.device.index)?,
            (Precision::Bf16, _) => visit(self.backend, self.device.index, StoresBf16)?,
        };
        if is_supported {
            return Ok(());
        }
        Err(BackendError::UnsupportedPrecision {
            precision,
            backend: self.backend,
            device: self.device.name.clone(),
            lacks: match (precision, self.backend) {
                (Precision::Bf16, BackendKind::Wgpu) => "has no cooperative matrices of bf16 operands and f32 sums \
                     (VK_KHR_cooperative_matrix and VK_KHR_shader_bfloat16)"
                    .to_owned(),
                _ => format!("does not compute in {precision}"),
            },
        })
    }

    /// The version of CUDA that the driver is of: "13.0". None where CUDA is not used.
    pub fn cuda_version(&self) -> Option<String> {
        match self.backend {
            #[cfg(feature = "cuda")]
            BackendKind::Cuda => crate::cuda::version(),
            _ => None,
        }
    }

    /// How many NVLinks of the device are up, where it can have any.
    pub fn nvlinks(&self) -> Option<u32> {
        match self.backend {
            #[cfg(feature = "cuda")]
            BackendKind::Cuda => crate::cuda::nvlinks(self.device.index),
            _ => None,
        }
    }

    /// The device's peak rate in `precision` in FLOP/s, where it is known.
    pub fn peak_flops(&self, precision: Precision) -> Option<f64> {
        let peak = |arithmetic| peak_flops(&self.device.name, arithmetic);
        match precision {
            Precision::Bf16 => peak(Arithmetic::Bf16),
            Precision::Tf32 => peak(Arithmetic::Tf32),
            // On CUDA also as three products in TF32.
            Precision::F32 => match (peak(Arithmetic::F32), peak(Arithmetic::Tf32)) {
                (Some(single), Some(tf32)) if self.backend == BackendKind::Cuda => Some(single.max(tf32 / 3.0)),
                (single, _) => single,
            },
        }
    }
}

/// The device's timer.
struct Timer;

impl BackendVisitor for Timer {
    type Output = Result<Box<dyn DeviceTimer>, TimerError>;

    fn visit<B: InferenceBackend>(self, device: B::Device) -> Self::Output {
        B::timer(device)
    }
}

/// Whether the device's tensors can be of `bf16`.
struct StoresBf16;

impl BackendVisitor for StoresBf16 {
    type Output = bool;

    fn visit<B: InferenceBackend>(self, device: B::Device) -> bool {
        B::supports_dtype(&device, DType::BF16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(backend: BackendKind, name: &str) -> Chosen {
        Chosen {
            backend,
            device: DeviceInfo {
                index: 0,
                name: name.to_owned(),
                memory_bytes: None,
                kind: DeviceKind::Gpu,
            },
            reason: "asked for".to_owned(),
        }
    }

    #[test]
    fn a_precision_that_the_device_does_not_compute_in() {
        for backend in [BackendKind::Wgpu, BackendKind::Ndarray, BackendKind::Flex] {
            let chosen = chosen(backend, "a device");
            chosen.check_precision(Precision::F32).unwrap();
            assert_eq!(
                chosen.check_precision(Precision::Tf32).unwrap_err().to_string(),
                format!(
                    "`precision` is tf32, expected f32 on {backend} (a device); this device does not compute in tf32: \
                     leave it out or choose another `backend`"
                )
            );
        }
        let ndarray = chosen(BackendKind::Ndarray, "a device");
        assert!(matches!(
            ndarray.check_precision(Precision::Bf16),
            Err(BackendError::UnsupportedPrecision { .. })
        ));
    }

    #[test]
    fn f32_on_cuda_peaks_at_three_products_in_tf32() {
        for (backend, expected) in [(BackendKind::Cuda, 494.7e12 / 3.0), (BackendKind::Wgpu, 66.9e12)] {
            let peak = chosen(backend, "NVIDIA H100 80GB HBM3")
                .peak_flops(Precision::F32)
                .unwrap();
            assert!((peak / expected - 1.0).abs() < 1e-12, "{backend}: {peak}");
        }
    }

    #[test]
    fn a_backend_that_is_not_there_says_why() {
        for backend in BackendKind::ALL {
            match (devices(backend), Chosen::decide(backend.into(), 99)) {
                (Ok(devices), decided) => assert_eq!(
                    decided.unwrap_err().to_string(),
                    format!(
                        "backend {backend} has no device 99: it has {}, counted from 0",
                        devices.len()
                    )
                ),
                (Err(reason), decided) => assert_eq!(
                    decided.unwrap_err().to_string(),
                    format!("backend {backend} is not available: {reason}")
                ),
            }
        }
    }
}
