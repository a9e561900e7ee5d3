//! `f32` products on the CUDA cores.

use super::{Epilogue, Layout, Sizes};
use crate::Tensor;
use crate::launch::{Kernel, Launch, Sources, empty, multiprocessors};
use burn::tensor::DType;

const SOURCES: Sources = Sources::new(&[include_str!("../cuda/gemm_f32.cu")]);

/// Rows and columns of a tile, and columns of a thread.
const TILE: usize = 128;
const THREAD_N: usize = 16;

/// Elements of a block of the kernel that adds up parts.
const REDUCE_CHUNK: usize = 1024;

pub(super) fn run(layout: Layout, sizes: Sizes, [a, b]: [&Tensor; 2], out: &Tensor, epilogue: &Epilogue) {
    let Sizes { m, n, k } = sizes;
    let tiles = m.div_ceil(TILE) * n.div_ceil(TILE);
    // Too few tiles leave multiprocessors idle; the sum is cut then, in parts of at least 512.
    let splits = (2 * multiprocessors(out) / tiles).clamp(1, k.div_ceil(512));
    let k_split = k.div_ceil(splits).next_multiple_of(8);
    let splits = k.div_ceil(k_split);
    let (code, bias, extra) = match epilogue {
        Epilogue::Plain | Epilogue::Single { accumulate: false } => (0, out, out),
        Epilogue::Bias(bias) => (1, *bias, out),
        Epilogue::Gelu { bias, activated } => (2, *bias, *activated),
        Epilogue::Onto { bias, residual } => (3, *bias, *residual),
        Epilogue::GeluGradient { inner, .. } => (4, out, *inner),
        Epilogue::Single { accumulate: true } => (5, out, out),
    };
    let kernel = |code| {
        Kernel::new(SOURCES, "gemm_f32", TILE * TILE / (8 * THREAD_N))
            .define("LAYOUT", layout.code())
            .define("EPILOGUE", code)
            .define("TILE_M", TILE)
            .define("TILE_N", TILE)
            .define("THREAD_N", THREAD_N)
    };
    let words = [m, n, k, k_split];
    if splits == 1 {
        Launch::on(out)
            .buffers([a, b, out, bias, extra])
            .words(words)
            .run(kernel(code), [tiles, 1, 1]);
        return;
    }
    let parts = empty(out, &[splits, m, n], DType::F32);
    Launch::on(out)
        .buffers([a, b, &parts, bias, extra])
        .words(words)
        .run(kernel(0), [tiles, splits, 1]);
    let reduce = Kernel::new(SOURCES, "gemm_f32_reduce", 256)
        .define("REDUCE", 1)
        .define("EPILOGUE", code);
    Launch::on(out)
        .buffers([&parts, out, bias, extra])
        .words([m, n, splits, 0])
        .run(reduce, [(m * n).div_ceil(REDUCE_CHUNK), 1, 1]);
}
