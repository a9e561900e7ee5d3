//! From a kernel's source to its launch, through CubeCL.
//!
//! What CubeCL's client would do in a call for each tensor and one for the kernel, each of which its device's thread
//! takes from a queue, is one call here: to small steps the host's time is what counts.

use crate::timer::Server;
use crate::{Tensor, ahead};
use burn::tensor::{DType, Shape, TensorMetadata};
use burn_cuda::CudaDevice;
use cubecl::cuda::CudaCompiler;
use cubecl::device::Device;
use cubecl::device_handle::DeviceHandle;
use cubecl::future::block_on;
use cubecl::ir::{ElemType, FloatKind, Scope, StorageType};
use cubecl::prelude::*;
use cubecl::server::{
    Binding, ComputeServer, Handle, KernelArguments, MetadataBindingInfo, TensorMapBinding, TensorMapMeta,
};
use cubecl::stream_id::StreamId;
use cubecl::zspace::{Strides, metadata::Metadata};
use cubecl::{CompilationError, Compiler, CubeTask};
use cubecl_cpp::shared::{Elem, Item, SharedMemory};
use cudarc::driver::result;
use cudarc::driver::sys::CUdevice_attribute;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::mem;
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};

/// Files that are compiled one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sources {
    files: &'static [&'static str],
    /// Of their text, so that a kernel is known by it without reading it again.
    digest: u64,
}

impl Sources {
    pub(crate) const fn new(files: &'static [&'static str]) -> Self {
        // FNV-1a (Fowler, Noll and Vo).
        let mut digest = 0xcbf2_9ce4_8422_2325_u64;
        let mut file = 0;
        while file < files.len() {
            let text = files[file].as_bytes();
            let mut at = 0;
            while at < text.len() {
                digest = (digest ^ text[at] as u64).wrapping_mul(0x0100_0000_01b3);
                at += 1;
            }
            file += 1;
        }
        Self { files, digest }
    }
}

/// No kernel has more, so that the list need not grow.
const CONSTANTS: usize = 8;

/// A kernel as it is compiled: `#define` lines, then the sources.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    entry: &'static str,
    sources: Sources,
    defines: Vec<(&'static str, usize)>,
    threads: u32,
    /// Dynamic shared memory in bytes.
    shared_memory: usize,
}

impl Kernel {
    pub(crate) fn new(sources: Sources, entry: &'static str, threads: usize) -> Self {
        Self {
            entry,
            sources,
            defines: Vec::with_capacity(CONSTANTS),
            threads: threads as u32,
            shared_memory: 0,
        }
    }

    /// Defines a constant for the preprocessor.
    pub(crate) fn define(mut self, name: &'static str, value: usize) -> Self {
        self.defines.push((name, value));
        self
    }

    /// Asks for dynamic shared memory.
    pub(crate) fn shared_memory(mut self, bytes: usize) -> Self {
        self.shared_memory = bytes;
        self
    }

    /// The text that is compiled.
    pub(crate) fn source(&self) -> String {
        let defines = self
            .defines
            .iter()
            .map(|(name, value)| format!("#define {name} {value}\n"));
        defines
            .chain(self.sources.files.iter().map(ToString::to_string))
            .collect()
    }

    fn cube_dim(&self) -> CubeDim {
        CubeDim::new_1d(self.threads)
    }
}

/// What the test that compiles every kernel looks at.
#[cfg(test)]
impl Kernel {
    pub(crate) fn entry(&self) -> &'static str {
        self.entry
    }

    pub(crate) fn files(&self) -> &'static [&'static str] {
        self.sources.files
    }

    pub(crate) fn defines(&self) -> &[(&'static str, usize)] {
        &self.defines
    }

    pub(crate) fn shared_memory_bytes(&self) -> usize {
        self.shared_memory
    }
}

impl KernelMetadata for Kernel {
    fn name(&self) -> &'static str {
        self.entry
    }

    fn id(&self) -> KernelId {
        let source = (self.sources.digest, self.defines.clone());
        KernelId::new::<Self>()
            .info((self.entry, source, self.shared_memory))
            .cube_dim(self.cube_dim())
    }

    fn address_type(&self) -> StorageType {
        u32::as_type_native_unchecked().storage_type()
    }
}

static COMPILED: LazyLock<Mutex<HashSet<KernelId>>> = LazyLock::new(Mutex::default);

/// Kernels that this process has compiled, or had the driver look up. The first of each kind takes from a few milliseconds to
/// a second.
pub fn compiled() -> usize {
    COMPILED.lock().unwrap_or_else(PoisonError::into_inner).len()
}

/// Whether `kernel` is among them.
pub(crate) fn is_compiled(kernel: &Kernel) -> bool {
    let compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    compiled.contains(&kernel.id())
}

/// Counts `kernels` as compiled.
pub(crate) fn note_compiled<'a>(kernels: impl IntoIterator<Item = &'a Kernel>) {
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    compiled.extend(kernels.into_iter().map(Kernel::id));
}

impl CubeTask<CudaCompiler> for Kernel {
    fn compile(
        &self,
        compiler: &mut CudaCompiler,
        options: &<CudaCompiler as Compiler>::CompilationOptions,
        mode: ExecutionMode,
        address_type: StorageType,
    ) -> Result<CompiledKernel<CudaCompiler>, CompilationError> {
        ahead::look();
        note_compiled([self]);
        // CubeCL reads the size of the shared memory from the compiled form, which a source of our own does not have: an
        // empty kernel with one array of that size stands for it.
        let empty = KernelDefinition {
            buffers: Vec::new(),
            tensor_maps: Vec::new(),
            scalars: Vec::new(),
            cube_dim: self.cube_dim(),
            body: Scope::root(false),
            options: KernelOptions::default(),
        };
        let mut form = compiler.compile(empty, options, mode, address_type)?;
        if self.shared_memory > 0 {
            form.body.shared_memories.push(SharedMemory::Array {
                index: 0,
                item: Item::scalar(Elem::U8, true),
                length: self.shared_memory,
                align: 128,
                offset: 0,
            });
        }
        Ok(CompiledKernel {
            entrypoint_name: self.entry.to_owned(),
            debug_name: Some(self.entry),
            source: self.source(),
            repr: Some(form),
            cube_dim: self.cube_dim(),
            debug_info: None,
        })
    }
}

/// What most launches pass, so that their lists need not grow.
const BUFFERS: usize = 8;
const WORDS: usize = 8;

/// A launch being put together.
pub(crate) struct Launch<'a> {
    /// Any tensor of the launch, for its device.
    at: &'a Tensor,
    maps: Vec<TensorMapBinding>,
    buffers: Vec<Binding>,
    words: Vec<u64>,
}

impl<'a> Launch<'a> {
    /// A launch on the device of `at`.
    pub(crate) fn on(at: &'a Tensor) -> Self {
        Self {
            at,
            maps: Vec::new(),
            buffers: Vec::with_capacity(BUFFERS),
            words: Vec::with_capacity(WORDS),
        }
    }

    /// Passes a tensor map: a view of `tensor` as a matrix of `shape`, read in boxes, whose rows are swizzled in spans of
    /// 128 bytes.
    pub(crate) fn map<const D: usize>(self, tensor: &Tensor, shape: [usize; D], boxes: [usize; D]) -> Self {
        let mut strides = [1; D];
        for axis in (1..D).rev() {
            strides[axis - 1] = strides[axis] * shape[axis];
        }
        self.map_strided(tensor, shape, strides, boxes)
    }

    /// The same for a view whose elements lie `strides` apart.
    pub(crate) fn map_strided<const D: usize>(
        mut self,
        tensor: &Tensor,
        shape: [usize; D],
        strides: [usize; D],
        boxes: [usize; D],
    ) -> Self {
        self.maps.push(tensor_map(tensor, shape, strides, boxes));
        self
    }

    /// Passes a tensor's address.
    pub(crate) fn buffer(mut self, tensor: &Tensor) -> Self {
        self.buffers.push(tensor.handle.clone().binding());
        self
    }

    /// Passes the addresses of tensors.
    pub(crate) fn buffers<'b>(mut self, tensors: impl IntoIterator<Item = &'b Tensor>) -> Self {
        self.buffers
            .extend(tensors.into_iter().map(|tensor| tensor.handle.clone().binding()));
        self
    }

    /// Passes a whole number in the kernel's arguments.
    pub(crate) fn word(mut self, word: usize) -> Self {
        self.words.push(word as u64);
        self
    }

    /// Passes whole numbers in the kernel's arguments.
    pub(crate) fn words(mut self, words: impl IntoIterator<Item = usize>) -> Self {
        self.words.extend(words.into_iter().map(|word| word as u64));
        self
    }

    /// Passes a real number in the kernel's arguments.
    pub(crate) fn real(mut self, number: f64) -> Self {
        self.words.push(number.to_bits());
        self
    }

    /// Queues the kernel.
    pub(crate) fn run(self, kernel: Kernel, grid: [usize; 3]) {
        let device = &self.at.device;
        if ahead::is_rehearsed(&kernel) {
            return with_queue(device, Queue::reserve);
        }
        let [x, y, z] = grid.map(|blocks| u32::try_from(blocks).expect("CUDA counts blocks in 32 bits"));
        let words = self.words.len();
        let arguments = KernelArguments {
            tensor_maps: self.maps,
            buffers: self.buffers,
            // All words are passed by value: none is left for a buffer of metadata.
            info: MetadataBindingInfo::new(self.words, words),
        };
        let kernel: Box<dyn CubeTask<CudaCompiler>> = Box::new(kernel);
        let count = CubeCount::Static(x, y, z);
        with_queue(device, |queue| queue.launch(kernel, count, arguments));
    }
}

fn tensor_map<const D: usize>(
    tensor: &Tensor,
    shape: [usize; D],
    strides: [usize; D],
    boxes: [usize; D],
) -> TensorMapBinding {
    let element = match tensor.dtype {
        DType::BF16 => FloatKind::BF16,
        DType::F32 | DType::Flex32 => FloatKind::F32,
        other => unreachable!("no kernel reads {other:?} by boxes"),
    };
    TensorMapBinding {
        binding: tensor.handle.clone().binding(),
        map: TensorMapMeta {
            format: TensorMapFormat::Tiled(TiledArgs {
                tile_size: Shape::new(boxes),
            }),
            metadata: Metadata::new(Shape::new(shape), Strides::new(&strides)),
            elem_stride: Strides::new(&[1; D]),
            interleave: TensorMapInterleave::None,
            swizzle: TensorMapSwizzle::B128,
            prefetch: TensorMapPrefetch::B256,
            oob_fill: OobFill::Zero,
            storage_ty: StorageType::Scalar(ElemType::Float(element)),
        },
    }
}

/// Whether elements are `f32` in memory; as operands of products in TF32 they have a type of their own.
pub(crate) fn is_wide(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::Flex32)
}

/// What this thread queues on a device.
struct Queue {
    /// The device's number.
    index: usize,
    /// CubeCL's thread.
    device: DeviceHandle<Server>,
    /// What the next kernel will find reserved.
    to_reserve: Vec<Handle>,
}

impl Queue {
    /// Memory that is reserved by the time that the next kernel of this thread is launched.
    fn empty(&mut self, bytes: usize, alignment: usize) -> Handle {
        let size = bytes.next_multiple_of(alignment);
        let handle = Handle::new(StreamId::current(), size as u64);
        self.to_reserve.push(handle.clone());
        handle.offset_end((size - bytes) as u64)
    }

    fn launch(&mut self, kernel: Box<dyn CubeTask<CudaCompiler>>, count: CubeCount, arguments: KernelArguments) {
        let to_reserve = mem::take(&mut self.to_reserve);
        let stream = StreamId::current();
        self.device.submit(move |server| {
            reserve(server, to_reserve);
            // SAFETY: as CubeCL's client does it.
            unsafe { server.launch(kernel, count, arguments, ExecutionMode::Checked, stream) };
        });
    }

    /// Reserves what no kernel will.
    fn reserve(&mut self) {
        let to_reserve = mem::take(&mut self.to_reserve);
        self.device.submit(move |server| reserve(server, to_reserve));
    }
}

fn reserve(server: &mut Server, handles: Vec<Handle>) {
    for handle in handles {
        let (size, stream) = (handle.size(), handle.stream);
        server.initialize_memory(handle.memory, size, stream);
    }
}

/// Uses the queue of this thread to `device`.
fn with_queue<T>(device: &CudaDevice, work: impl FnOnce(&mut Queue) -> T) -> T {
    thread_local! {
        /// One for each device that the thread has used: hardly ever more than one.
        static QUEUES: RefCell<Vec<Queue>> = const { RefCell::new(Vec::new()) };
    }
    QUEUES.with_borrow_mut(|queues| {
        let known = queues.iter().position(|queue| queue.index == device.index);
        let at = known.unwrap_or_else(|| {
            queues.push(Queue {
                index: device.index,
                device: DeviceHandle::new(device.to_id()),
                to_reserve: Vec::new(),
            });
            queues.len() - 1
        });
        work(&mut queues[at])
    })
}

/// Begins to copy the elements of `tensors`, all `f32` and of one device, to the host, and does not wait for CubeCL's
/// thread; what it gives waits for them, one tensor after the other.
///
/// # Panics
/// If there are none, or the device has failed.
pub fn read(tensors: Vec<Tensor>) -> impl FnOnce() -> Vec<f32> + 'static {
    // Memory is handed out in larger pieces than may be asked for.
    let counts: Vec<usize> = tensors.iter().map(|tensor| tensor.shape().num_elements()).collect();
    let device = tensors[0].device.clone();
    let descriptor = |tensor: Tensor| {
        let bytes = tensor.handle.size_in_used() as usize;
        let (shape, strides) = (Shape::new([bytes]), Strides::new(&[1]));
        tensor.handle.copy_descriptor(shape, strides, 1)
    };
    let descriptors = tensors.into_iter().map(descriptor).collect();
    let (sender, receiver) = mpsc::channel();
    with_queue(&device, |queue| {
        let stream = StreamId::current();
        queue.device.submit(move |server| {
            // Who does not wait for the numbers has dropped the other end.
            let _ = sender.send(server.read(descriptors, stream));
        });
        queue.device.flush_queue();
    });
    move || {
        let copies = receiver.recv().expect("the device's thread answers");
        let copies = block_on(copies).expect("the device has done its work");
        let numbers = copies.iter().zip(counts);
        numbers
            .flat_map(|(bytes, count)| &f32::from_bytes(bytes)[..count])
            .copied()
            .collect()
    }
}

/// A tensor on the device of `at`, whose elements are whatever was there. Its memory is reserved with the next kernel
/// that this thread launches there: nothing may use it before.
pub(crate) fn empty(at: &Tensor, shape: &[usize], dtype: DType) -> Tensor {
    empty_within(at, shape, dtype, 0)
}

/// [`empty`] at the front of `bytes` bytes of memory, if it takes less.
pub(crate) fn empty_within(at: &Tensor, shape: &[usize], dtype: DType, bytes: usize) -> Tensor {
    let shape: Shape = shape.iter().copied().collect();
    let needed = shape.num_elements() * dtype.size();
    let bytes = bytes.max(needed);
    let alignment = at.client.properties().memory.alignment as usize;
    let handle = with_queue(&at.device, |queue| queue.empty(bytes, alignment));
    let handle = handle.offset_end((bytes - needed) as u64);
    Tensor::new_contiguous(at.client.clone(), at.device.clone(), shape, handle, dtype)
}

/// Where the blocks of each of `slots` tensors begin, given the blocks that each takes, and how many there are. Unused slots
/// begin after all others.
pub(crate) fn first_blocks(blocks: &[usize], slots: usize) -> (Vec<usize>, usize) {
    let mut total = 0;
    let first = (0..slots)
        .map(|slot| {
            let first = total;
            total += blocks.get(slot).copied().unwrap_or(0);
            first
        })
        .collect();
    (first, total)
}

/// Multiprocessors of the device of `at`.
pub(crate) fn multiprocessors(at: &Tensor) -> usize {
    let count = at.client.properties().hardware.num_streaming_multiprocessors;
    count.expect("CUDA's runtime tells") as usize
}

/// A device's compute capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ComputeCapability {
    pub(crate) major: i32,
    pub(crate) minor: i32,
}

impl ComputeCapability {
    /// Whether it has the warpgroup products (wgmma) of Hopper, which no other architecture has.
    pub(crate) fn has_wgmma(self) -> bool {
        self == Self { major: 9, minor: 0 }
    }

    /// Whether TF32 is far more than three times as fast as `f32` on the CUDA cores: on A100, H100 and B200, but on no GPU made
    /// for desktops.
    pub(crate) fn has_fast_tf32(self) -> bool {
        self.minor == 0 && (8..=10).contains(&self.major)
    }
}

/// The compute capability of the device of `at`.
pub(crate) fn compute_capability(at: &Tensor) -> ComputeCapability {
    compute_capability_of(at.device.index)
}

/// The compute capability of device `index`.
pub(crate) fn compute_capability_of(index: usize) -> ComputeCapability {
    static KNOWN: Mutex<BTreeMap<usize, ComputeCapability>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    *known.entry(index).or_insert_with(|| {
        let device = result::device::get(index as i32).expect("a tensor is on a device that is there");
        // SAFETY: the driver gave this device just now.
        let attribute = |attribute| unsafe { result::device::get_attribute(device, attribute) };
        let [major, minor] = [
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        ]
        .map(|part| attribute(part).expect("the driver knows its devices"));
        ComputeCapability { major, minor }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_slots_begin_after_all_blocks() {
        assert_eq!(first_blocks(&[3, 1, 5], 5), (vec![0, 3, 4, 9, 9], 9));
    }

    #[test]
    fn a_kernel_is_known_by_its_text_and_constants() {
        let [one, other] = [Sources::new(&["a", "b"]), Sources::new(&["a", "c"])];
        let id = |sources, width| Kernel::new(sources, "entry", 32).define("WIDTH", width).id();
        assert_eq!(id(one, 64), id(one, 64));
        assert_ne!(id(one, 64), id(other, 64));
        assert_ne!(id(one, 64), id(one, 128));
    }
}
