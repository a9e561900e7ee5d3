//! Causal attention, of which nothing as large as the matrix of scores is ever in memory.
//!
//! `bf16` goes through the products of a warp, and heads of 64 channels on Hopper through warpgroup products and the
//! tensor memory accelerator; `f32` through the CUDA cores, in single precision throughout, or, as an operand in TF32,
//! with heads of 64 channels, through the products of a warp.

use crate::launch::{ComputeCapability, Kernel, Launch, Sources, compute_capability, empty, multiprocessors};
use crate::{HEAD_MULTIPLE, Tensor, WIDEST_HEAD};
use burn::tensor::{DType, TensorMetadata};

const DELTA: Sources = Sources::new(&[include_str!("cuda/common.cuh"), include_str!("cuda/attention_delta.cu")]);
const HOPPER: Sources = Sources::new(&[
    include_str!("cuda/common.cuh"),
    include_str!("cuda/warp.cuh"),
    include_str!("cuda/hopper.cuh"),
    include_str!("cuda/attention_hopper.cu"),
]);
const PORTABLE: Sources = Sources::new(&[
    include_str!("cuda/common.cuh"),
    include_str!("cuda/warp.cuh"),
    include_str!("cuda/attention.cu"),
]);

/// Queries of a block of the forward kernels for `bf16`.
const BLOCK_ROWS: usize = 128;

/// Rows of a tile.
const TILE: usize = 64;

/// Channels of the heads that the Hopper kernels take, and those for TF32.
const HOPPER_HEAD: usize = 64;
const TF32_HEAD: usize = 64;

/// Dynamic shared memory of the Hopper kernels in bytes.
const HOPPER_FORWARD: usize = BLOCK_ROWS * 128 + 5 * 2 * 8192 + 128 + 1024;
const HOPPER_BACKWARD: usize = (8 + 6 * 2 + 4) * 8192 + 6 * 2 * TILE * 4 + 256 + 1024;

/// Rows of a tile of the side that a block walks over: wide ones are fewer, so that they fit.
fn tile_rows(head_size: usize) -> usize {
    if head_size > 64 { TILE / 2 } else { TILE }
}

/// Bytes from one row of a tile to the next in the portable kernels: the channels, up to a multiple of 16, and what
/// keeps rows in different banks.
fn portable_row(head_size: usize) -> usize {
    let chunks = head_size.next_multiple_of(16) / 8;
    let permuted = chunks >= 4 && chunks.is_power_of_two();
    16 * if permuted { chunks } else { chunks + 1 }
}

/// Kernels whose tensors are all `f32` in memory.
struct Wide {
    sources: Sources,
    /// Forward, backward to the queries, backward to the keys and values.
    entries: [&'static str; 3],
    /// Dynamic shared memory of each for heads of a size, in bytes.
    shared_memory: fn(usize) -> [usize; 3],
}

const SINGLE: Wide = Wide {
    sources: Sources::new(&[
        include_str!("cuda/common.cuh"),
        include_str!("cuda/warp.cuh"),
        include_str!("cuda/attention_f32.cu"),
    ]),
    entries: [
        "attention_f32_forward",
        "attention_f32_backward_query",
        "attention_f32_backward_key",
    ],
    shared_memory: |head_size| {
        let width = head_size.next_multiple_of(32);
        let columns = tile_rows(head_size);
        [0, 1, 2].map(|pass| {
            let rows = Wide::rows(pass, head_size);
            let of_tiles = if pass == 0 {
                rows + 2 * columns
            } else {
                2 * (rows + columns)
            };
            4 * (of_tiles * width + rows * columns)
        })
    },
};

const TF32: Wide = Wide {
    sources: Sources::new(&[
        include_str!("cuda/common.cuh"),
        include_str!("cuda/warp.cuh"),
        include_str!("cuda/attention_tf32.cu"),
    ]),
    entries: [
        "attention_tf32_forward",
        "attention_tf32_backward_query",
        "attention_tf32_backward_key",
    ],
    shared_memory: |_| [6 * TILE * 256, 6 * TILE * 256 + 256, 6 * TILE * 256 + 1024],
};

impl Wide {
    /// Those for tensors of this type.
    fn of(dtype: DType) -> Option<Self> {
        match dtype {
            DType::F32 => Some(SINGLE),
            DType::Flex32 => Some(TF32),
            _ => None,
        }
    }

    /// Queries of a block, or keys in the last pass.
    fn rows(pass: usize, head_size: usize) -> usize {
        let tiles = if pass == 0 { 2 } else { 1 };
        tiles * tile_rows(head_size)
    }

    fn kernel(&self, pass: usize, head_size: usize) -> Kernel {
        Kernel::new(self.sources, self.entries[pass], 128)
            .define("HEAD_SIZE", head_size)
            .define("PASS", pass)
            .shared_memory((self.shared_memory)(head_size)[pass])
    }
}

fn delta_kernel(head_size: usize) -> Kernel {
    Kernel::new(DELTA, "attention_delta", 256).define("HEAD_SIZE", head_size)
}

/// Whether heads of `bf16` go through the kernels for Hopper.
fn is_for_hopper(capability: ComputeCapability, head_size: usize) -> bool {
    capability.has_wgmma() && head_size == HOPPER_HEAD
}

/// The forward kernel for `bf16`.
fn forward_kernel(capability: ComputeCapability, head_size: usize) -> Kernel {
    let (sources, shared_memory) = if is_for_hopper(capability, head_size) {
        (HOPPER, HOPPER_FORWARD)
    } else {
        (PORTABLE, (BLOCK_ROWS + 4 * TILE) * portable_row(head_size))
    };
    Kernel::new(sources, "attention_forward", 256)
        .define("HEAD_SIZE", head_size)
        .shared_memory(shared_memory)
}

/// The backward kernels for `bf16`, in the order of their launches.
fn backward_kernels(capability: ComputeCapability, head_size: usize) -> Vec<Kernel> {
    let kernel = |sources, entry, threads, shared_memory| {
        Kernel::new(sources, entry, threads)
            .define("HEAD_SIZE", head_size)
            .shared_memory(shared_memory)
    };
    if is_for_hopper(capability, head_size) {
        return vec![kernel(HOPPER, "attention_backward", 384, HOPPER_BACKWARD)];
    }
    let row = portable_row(head_size);
    vec![
        kernel(
            PORTABLE,
            "attention_backward_keys",
            128,
            (2 * TILE + 4 * tile_rows(head_size)) * row + 1024,
        ),
        kernel(PORTABLE, "attention_backward_queries", 128, 6 * TILE * row),
    ]
}

/// Every kernel of this file for a device, to be compiled by a test: for heads of 64 channels, of a size that tiles pad,
/// and the widest.
#[cfg(test)]
pub(crate) fn kernels(capability: ComputeCapability) -> Vec<Kernel> {
    let of = |head_size| {
        let mut kernels = backward_kernels(capability, head_size);
        kernels.extend([delta_kernel(head_size), forward_kernel(capability, head_size)]);
        kernels.extend((0..3).map(|pass| SINGLE.kernel(pass, head_size)));
        kernels
    };
    let in_tf32 = (0..3).map(|pass| TF32.kernel(pass, TF32_HEAD));
    [HOPPER_HEAD, 40, WIDEST_HEAD]
        .into_iter()
        .flat_map(of)
        .chain(in_tf32)
        .collect()
}

/// What attention gives.
#[derive(Debug, Clone)]
pub struct Attended {
    /// The mixed values, `[B, T, C]`.
    pub out: Tensor,
    /// Logarithms of the sums of the exponentials of the scores, `[B, H, T]`, `f32`.
    pub log_sum: Tensor,
}

/// Channels of each of `heads` heads in `qkv`, `[B, T, 3C]`.
///
/// # Panics
/// If the kernels do not take them.
fn head_size(qkv: &Tensor, heads: usize) -> usize {
    let [_, _, width] = qkv.shape().dims();
    let head_size = width / (3 * heads);
    let is_taken = match qkv.dtype {
        DType::Flex32 => head_size == TF32_HEAD,
        _ => head_size.is_multiple_of(HEAD_MULTIPLE) && head_size <= WIDEST_HEAD,
    };
    assert!(
        is_taken && width == 3 * heads * head_size,
        "no kernel for {width} channels of {heads} heads"
    );
    head_size
}

/// Attention of `heads` heads: `qkv` is `[B, T, 3C]` in `bf16` or `f32`.
pub fn forward(qkv: &Tensor, heads: usize) -> Attended {
    let head_size = head_size(qkv, heads);
    let [batch, seq, _] = qkv.shape().dims();
    let attended = Attended {
        out: empty(qkv, &[batch, seq, heads * head_size], qkv.dtype),
        log_sum: empty(qkv, &[batch, heads, seq], DType::F32),
    };
    let Attended { out, log_sum } = &attended;
    if let Some(wide) = Wide::of(qkv.dtype) {
        let blocks = seq.div_ceil(Wide::rows(0, head_size));
        Launch::on(qkv)
            .buffers([qkv, out, log_sum])
            .words([batch, heads, seq])
            .run(wide.kernel(0, head_size), [batch * heads, blocks, 1]);
        return attended;
    }
    let capability = compute_capability(qkv);
    let launch = if is_for_hopper(capability, head_size) {
        map(map(Launch::on(qkv), qkv, 3 * heads), out, heads)
    } else {
        Launch::on(qkv).buffers([qkv, out])
    };
    let blocks = seq.div_ceil(BLOCK_ROWS) * batch * heads;
    launch
        .buffer(log_sum)
        .words([batch, seq, heads])
        .run(forward_kernel(capability, head_size), [blocks, 1, 1]);
    attended
}

/// The derivative of [`forward`] by `qkv`, times `grad_output`, `[B, T, C]`.
pub fn backward(qkv: &Tensor, attended: &Attended, grad_output: &Tensor, heads: usize) -> Tensor {
    let head_size = head_size(qkv, heads);
    let [batch, seq, width] = qkv.shape().dims();
    let grad_qkv = empty(qkv, &[batch, seq, width], qkv.dtype);
    if let Some(wide) = Wide::of(qkv.dtype) {
        backward_wide(&wide, qkv, attended, grad_output, &grad_qkv, [heads, head_size]);
        return grad_qkv;
    }
    let padded = seq.next_multiple_of(TILE);
    let stats = empty(qkv, &[2 * batch * heads * padded + 1], DType::F32);
    let blocks = padded / TILE * batch * heads;
    let words = [batch, seq, heads];
    Launch::on(qkv)
        .buffers([&attended.out, grad_output, &attended.log_sum, &stats])
        .words(words)
        .run(delta_kernel(head_size), [blocks, 1, 1]);
    let capability = compute_capability(qkv);
    for kernel in backward_kernels(capability, head_size) {
        let launch = Launch::on(qkv);
        let (launch, grid) = if is_for_hopper(capability, head_size) {
            let launch = map(map(launch, qkv, 3 * heads), grad_output, heads);
            let launch = map(launch, &grad_qkv, 3 * heads).buffer(&stats);
            (launch, multiprocessors(qkv))
        } else {
            (launch.buffers([qkv, grad_output, &stats, &grad_qkv]), blocks)
        };
        launch.words(words).run(kernel, [grid, 1, 1]);
    }
    grad_qkv
}

fn backward_wide(
    wide: &Wide,
    qkv: &Tensor,
    attended: &Attended,
    grad_output: &Tensor,
    grad_qkv: &Tensor,
    [heads, head_size]: [usize; 2],
) {
    let [batch, seq, _] = qkv.shape().dims();
    let Attended { out, log_sum } = attended;
    let delta = empty(qkv, &[batch, heads, seq], DType::F32);
    let words = [batch, heads, seq];
    let grid = [batch * heads, seq.div_ceil(Wide::rows(1, head_size)), 1];
    Launch::on(qkv)
        .buffers([qkv, out, grad_output, log_sum, &delta, grad_qkv])
        .words(words)
        .run(wide.kernel(1, head_size), grid);
    Launch::on(qkv)
        .buffers([qkv, grad_output, log_sum, &delta, grad_qkv])
        .words(words)
        .run(wide.kernel(2, head_size), grid);
}

/// Passes `tensor`, `[B, T, slots · 64]`, in boxes of 64 rows of one head, to a kernel for Hopper.
fn map<'a>(launch: Launch<'a>, tensor: &Tensor, slots: usize) -> Launch<'a> {
    let [batch, seq, _] = tensor.shape().dims();
    launch.map(tensor, [batch, seq, slots, HOPPER_HEAD], [1, TILE, 1, HOPPER_HEAD])
}
