//! Causal attention of heads of 64 channels, of which nothing as large as the matrix of scores is ever in memory.
//!
//! `bf16` on Hopper goes through warpgroup products and the tensor memory accelerator, on other GPUs through the products of a
//! warp; `f32` through the CUDA cores, in single precision throughout, or, as an operand in TF32, through the products of a warp.

use crate::launch::{ComputeCapability, Kernel, Launch, Sources, compute_capability, empty, multiprocessors};
use crate::{HEAD_SIZE, Tensor};
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

/// Queries of a block of the forward kernels.
const BLOCK_ROWS: usize = 128;

/// Rows of a tile.
const TILE: usize = 64;

/// Dynamic shared memory in bytes: of the Hopper kernels,
const HOPPER_FORWARD: usize = BLOCK_ROWS * 128 + 5 * 2 * 8192 + 128 + 1024;
const HOPPER_BACKWARD: usize = (8 + 6 * 2 + 4) * 8192 + 6 * 2 * TILE * 4 + 256 + 1024;
/// of the portable ones,
const PORTABLE_FORWARD: usize = (128 + 4 * 64) * HEAD_SIZE * 2;
const PORTABLE_QUERIES: usize = 6 * 64 * HEAD_SIZE * 2;
const PORTABLE_KEYS: usize = PORTABLE_QUERIES + 1024;

/// Kernels whose tensors are all `f32` in memory.
struct Wide {
    sources: Sources,
    /// Forward, backward to the queries, backward to the keys and values.
    entries: [&'static str; 3],
    /// Dynamic shared memory of each, in bytes.
    shared_memory: [usize; 3],
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
    shared_memory: [
        4 * (256 * HEAD_SIZE + 8192),
        4 * (256 * HEAD_SIZE + 4096),
        4 * (256 * HEAD_SIZE + 4096),
    ],
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
    shared_memory: [6 * TILE * 256, 6 * TILE * 256 + 256, 6 * TILE * 256 + 1024],
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

    fn kernel(&self, pass: usize) -> Kernel {
        Kernel::new(self.sources, self.entries[pass], 128)
            .define("HEAD_SIZE", HEAD_SIZE)
            .define("PASS", pass)
            .shared_memory(self.shared_memory[pass])
    }
}

fn delta_kernel() -> Kernel {
    Kernel::new(DELTA, "attention_delta", 256).define("HEAD_SIZE", HEAD_SIZE)
}

/// The forward kernel for `bf16`.
fn forward_kernel(capability: ComputeCapability) -> Kernel {
    let (sources, shared_memory) = if capability.has_wgmma() {
        (HOPPER, HOPPER_FORWARD)
    } else {
        (PORTABLE, PORTABLE_FORWARD)
    };
    Kernel::new(sources, "attention_forward", 256)
        .define("HEAD_SIZE", HEAD_SIZE)
        .shared_memory(shared_memory)
}

/// The backward kernels for `bf16`, in the order of their launches.
fn backward_kernels(capability: ComputeCapability) -> Vec<Kernel> {
    let kernels: &[(Sources, &'static str, usize, usize)] = if capability.has_wgmma() {
        &[(HOPPER, "attention_backward", 384, HOPPER_BACKWARD)]
    } else {
        &[
            (PORTABLE, "attention_backward_keys", 128, PORTABLE_KEYS),
            (PORTABLE, "attention_backward_queries", 128, PORTABLE_QUERIES),
        ]
    };
    let kernel = |&(sources, entry, threads, shared_memory): &(Sources, &'static str, usize, usize)| {
        Kernel::new(sources, entry, threads)
            .define("HEAD_SIZE", HEAD_SIZE)
            .shared_memory(shared_memory)
    };
    kernels.iter().map(kernel).collect()
}

/// Every kernel of this file for a device, to be compiled by a test.
#[cfg(test)]
pub(crate) fn kernels(capability: ComputeCapability) -> Vec<Kernel> {
    let mut kernels = backward_kernels(capability);
    kernels.extend([delta_kernel(), forward_kernel(capability)]);
    kernels.extend(
        [SINGLE, TF32]
            .iter()
            .flat_map(|wide| (0..3).map(|pass| wide.kernel(pass))),
    );
    kernels
}

/// What attention gives.
#[derive(Debug, Clone)]
pub struct Attended {
    /// The mixed values, `[B, T, C]`.
    pub out: Tensor,
    /// Logarithms of the sums of the exponentials of the scores, `[B, H, T]`, `f32`.
    pub log_sum: Tensor,
}

/// Attention of `heads` heads: `qkv` is `[B, T, 3C]` in `bf16` or `f32`.
pub fn forward(qkv: &Tensor, heads: usize) -> Attended {
    let [batch, seq, _] = qkv.shape().dims();
    let attended = Attended {
        out: empty(qkv, &[batch, seq, heads * HEAD_SIZE], qkv.dtype),
        log_sum: empty(qkv, &[batch, heads, seq], DType::F32),
    };
    let Attended { out, log_sum } = &attended;
    let blocks = seq.div_ceil(BLOCK_ROWS);
    if let Some(wide) = Wide::of(qkv.dtype) {
        Launch::on(qkv)
            .buffers([qkv, out, log_sum])
            .words([batch, heads, seq])
            .run(wide.kernel(0), [batch * heads, blocks, 1]);
        return attended;
    }
    let capability = compute_capability(qkv);
    let launch = if capability.has_wgmma() {
        map(map(Launch::on(qkv), qkv, 3 * heads), out, heads)
    } else {
        Launch::on(qkv).buffers([qkv, out])
    };
    launch
        .buffer(log_sum)
        .words([batch, seq, heads])
        .run(forward_kernel(capability), [blocks * batch * heads, 1, 1]);
    attended
}

/// The derivative of [`forward`] by `qkv`, times `upstream`, `[B, T, C]`.
pub fn backward(qkv: &Tensor, attended: &Attended, upstream: &Tensor, heads: usize) -> Tensor {
    let [batch, seq, width] = qkv.shape().dims();
    let by_qkv = empty(qkv, &[batch, seq, width], qkv.dtype);
    if let Some(wide) = Wide::of(qkv.dtype) {
        backward_wide(&wide, qkv, attended, upstream, &by_qkv, heads);
        return by_qkv;
    }
    let padded = seq.next_multiple_of(TILE);
    let stats = empty(qkv, &[2 * batch * heads * padded + 1], DType::F32);
    let blocks = padded / TILE * batch * heads;
    let words = [batch, seq, heads];
    Launch::on(qkv)
        .buffers([&attended.out, upstream, &attended.log_sum, &stats])
        .words(words)
        .run(delta_kernel(), [blocks, 1, 1]);
    let capability = compute_capability(qkv);
    for kernel in backward_kernels(capability) {
        let launch = Launch::on(qkv);
        let (launch, grid) = if capability.has_wgmma() {
            let launch = map(map(launch, qkv, 3 * heads), upstream, heads);
            let launch = map(launch, &by_qkv, 3 * heads).buffer(&stats);
            (launch, multiprocessors(qkv))
        } else {
            (launch.buffers([qkv, upstream, &stats, &by_qkv]), blocks)
        };
        launch.words(words).run(kernel, [grid, 1, 1]);
    }
    by_qkv
}

fn backward_wide(wide: &Wide, qkv: &Tensor, attended: &Attended, upstream: &Tensor, by_qkv: &Tensor, heads: usize) {
    let [batch, seq, _] = qkv.shape().dims();
    let Attended { out, log_sum } = attended;
    let delta = empty(qkv, &[batch, heads, seq], DType::F32);
    let (words, grid) = ([batch, heads, seq], [batch * heads, seq.div_ceil(TILE), 1]);
    Launch::on(qkv)
        .buffers([qkv, out, upstream, log_sum, &delta, by_qkv])
        .words(words)
        .run(wide.kernel(1), grid);
    Launch::on(qkv)
        .buffers([qkv, upstream, log_sum, &delta, by_qkv])
        .words(words)
        .run(wide.kernel(2), grid);
}

/// Passes `tensor`, `[B, T, slots · 64]`, in boxes of 64 rows of one head.
fn map<'a>(launch: Launch<'a>, tensor: &Tensor, slots: usize) -> Launch<'a> {
    let [batch, seq, _] = tensor.shape().dims();
    launch.map(tensor, [batch, seq, slots, HEAD_SIZE], [1, TILE, 1, HEAD_SIZE])
}
