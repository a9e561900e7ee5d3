//! What the processes that train one model together exchange, each on a device of its own, by NVIDIA's NCCL.
//!
//! NCCL works on a stream of its own. Events of the whole context order it behind all that CubeCL has queued before,
//! and, from a wait on, all that CubeCL queues later behind it: CubeCL's streams cannot be reached.

use crate::timer::{DRIVER, RecordInContext, Server};
use crate::{Tensor, contiguous, lap, owned};
use burn::tensor::DType;
use burn_cuda::CudaDevice;
use cubecl::device::Device;
use cubecl::device_handle::DeviceHandle;
use cubecl::server::{Binding, ComputeServer as _};
use cubecl::stream_id::StreamId;
use cudarc::driver::result::{self, DriverError, event, stream};
use cudarc::driver::sys::{CUcontext, CUevent, CUevent_flags, CUevent_wait_flags, CUresult, CUstream};
use libloading::Library;
use std::collections::VecDeque;
use std::ffi::{CStr, OsString, c_char, c_int, c_void};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// `cuCtxWaitEvent`, of CUDA 12.5.
type WaitInContext = unsafe extern "C" fn(CUcontext, CUevent) -> CUresult;

/// The oldest release whose functions are called as here.
const OLDEST: c_int = 2_18_00;

/// `ncclUniqueId`: what the ranks of a communicator find each other by.
#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([c_char; Self::BYTES]);

impl UniqueId {
    const BYTES: usize = 128;
}

/// `ncclComm_t`.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Comm(*mut c_void);

// SAFETY: NCCL's communicators may be used from any thread; ours is used by the device's thread alone.
unsafe impl Send for Comm {}

// `ncclDataType_t` and `ncclRedOp_t`.
const FLOAT32: c_int = 7;
const BFLOAT16: c_int = 9;
const SUM: c_int = 0;

/// `ncclAllReduce`, whose fifth argument is the operation, or `ncclBroadcast`, whose fifth is the rank that gives.
type Collective = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, CUstream) -> c_int;

/// NCCL, found at run time. Its result codes are numbers here: a later release has more of them.
///
/// It stays loaded as long as the process lives. A communicator has threads of its own, which would go on in code that is
/// not there any more.
#[derive(Clone, Copy)]
pub struct Nccl(&'static Functions);

struct Functions {
    path: PathBuf,
    version: c_int,
    get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    comm_init_rank: unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int) -> c_int,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    all_reduce: Collective,
    broadcast: Collective,
    get_error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    record_in_context: RecordInContext,
    wait_in_context: WaitInContext,
    /// Hold what the functions are in.
    _libraries: [Library; 2],
}

/// Why the ranks cannot sum on their devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NcclError {
    /// It is not where it is looked for.
    NotFound {
        /// What was tried.
        tried: Vec<String>,
    },
    /// It is older than what is needed, or is something else.
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The driver is older than CUDA 12.5.
    DriverTooOld,
    /// A call failed.
    Failed {
        /// What was tried.
        action: &'static str,
        /// The answer.
        answer: String,
    },
}

impl fmt::Display for NcclError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { tried } => write!(
                f,
                "NCCL, by which GPUs sum, is not there (tried {}); install it, as by `pip install nvidia-nccl-cu12`, or set GPT2_NCCL to \
                 its libnccl.so.2",
                tried.join(", ")
            ),
            Self::Unusable { path, reason } => write!(
                f,
                "{} cannot be used: {reason}; install NCCL 2.18 or later, or set GPT2_NCCL to its libnccl.so.2",
                path.display()
            ),
            Self::DriverTooOld => {
                f.write_str("training on several GPUs needs a driver of CUDA 12.5 (555) or later; update the driver")
            }
            Self::Failed { action, answer } => {
                write!(f, "cannot {action}: {answer}; NCCL_DEBUG=WARN makes it say more")
            }
        }
    }
}

impl std::error::Error for NcclError {}

impl From<DriverError> for NcclError {
    fn from(error: DriverError) -> Self {
        Self::Failed {
            action: "order the sums behind the device's work",
            answer: format!("the CUDA driver answers {error}"),
        }
    }
}

impl Nccl {
    /// Finds NCCL: what `GPT2_NCCL` names, what the system's loader finds, or what a Python package brought.
    ///
    /// # Errors
    /// [`NcclError`].
    pub fn load() -> Result<Self, NcclError> {
        let mut tried = Vec::new();
        for path in candidates() {
            // SAFETY: a library of this name does nothing but prepare itself when it is loaded.
            match unsafe { Library::new(&path) } {
                Ok(library) => return Self::in_library(library, path),
                Err(_) => tried.push(path.display().to_string()),
            }
        }
        Err(NcclError::NotFound { tried })
    }

    fn in_library(library: Library, path: PathBuf) -> Result<Self, NcclError> {
        let unusable = |error: libloading::Error| NcclError::Unusable {
            path: path.clone(),
            reason: error.to_string(),
        };
        // SAFETY: the driver is loaded already; this finds it again.
        let driver = unsafe { Library::new(DRIVER) }.map_err(|_| NcclError::DriverTooOld)?;
        // SAFETY: all types are those of nccl.h, and of the driver's header; the libraries live as long as what is in them.
        unsafe {
            let get_version = *library
                .get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"ncclGetVersion")
                .map_err(unusable)?;
            let mut version = 0;
            get_version(&raw mut version);
            if version < OLDEST {
                return Err(NcclError::Unusable {
                    path,
                    reason: format!("it is NCCL {}", shown(version)),
                });
            }
            Ok(Self(Box::leak(Box::new(Functions {
                version,
                get_unique_id: *library.get(b"ncclGetUniqueId").map_err(unusable)?,
                comm_init_rank: *library.get(b"ncclCommInitRank").map_err(unusable)?,
                group_start: *library.get(b"ncclGroupStart").map_err(unusable)?,
                group_end: *library.get(b"ncclGroupEnd").map_err(unusable)?,
                all_reduce: *library.get(b"ncclAllReduce").map_err(unusable)?,
                broadcast: *library.get(b"ncclBroadcast").map_err(unusable)?,
                get_error_string: *library.get(b"ncclGetErrorString").map_err(unusable)?,
                record_in_context: *driver.get(b"cuCtxRecordEvent").map_err(|_| NcclError::DriverTooOld)?,
                wait_in_context: *driver.get(b"cuCtxWaitEvent").map_err(|_| NcclError::DriverTooOld)?,
                path,
                _libraries: [library, driver],
            }))))
        }
    }

    /// Its release and where it was found: "NCCL 2.28.9 (libnccl.so.2)".
    pub fn description(&self) -> String {
        format!("NCCL {} ({})", shown(self.0.version), self.0.path.display())
    }

    /// Makes what the ranks of a new [`Communicator`] find each other by; one of them does.
    ///
    /// # Errors
    /// [`NcclError::Failed`].
    pub fn unique_id(&self) -> Result<Vec<u8>, NcclError> {
        let mut id = UniqueId([0; UniqueId::BYTES]);
        // SAFETY: it writes the id.
        let code = unsafe { (self.0.get_unique_id)(&raw mut id) };
        self.0.check("prepare for the other ranks", code)?;
        Ok(id.0.iter().map(|byte| byte.cast_unsigned()).collect())
    }
}

impl Functions {
    fn check(&self, action: &'static str, code: c_int) -> Result<(), NcclError> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: NCCL gives a text of its own for any number.
        let text = unsafe { CStr::from_ptr((self.get_error_string)(code)) };
        Err(NcclError::Failed {
            action,
            answer: format!("NCCL {} answers \"{}\"", shown(self.version), text.to_string_lossy()),
        })
    }
}

/// "2.28.9" for 22809.
fn shown(version: c_int) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

/// Where NCCL may be, the likeliest first.
fn candidates() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("GPT2_NCCL") {
        return vec![path.into()];
    }
    let variables = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(std::env::var_os);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local"));
    let prefixes = variables
        .map(PathBuf::from)
        .chain(home)
        .chain(["/usr/local", "/usr"].map(PathBuf::from));
    let names = ["libnccl.so.2", "libnccl.so"].map(PathBuf::from);
    names
        .into_iter()
        .chain(prefixes.flat_map(|prefix| python_packages(&prefix)))
        .collect()
}

/// NCCL as Python's package `nvidia-nccl-cu12`, which PyTorch needs, brings it.
fn python_packages(prefix: &Path) -> Vec<PathBuf> {
    let lib = prefix.join("lib");
    let Ok(entries) = std::fs::read_dir(&lib) else {
        return Vec::new();
    };
    let is_python = |name: &OsString| name.to_string_lossy().starts_with("python3");
    let pythons = entries.flatten().map(|entry| entry.file_name()).filter(is_python);
    pythons
        .flat_map(|python| ["site-packages", "dist-packages"].map(|packages| lib.join(&python).join(packages)))
        .map(|packages| packages.join("nvidia/nccl/lib/libnccl.so.2"))
        .filter(|library| library.exists())
        .collect()
}

/// The ranks of a run, on their devices.
///
/// What they exchange is queued behind all that the device has to do so far, and runs at the same time as what is
/// queued later, one group after the other. The tensors are in use until [`wait`](Self::wait) was called: they must be
/// kept, and not be read.
pub struct Communicator {
    nccl: Nccl,
    device: CudaDevice,
    /// The device's thread.
    thread: DeviceHandle<Server>,
    work: Work,
    /// What the device's thread met first; nothing is exchanged after it.
    error: Arc<Mutex<Option<NcclError>>>,
    /// Of the groups that nothing waits for yet.
    queued: Vec<Span>,
    /// Of the groups before each wait whose time was not asked for.
    waited: VecDeque<Vec<Span>>,
    /// Not in use.
    free: Vec<Span>,
}

/// Events before and behind a group.
#[derive(Clone, Copy)]
struct Span([CUevent; 2]);

// SAFETY: the driver's events may be used from any thread; each is used by one at a time.
unsafe impl Send for Span {}

/// What is made once and used by the device's thread alone.
#[derive(Clone, Copy)]
struct Work {
    context: CUcontext,
    comm: Comm,
    stream: CUstream,
    /// Behind all that was queued before a group.
    ready: CUevent,
    /// Behind all groups before a wait.
    done: CUevent,
}

// SAFETY: the driver's streams and events may be used from any thread; these are used by the device's thread alone.
unsafe impl Send for Work {}

impl Communicator {
    /// Joins the `size` ranks that have `id`, as rank `rank`. Waits for all of them.
    ///
    /// # Errors
    /// [`NcclError`].
    pub fn join(nccl: Nccl, device: &CudaDevice, id: &[u8], rank: usize, size: usize) -> Result<Self, NcclError> {
        let mut unique_id = UniqueId([0; UniqueId::BYTES]);
        for (to, from) in unique_id.0.iter_mut().zip(id) {
            *to = from.cast_signed();
        }
        let thread = DeviceHandle::<Server>::new(device.to_id());
        let functions = nccl.0;
        // On the thread whose context it is to work in.
        let work = thread.submit_blocking(move |_| {
            let mut comm = Comm(std::ptr::null_mut());
            // SAFETY: the context is current, and the communicator is written before it is used.
            let code = unsafe { (functions.comm_init_rank)(&raw mut comm, size as c_int, unique_id, rank as c_int) };
            functions.check("join the other ranks", code)?;
            Ok::<_, NcclError>(Work {
                context: result::ctx::get_current()?.ok_or(DriverError(CUresult::CUDA_ERROR_INVALID_CONTEXT))?,
                comm,
                // The lowest number is the highest priority: the others wait for what is summed.
                stream: stream::create_with_priority(stream::StreamKind::NonBlocking, i32::MIN)?,
                ready: event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING)?,
                done: event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING)?,
            })
        });
        let work = work.map_err(|_| NcclError::Failed {
            action: "join the other ranks",
            answer: "the device's thread has ended".to_owned(),
        })??;
        // Compiled here, the kernel is not waited for in a step.
        lap(device, None);
        Ok(Self {
            nccl,
            device: device.clone(),
            thread,
            work,
            error: Arc::default(),
            queued: Vec::new(),
            waited: VecDeque::new(),
            free: Vec::new(),
        })
    }

    /// What sums.
    pub fn nccl(&self) -> &Nccl {
        &self.nccl
    }

    /// Queues the sum of each of `tensors` over all ranks: each rank gives as many, of the same shapes. They are `f32` or `bf16`.
    pub fn sum(&mut self, tensors: Vec<Tensor>) -> Vec<Tensor> {
        self.in_place(tensors, |_| Change::AllReduce)
    }

    /// Queues that each of `tensors` becomes that of the rank which `owners` names: each rank gives as many, of the same shapes.
    /// They are `f32` or `bf16`.
    pub fn broadcast(&mut self, tensors: Vec<Tensor>, owners: &[usize]) -> Vec<Tensor> {
        self.in_place(tensors, |tensor| Change::Broadcast {
            root: owners[tensor] as c_int,
        })
    }

    /// Queues a change of each tensor as one group.
    fn in_place(&mut self, tensors: Vec<Tensor>, change: impl Fn(usize) -> Change) -> Vec<Tensor> {
        let tensors: Vec<Tensor> = tensors.into_iter().map(|tensor| owned(contiguous(tensor))).collect();
        let operands = tensors.iter().enumerate();
        let operands: Vec<Operand> = operands.map(|(at, tensor)| Operand::of(tensor, change(at))).collect();
        let span = self.span();
        let (functions, work) = (self.nccl.0, self.work);
        let stream_id = StreamId::current();
        self.submit(move |server| queue(server, functions, work, span?, operands, stream_id));
        tensors
    }

    /// Lets all that is queued later wait for what is being exchanged. Gives how long the device then waits, in
    /// milliseconds, `[1]` in `f32`.
    pub fn wait(&mut self) -> Tensor {
        let (began, _) = lap(&self.device, None);
        let (functions, work) = (self.nccl.0, self.work);
        self.submit(move |_| queue_wait(functions, work));
        self.waited.push_back(std::mem::take(&mut self.queued));
        lap(&self.device, Some(&began)).1
    }

    /// Hands work to the device's thread, behind all that was handed to it.
    fn submit(&self, work: impl FnOnce(&mut Server) -> Result<(), NcclError> + Send + 'static) {
        let error = Arc::clone(&self.error);
        self.thread.submit(move |server| {
            let mut error = error.lock().unwrap_or_else(PoisonError::into_inner);
            if error.is_none() {
                *error = work(server).err();
            }
        });
    }

    /// Events for one more group.
    fn span(&mut self) -> Result<Span, NcclError> {
        let span = if let Some(span) = self.free.pop() {
            span
        } else {
            // SAFETY: the context lives as long as the process.
            unsafe { result::ctx::set_current(self.work.context)? };
            let timed = || event::create(CUevent_flags::CU_EVENT_DEFAULT);
            Span([timed()?, timed()?])
        };
        self.queued.push(span);
        Ok(span)
    }

    /// How many milliseconds the groups before the oldest [`wait`](Self::wait) took that was not asked for yet, each
    /// from when this device was ready for it: the time that other ranks came later is in it. Something that was queued
    /// behind that wait must have been read back.
    ///
    /// # Errors
    /// [`NcclError::Failed`].
    pub fn take_milliseconds(&mut self) -> Result<f64, NcclError> {
        let spans = self.waited.pop_front().unwrap_or_default();
        // SAFETY: the context lives as long as the process.
        unsafe { result::ctx::set_current(self.work.context)? };
        let mut total = 0.0;
        for Span([began, ended]) in &spans {
            // SAFETY: events live as long as the process, and these were recorded before what was read.
            total += f64::from(unsafe { event::elapsed(*began, *ended)? });
        }
        self.free.extend(spans);
        Ok(total)
    }

    /// What has gone wrong, if anything has: what was exchanged since is not to be used.
    ///
    /// # Errors
    /// That.
    pub fn check(&self) -> Result<(), NcclError> {
        match &*self.error.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }
}

/// What becomes of a tensor.
#[derive(Clone, Copy)]
enum Change {
    /// Into the sum over the ranks.
    AllReduce,
    /// Into the tensor of rank `root`.
    Broadcast { root: c_int },
}

/// A tensor that is changed in place.
struct Operand {
    memory: Binding,
    elements: usize,
    data_type: c_int,
    change: Change,
}

impl Operand {
    fn of(tensor: &Tensor, change: Change) -> Self {
        Self {
            change,
            memory: tensor.handle.clone().binding(),
            elements: tensor.meta.num_elements(),
            data_type: if tensor.dtype == DType::BF16 { BFLOAT16 } else { FLOAT32 },
        }
    }
}

/// Queues one group, on the device's thread.
fn queue(
    server: &mut Server,
    nccl: &Functions,
    work: Work,
    span: Span,
    operands: Vec<Operand>,
    stream_id: StreamId,
) -> Result<(), NcclError> {
    const ACTION: &str = "exchange with the other ranks";
    // Kept to the end: they keep the memory from being given to others.
    let mut found = Vec::with_capacity(operands.len());
    for operand in operands {
        let resource = server
            .get_resource(operand.memory, stream_id)
            .map_err(|error| NcclError::Failed {
                action: ACTION,
                answer: error.to_string(),
            })?;
        found.push((resource, operand.elements, operand.data_type, operand.change));
    }
    let Span([began, ended]) = span;
    // SAFETY: the context is current, and stream, events and communicator were made in it. Each pointer is of at least
    // `elements` elements: the caller has the tensors, and leaves them alone until it has queued a wait.
    unsafe {
        (nccl.record_in_context)(work.context, work.ready).result()?;
        stream::wait_event(work.stream, work.ready, CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT)?;
        event::record(began, work.stream)?;
        nccl.check(ACTION, (nccl.group_start)())?;
        for (resource, elements, data_type, change) in &found {
            let pointer = resource.resource().ptr as *mut c_void;
            let (call, argument) = match *change {
                Change::AllReduce => (nccl.all_reduce, SUM),
                Change::Broadcast { root } => (nccl.broadcast, root),
            };
            let code = call(
                pointer,
                pointer,
                *elements,
                *data_type,
                argument,
                work.comm,
                work.stream,
            );
            nccl.check(ACTION, code)?;
        }
        nccl.check(ACTION, (nccl.group_end)())?;
        event::record(ended, work.stream)?;
    }
    Ok(())
}

/// Queues that the context's later work waits for the groups, on the device's thread.
fn queue_wait(nccl: &Functions, work: Work) -> Result<(), NcclError> {
    // SAFETY: the context is current, and stream and event were made in it.
    unsafe {
        event::record(work.done, work.stream)?;
        (nccl.wait_in_context)(work.context, work.done).result()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_cure() {
        let error = NcclError::NotFound {
            tried: vec!["libnccl.so.2".into(), "libnccl.so".into()],
        };
        assert!(
            error
                .to_string()
                .contains("(tried libnccl.so.2, libnccl.so); install it"),
            "{error}"
        );
        assert_eq!(shown(22_809), "2.28.9");
    }

    #[test]
    fn a_python_package_is_found() {
        let prefix = std::env::temp_dir().join(format!("gpt2-nccl-{}", std::process::id()));
        let lib = prefix.join("lib/python3.12/site-packages/nvidia/nccl/lib");
        std::fs::create_dir_all(&lib).unwrap();
        assert!(python_packages(&prefix).is_empty());
        std::fs::write(lib.join("libnccl.so.2"), "").unwrap();
        assert_eq!(python_packages(&prefix), [lib.join("libnccl.so.2")]);
        std::fs::remove_dir_all(&prefix).unwrap();
    }
}
