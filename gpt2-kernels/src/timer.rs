//! When a CUDA device passes points of the work that is queued on it.
//!
//! An event of the whole context is recorded on CubeCL's own thread, behind everything that was queued before: its stream
//! cannot be reached, and an event from any other thread would miss what still waits to be queued.

use burn_cuda::CudaDevice;
use cubecl::Runtime;
use cubecl::cuda::CudaRuntime;
use cubecl::device::Device;
use cubecl::device_handle::DeviceHandle;
use cudarc::driver::result::{self, DriverError, event};
use cudarc::driver::sys::{CUcontext, CUevent, CUevent_flags, CUresult};
use libloading::Library;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) type Server = <CudaRuntime as Runtime>::Server;

/// `cuCtxRecordEvent`, of CUDA 12.5.
pub(crate) type RecordInContext = unsafe extern "C" fn(CUcontext, CUevent) -> CUresult;

#[cfg(windows)]
pub(crate) const DRIVER: &str = "nvcuda.dll";
#[cfg(not(windows))]
pub(crate) const DRIVER: &str = "libcuda.so.1";

/// An event, of whichever thread.
#[derive(Clone, Copy)]
struct Event(CUevent);

// SAFETY: the driver's events may be used from any thread; each is used by one at a time.
unsafe impl Send for Event {}

/// A point of the work.
struct Mark {
    event: Event,
    /// When it was handed to the driver.
    queued: Instant,
}

/// What CubeCL's thread leaves.
#[derive(Default)]
struct Marks {
    marks: Vec<Mark>,
    error: Option<DriverError>,
}

/// Marks points of the work that is queued on a device, and tells when each was passed.
pub struct EventTimer {
    device: DeviceHandle<Server>,
    record: RecordInContext,
    marks: Arc<Mutex<Marks>>,
    /// The newest event whose time is known, with that time.
    base: (Event, Instant),
    /// Holds what `record` points to.
    _driver: Library,
}

/// Why there is no timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimerError {
    /// The driver is older than CUDA 12.5.
    DriverTooOld,
    /// The driver's answer.
    Driver(DriverError),
    /// CubeCL's thread has ended.
    NoDevice,
}

impl From<DriverError> for TimerError {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

impl EventTimer {
    /// A timer of `device`. Waits for what is queued there.
    ///
    /// # Errors
    /// [`TimerError`].
    pub fn new(device: &CudaDevice) -> Result<Self, TimerError> {
        // SAFETY: the driver is loaded already; this finds it again.
        let driver = unsafe { Library::new(DRIVER) }.map_err(|_| TimerError::DriverTooOld)?;
        // SAFETY: the type is that of the driver's header, and the library lives as long as the timer.
        let record = unsafe { driver.get::<RecordInContext>(b"cuCtxRecordEvent") };
        let record = *record.map_err(|_| TimerError::DriverTooOld)?;
        let device = DeviceHandle::<Server>::new(device.to_id());
        let base = device.submit_blocking(move |_| {
            let event = recorded(record)?;
            // SAFETY: the event was made just now.
            unsafe { event::synchronize(event.0) }?;
            Ok::<_, DriverError>((event, Instant::now()))
        });
        Ok(Self {
            base: base.map_err(|_| TimerError::NoDevice)??,
            device,
            record,
            marks: Arc::default(),
            _driver: driver,
        })
    }

    /// Marks the end of everything that was queued so far.
    pub fn mark(&self) {
        let (record, marks) = (self.record, Arc::clone(&self.marks));
        self.device.submit(move |_| {
            let event = recorded(record);
            let queued = Instant::now();
            let mut marks = marks.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Ok(event) => marks.marks.push(Mark { event, queued }),
                Err(error) => marks.error = marks.error.or(Some(error)),
            }
        });
    }

    /// For each mark since the last call, when it was queued and when the device passed it. Waits for the last.
    ///
    /// # Errors
    /// [`TimerError`].
    pub fn take(&mut self) -> Result<Vec<[Instant; 2]>, TimerError> {
        let (mut base, marks) = (self.base, Arc::clone(&self.marks));
        let found = self.device.submit_blocking(move |_| {
            let Marks { marks, error } = mem::take(&mut *marks.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some(error) = error {
                return Err(error);
            }
            let mut times = Vec::with_capacity(marks.len());
            for Mark { event, queued } in marks {
                // SAFETY: both events are recorded, and the older one is destroyed only here.
                let ms = unsafe {
                    event::synchronize(event.0)?;
                    let ms = event::elapsed(base.0.0, event.0)?;
                    event::destroy(base.0.0)?;
                    ms
                };
                // From one to the next: the driver's single-precision milliseconds are exact for short spans alone.
                base = (event, base.1 + Duration::from_secs_f64(f64::from(ms.max(0.0)) / 1e3));
                times.push([queued, base.1]);
            }
            Ok((times, base))
        });
        let (times, base) = found.map_err(|_| TimerError::NoDevice)??;
        self.base = base;
        Ok(times)
    }
}

/// A new event behind everything that the context was given so far. On CubeCL's thread, whose context it is.
fn recorded(record: RecordInContext) -> Result<Event, DriverError> {
    let context = result::ctx::get_current()?.ok_or(DriverError(CUresult::CUDA_ERROR_INVALID_CONTEXT))?;
    let event = event::create(CUevent_flags::CU_EVENT_DEFAULT)?;
    // SAFETY: the context is current and the event was made in it just now.
    unsafe { record(context, event) }.result()?;
    Ok(Event(event))
}
