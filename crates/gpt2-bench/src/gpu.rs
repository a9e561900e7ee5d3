//! What an NVIDIA GPU does while a process runs, asked of its driver (NVML) every tenth of a second.

use gpt2_records::GpuUse;
use nvml_wrapper::Nvml;
use nvml_wrapper::enum_wrappers::device::Clock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

const INTERVAL: Duration = Duration::from_millis(100);

/// Seconds since 1970.
pub(crate) fn unix_now() -> f64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0.0, |since| since.as_secs_f64())
}

/// A sample, and when it was taken.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: f64,
    utilisation_percent: f64,
    clock_mhz: f64,
    power_watts: f64,
}

/// Samples a GPU until it is dropped.
pub(crate) struct GpuSampler {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl GpuSampler {
    /// Begins to sample device `index` as CUDA counts them. None where there is no NVIDIA driver.
    pub(crate) fn start(index: usize) -> Option<Self> {
        let nvml = Nvml::init().ok()?;
        let name = visible_device(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(), index);
        // Asked once here, so that a machine without the device has no sampler.
        match &name {
            Device::Index(index) => nvml.device_by_index(*index).map(drop),
            Device::Uuid(uuid) => nvml.device_by_uuid(uuid.as_str()).map(drop),
        }
        .ok()?;
        let samples = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::Builder::new().name("gpu-sampler".into()).spawn({
            let (samples, stop) = (Arc::clone(&samples), Arc::clone(&stop));
            move || {
                let device = match &name {
                    Device::Index(index) => nvml.device_by_index(*index),
                    Device::Uuid(uuid) => nvml.device_by_uuid(uuid.as_str()),
                };
                let Ok(device) = device else { return };
                while !stop.load(Ordering::Relaxed) {
                    let sample = || {
                        Some(Sample {
                            at: unix_now(),
                            utilisation_percent: f64::from(device.utilization_rates().ok()?.gpu),
                            clock_mhz: f64::from(device.clock_info(Clock::SM).ok()?),
                            power_watts: f64::from(device.power_usage().ok()?) / 1e3,
                        })
                    };
                    samples.lock().unwrap_or_else(PoisonError::into_inner).extend(sample());
                    thread::sleep(INTERVAL);
                }
            }
        });
        Some(Self {
            samples,
            stop,
            thread: Some(thread.ok()?),
        })
    }

    /// What a GPU did from `timed` on to its end, if it was sampled and the times are known.
    pub(crate) fn usage(sampler: Option<Self>, timed: Option<[f64; 2]>) -> Option<GpuUse> {
        sampler?.between(timed?)
    }

    /// Means over the samples from `began` to `ended`, in seconds since 1970. None if there are none.
    fn between(&self, [began, ended]: [f64; 2]) -> Option<GpuUse> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let within: Vec<_> = samples
            .iter()
            .filter(|sample| (began..=ended).contains(&sample.at))
            .collect();
        let mean =
            |value: fn(&Sample) -> f64| within.iter().map(|&sample| value(sample)).sum::<f64>() / within.len() as f64;
        (!within.is_empty()).then(|| GpuUse {
            samples: within.len(),
            utilisation_percent: mean(|sample| sample.utilisation_percent),
            clock_mhz: mean(|sample| sample.clock_mhz),
            power_watts: mean(|sample| sample.power_watts),
        })
    }
}

impl Drop for GpuSampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A device as NVML names it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Device {
    Index(u32),
    Uuid(String),
}

/// The device that CUDA, seeing only those that `visible` lists, counts as `index`.
fn visible_device(visible: Option<&str>, index: usize) -> Device {
    let named = visible.and_then(|visible| visible.split(',').nth(index)).map(str::trim);
    match named {
        Some(name) => name
            .parse()
            .map_or_else(|_| Device::Uuid(name.to_owned()), Device::Index),
        None => Device::Index(index as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_visible_devices_are_counted_anew() {
        assert_eq!(visible_device(None, 1), Device::Index(1));
        assert_eq!(visible_device(Some("3, 5"), 1), Device::Index(5));
        assert_eq!(visible_device(Some("GPU-8f"), 0), Device::Uuid("GPU-8f".into()));
    }
}
