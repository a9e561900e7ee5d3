//! Kernels compiled before they are first launched, many at a time.
//!
//! CubeCL compiles a kernel when it is first launched, one after the other. NVIDIA's compiler (since CUDA 12.9) and
//! driver keep on disk what they have compiled, so that what threads compile here is only looked up there. Where they
//! have kept something already, nothing is compiled ahead: to look all kernels up twice takes half a second.
//!
//! The compiler makes PTX on any number of threads at once. The driver, which makes machine code of it, does so for one
//! thread at a time within a context: so a few threads have contexts of their own.

use crate::launch::{self, ComputeCapability, Kernel};
use crate::timer::{DRIVER, Server};
use crate::{adamw, clock};
use burn_cuda::CudaDevice;
use cubecl::cuda::install;
use cubecl::device::Device;
use cubecl::device_handle::DeviceHandle;
use cudarc::driver::result::{ctx, device, module};
use cudarc::driver::sys::{self, CUcontext, CUdevice, CUresult};
use cudarc::nvrtc;
use libloading::Library;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_uint};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};

/// Contexts in which the driver compiles. Each takes a tenth of a second to make, and a few hundred MiB of the device's
/// memory meanwhile.
const CONTEXTS: usize = 4;

thread_local! {
    /// What would have been launched, while this thread rehearses.
    static REHEARSED: RefCell<Option<Vec<Kernel>>> = const { RefCell::new(None) };
}

/// Compiles the kernels of this crate that `rehearsal` would launch on `device`, and those of a step's end: `threads`
/// threads make PTX of them, and a few more have the driver compile that.
///
/// None of them is launched: what their results are made of is whatever was in memory. Burn's own are launched as
/// always. A kernel that cannot be compiled is an error where it is launched.
pub fn compile_ahead(device: &CudaDevice, threads: usize, rehearsal: impl FnOnce()) {
    if threads == 1 || !*KEEPS_NOTHING_YET || install::cuda_path().is_none() {
        return;
    }
    let mut kernels = rehearse(rehearsal);
    kernels.extend(adamw::kernels());
    kernels.push(clock::lap_kernel());
    // What an earlier run of the process has used, CubeCL holds.
    kernels.retain(|kernel| !launch::is_compiled(kernel));
    if kernels.is_empty() {
        return;
    }
    let Some(shared) = Shared::of(device) else { return };
    let options = options(launch::compute_capability_of(device.index));
    // A text may hold several kernels.
    let mut texts: BTreeMap<String, Vec<Kernel>> = BTreeMap::new();
    for kernel in kernels {
        texts.entry(kernel.source()).or_default().push(kernel);
    }
    let mut texts: Vec<_> = texts.into_iter().collect();
    // The longest take the most time.
    texts.sort_by_key(|(text, _)| Reverse(text.len()));
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(texts.len()) {
            let sender = sender.clone();
            let (texts, options, next) = (&texts, &options, &next);
            scope.spawn(move || {
                while let Some((text, kernels)) = texts.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Ok(ptx) = compile(text, options) {
                        // The other end is there as long as this scope.
                        let _ = sender.send((ptx, kernels));
                    }
                }
            });
        }
        drop(sender);
        for _ in 0..threads.min(texts.len()).min(CONTEXTS) {
            scope.spawn(|| {
                let context = Context::new(device, &shared);
                let receive = || receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                while let Ok((ptx, kernels)) = receive() {
                    context.load(&ptx);
                    launch::note_compiled(kernels);
                }
            });
        }
    });
}

/// Whether compiler and driver keep what they compile, and had kept nothing before the first kernel of this process.
static KEEPS_NOTHING_YET: LazyLock<bool> =
    LazyLock::new(|| keeps_on_disk() && kept_in().is_some_and(|directory| is_empty(&directory)));

/// Looks whether something is kept. To be called before a kernel is compiled.
pub(crate) fn look() {
    LazyLock::force(&KEEPS_NOTHING_YET);
}

/// The directory in which the driver keeps what was compiled, as its documentation has it.
fn kept_in() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CUDA_CACHE_PATH") {
        return Some(path.into());
    }
    let (variable, below) = if cfg!(windows) {
        ("APPDATA", "NVIDIA/ComputeCache")
    } else {
        ("HOME", ".nv/ComputeCache")
    };
    Some(PathBuf::from(std::env::var_os(variable)?).join(below))
}

/// Whether there is nothing in `directory`, or no such directory.
fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

/// Whether compiler and driver keep what they compile.
fn keeps_on_disk() -> bool {
    let [mut major, mut minor] = [0; 2];
    // SAFETY: it writes the two numbers.
    let found = unsafe { nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) };
    // As the driver reads it.
    let is_allowed = std::env::var_os("CUDA_CACHE_DISABLE").is_none_or(|value| value != "1");
    found == nvrtc::sys::nvrtcResult::NVRTC_SUCCESS && (major, minor) >= (12, 9) && is_allowed
}

/// Whether this thread rehearses, so that `kernel` is not to be launched.
pub(crate) fn is_rehearsed(kernel: &Kernel) -> bool {
    REHEARSED.with_borrow_mut(|rehearsed| match rehearsed {
        Some(kernels) => {
            kernels.push(kernel.clone());
            true
        }
        None => false,
    })
}

/// The kernels that `rehearsal` would launch.
fn rehearse(rehearsal: impl FnOnce()) -> Vec<Kernel> {
    /// Also after a panic, kernels are launched again.
    struct Scope;
    impl Drop for Scope {
        fn drop(&mut self) {
            REHEARSED.take();
        }
    }
    let _scope = Scope;
    REHEARSED.set(Some(Vec::new()));
    rehearsal();
    REHEARSED.take().unwrap_or_default()
}

/// `cuCtxCreate`, as every driver has it.
type CreateContext = unsafe extern "C" fn(*mut CUcontext, c_uint, CUdevice) -> CUresult;

/// The context that CubeCL works in.
#[derive(Clone, Copy)]
struct Shared(CUcontext);

// SAFETY: the driver's contexts may be current in any number of threads.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn of(device: &CudaDevice) -> Option<Self> {
        let thread = DeviceHandle::<Server>::new(device.to_id());
        let context = thread.submit_blocking(|_| ctx::get_current().ok().flatten().map(Self));
        context.ok().flatten()
    }
}

/// A context in which one thread lets the driver compile.
enum Context {
    /// The thread's own.
    Own(CUcontext),
    /// CubeCL's, where there is no memory left for another.
    Shared(CUcontext),
}

impl Context {
    fn new(device: &CudaDevice, shared: &Shared) -> Self {
        Self::create(device).map_or(Self::Shared(shared.0), Self::Own)
    }

    fn create(device: &CudaDevice) -> Option<CUcontext> {
        let device = device::get(device.index as i32).ok()?;
        // SAFETY: the driver is loaded already; this finds it again.
        let driver = unsafe { Library::new(DRIVER) }.ok()?;
        // SAFETY: the type is that of the driver's header, and the library is held while the function is called.
        let create = unsafe { driver.get::<CreateContext>(b"cuCtxCreate_v2") }.ok()?;
        let mut context = ptr::null_mut();
        // SAFETY: it writes the context, of a device that is there.
        let answer = unsafe { create(&raw mut context, 0, device) };
        (answer == CUresult::CUDA_SUCCESS).then_some(context)
    }

    /// Lets the driver compile `ptx` for the device, and keep it on disk.
    fn load(&self, ptx: &[c_char]) {
        let (Self::Own(context) | Self::Shared(context)) = self;
        // SAFETY: the context is there, the compiler ends its texts with a zero byte, and nothing of the module is
        // used.
        unsafe {
            if ctx::set_current(*context).is_ok()
                && let Ok(module) = module::load_data(ptx.as_ptr().cast())
            {
                // At the worst it stays loaded.
                let _ = module::unload(module);
            }
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if let Self::Own(context) = self {
            // SAFETY: this thread made it, and no other has it. At the worst it stays.
            let _ = unsafe { sys::cuCtxDestroy_v2(*context) };
        }
    }
}

/// The options that CubeCL gives the compiler: with others, what is kept on disk would not be found.
fn options(capability: ComputeCapability) -> Vec<String> {
    let include = |path: PathBuf| format!("--include-path={}", path.display());
    let mut options = vec![
        architecture(capability),
        include(install::include_path()),
        "-lineinfo".to_owned(),
    ];
    let cccl = install::cccl_include_path();
    if cccl.exists() {
        options.push(include(cccl));
    }
    options
}

/// As CubeCL names it to the compiler.
pub(crate) fn architecture(capability: ComputeCapability) -> String {
    let ComputeCapability { major, minor } = capability;
    let suffix = if major >= 9 { "a" } else { "" };
    format!("--gpu-architecture=sm_{major}{minor}{suffix}")
}

/// PTX, which ends with a zero byte, or what the compiler says against the source.
pub(crate) fn compile(source: &str, options: &[String]) -> Result<Vec<c_char>, String> {
    let source = CString::new(source).expect("no source has a zero byte");
    let program = nvrtc::result::create_program(&source, None).map_err(|error| error.to_string())?;
    // SAFETY: the program was made just now, is used by this thread alone, and destroyed once.
    unsafe {
        let outcome = match nvrtc::result::compile_program(program, options) {
            Ok(()) => nvrtc::result::get_ptx(program).map_err(|error| error.to_string()),
            Err(error) => {
                let log = nvrtc::result::get_program_log(program).map(|log| text(&log));
                Err(format!("{error}\n{}", log.unwrap_or_default()))
            }
        };
        // At the worst it stays in memory.
        let _ = nvrtc::result::destroy_program(program);
        outcome
    }
}

/// What the compiler wrote, which ends with a zero byte.
pub(crate) fn text(bytes: &[c_char]) -> String {
    // SAFETY: the compiler ends its texts with a zero byte.
    let text = unsafe { CStr::from_ptr(bytes.as_ptr()) };
    text.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::Sources;
    use std::panic::catch_unwind;

    #[test]
    fn a_directory_that_is_not_there_is_empty() {
        let directory = std::env::temp_dir().join(format!("gpt2-kept-{}", std::process::id()));
        assert!(is_empty(&directory));
        std::fs::create_dir(&directory).unwrap();
        assert!(is_empty(&directory));
        std::fs::write(directory.join("index"), "").unwrap();
        assert!(!is_empty(&directory));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_is_rehearsed_is_not_launched() {
        let kernel = Kernel::new(Sources::new(&["a"]), "entry", 32);
        assert!(!is_rehearsed(&kernel));
        let rehearsed = rehearse(|| {
            assert!(is_rehearsed(&kernel));
            assert!(is_rehearsed(&kernel));
        });
        let entries: Vec<_> = rehearsed.iter().map(Kernel::entry).collect();
        assert_eq!(entries, ["entry", "entry"]);
        assert!(!is_rehearsed(&kernel));
        let other_thread = || {
            let elsewhere = std::thread::scope(|scope| scope.spawn(|| is_rehearsed(&kernel)).join());
            assert!(!elsewhere.unwrap());
        };
        assert!(rehearse(other_thread).is_empty());
        assert!(catch_unwind(|| rehearse(|| panic!("in a rehearsal"))).is_err());
        assert!(!is_rehearsed(&kernel));
    }
}
