//! The one place that names backends: what there is on this machine, which one a run gets, and how generic code gets it.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "wgpu")]
mod wgpu;

use crate::error::CliError;
use burn::tensor::backend::AutodiffBackend;
use gpt2_model::Precision;
use gpt2_model::ops::Gpt2Backend;
use gpt2_train::config::BackendChoice;
use gpt2_train::hardware::{Arithmetic, DeviceProbe, peak_flops};
use gpt2_train::optimizer::TrainingBackend;
use std::sync::Arc;

/// A device that a backend could use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceInfo {
    /// Number to give to `--device`.
    pub(crate) index: usize,
    /// Its name.
    pub(crate) name: String,
    /// Its memory in bytes, where the backend tells.
    pub(crate) memory_bytes: Option<u64>,
    /// What else is worth knowing, such as that it is a CPU in a GPU's clothes.
    pub(crate) note: Option<&'static str>,
}

/// Whether a device only pretends to be a GPU.
const SOFTWARE: &str = "software";

/// The backends in order of preference.
pub(crate) const BACKENDS: [BackendChoice; 4] = [
    BackendChoice::Cuda,
    BackendChoice::Wgpu,
    BackendChoice::Ndarray,
    BackendChoice::Flex,
];

/// The devices of a backend, or why there are none.
pub(crate) fn devices(backend: BackendChoice) -> Result<Vec<DeviceInfo>, String> {
    let left_out = || Err(format!("not in this build; {}", build_command(backend)));
    match backend {
        BackendChoice::Auto => Err("not a backend".to_owned()),
        BackendChoice::Ndarray if cfg!(feature = "ndarray") => Ok(cpu::devices()),
        BackendChoice::Flex if cfg!(feature = "flex") => Ok(cpu::devices()),
        BackendChoice::Ndarray | BackendChoice::Flex => left_out(),
        #[cfg(feature = "wgpu")]
        BackendChoice::Wgpu => wgpu::devices(),
        #[cfg(not(feature = "wgpu"))]
        BackendChoice::Wgpu => left_out(),
        #[cfg(feature = "cuda")]
        BackendChoice::Cuda => cuda::devices(),
        #[cfg(not(feature = "cuda"))]
        BackendChoice::Cuda => left_out(),
    }
}

/// The command that builds a backend in.
fn build_command(backend: BackendChoice) -> String {
    format!("build it in with `cargo build --release --features {backend}`")
}

/// A backend and a device, decided.
#[derive(Clone)]
pub(crate) struct Chosen {
    pub(crate) backend: BackendChoice,
    pub(crate) device: DeviceInfo,
    /// Why this one, for people.
    pub(crate) reason: String,
}

impl Chosen {
    /// Decides on a backend and its device `index`.
    ///
    /// # Errors
    /// [`CliError::BackendUnavailable`] or [`CliError::NoSuchDevice`], with what was looked for and found.
    pub(crate) fn decide(choice: BackendChoice, index: usize) -> Result<Self, CliError> {
        if choice != BackendChoice::Auto {
            return Self::of(choice, index, "asked for".to_owned());
        }
        let mut passed_over = Vec::new();
        for backend in BACKENDS {
            match devices(backend) {
                Ok(devices) if devices.iter().all(|device| device.note == Some(SOFTWARE)) => {
                    passed_over.push(format!("{backend}: only a software device"));
                }
                Ok(_) => {
                    let passed_over = passed_over.join("; ");
                    let reason = if passed_over.is_empty() {
                        "auto".to_owned()
                    } else {
                        format!("auto ({passed_over})")
                    };
                    return Self::of(backend, index, reason);
                }
                Err(why) => passed_over.push(format!("{backend}: {why}")),
            }
        }
        Err(CliError::BackendUnavailable {
            backend: choice,
            reason: passed_over.join("; "),
        })
    }

    fn of(backend: BackendChoice, index: usize, reason: String) -> Result<Self, CliError> {
        let devices = devices(backend).map_err(|reason| CliError::BackendUnavailable { backend, reason })?;
        let found = devices.len();
        let device = devices
            .into_iter()
            .find(|device| device.index == index)
            .ok_or(CliError::NoSuchDevice { backend, index, found })?;
        Ok(Self {
            backend,
            device,
            reason,
        })
    }

    /// What looks at the device's memory while a run goes on.
    pub(crate) fn probe(&self) -> Arc<dyn DeviceProbe + Send + Sync> {
        match self.backend {
            #[cfg(feature = "cuda")]
            BackendChoice::Cuda => Arc::new(cuda::Probe::new(&self.device)),
            #[cfg(feature = "wgpu")]
            BackendChoice::Wgpu => Arc::new(wgpu::Probe::new(&self.device)),
            _ => Arc::new(cpu::Probe::new(&self.device)),
        }
    }

    /// Whether products of `bf16` are worth while where the tensors can be of that type.
    pub(crate) fn multiplies_bf16(&self) -> bool {
        match self.backend {
            #[cfg(feature = "flex")]
            BackendChoice::Flex => gpt2_model::ops::cpu_multiplies_bf16(),
            BackendChoice::Ndarray => false,
            _ => true,
        }
    }

    /// The device's peak rate in `precision` in FLOP/s, where it is known.
    pub(crate) fn peak_flops(&self, precision: Precision) -> Option<f64> {
        let peak = |arithmetic| peak_flops(&self.device.name, arithmetic);
        match precision {
            Precision::Bf16 => peak(Arithmetic::Bf16),
            Precision::Tf32 => peak(Arithmetic::Tf32),
            // On CUDA also as three products in TF32.
            Precision::F32 => match (peak(Arithmetic::F32), peak(Arithmetic::Tf32)) {
                (Some(single), Some(tf32)) if self.backend == BackendChoice::Cuda => Some(single.max(tf32 / 3.0)),
                (single, _) => single,
            },
        }
    }
}

/// Generic work for whichever backend is chosen.
pub(crate) trait Job {
    /// What it gives back.
    type Output;

    /// Does the work on `device`.
    fn run<B>(self, device: B::Device, chosen: &Chosen) -> Result<Self::Output, CliError>
    where
        B: AutodiffBackend + Gpt2Backend,
        B::InnerBackend: TrainingBackend;
}

/// Runs `job` on the chosen backend.
///
/// # Errors
/// Those of the job.
pub(crate) fn dispatch<J: Job>(chosen: &Chosen, job: J) -> Result<J::Output, CliError> {
    #[allow(unused_imports, reason = "a build without backends names none")]
    use burn::backend::Autodiff;
    match chosen.backend {
        #[cfg(feature = "ndarray")]
        BackendChoice::Ndarray => job.run::<Autodiff<burn_ndarray::NdArray>>(burn_ndarray::NdArrayDevice::Cpu, chosen),
        #[cfg(feature = "flex")]
        BackendChoice::Flex => job.run::<Autodiff<burn_flex::Flex>>(burn_flex::FlexDevice, chosen),
        #[cfg(feature = "wgpu")]
        BackendChoice::Wgpu => job.run::<Autodiff<gpt2_model::ops::Wgpu>>(wgpu::device(chosen.device.index)?, chosen),
        #[cfg(feature = "cuda")]
        BackendChoice::Cuda => job.run::<Autodiff<gpt2_model::ops::Cuda>>(cuda::device(chosen.device.index), chosen),
        other => Err(CliError::BackendUnavailable {
            backend: other,
            reason: build_command(other),
        }),
    }
}
