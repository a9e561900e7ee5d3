//! Products in square tiles, by a warp's instructions: `bf16` on the tensor cores that every GPU since Ampere has, and `f32` on
//! the CUDA cores or, rounded to TF32, on the tensor cores too. All take the same arguments.

use super::{Epilogue, Layout, Sizes};
use crate::Tensor;
use crate::launch::{Kernel, Launch, Sources, empty, multiprocessors};
use burn::tensor::DType;

/// Rows and columns of a tile.
const TILE: usize = 128;

/// A kernel, and what it asks of its caller.
pub(super) struct Family {
    sources: Sources,
    /// The product, and the sum of its parts.
    entries: [&'static str; 2],
    /// Of a block.
    threads: usize,
    /// Constants beside the tile, the layout and the epilogue.
    defines: &'static [(&'static str, usize)],
    shared_memory: usize,
    /// The least that a part sums over, and what divides it.
    part: usize,
    part_multiple: usize,
    /// Elements of a block that adds up parts.
    reduce_chunk: usize,
    /// The number by which the kernel knows an `f32` result with nothing after it, as the parts are.
    plain_f32: usize,
}

/// Columns of a warp of [`BF16`], and its tiles of operands that are on their way at once.
const WARP_N: usize = 64;
const STAGES: usize = 3;

/// `bf16` operands.
pub(super) const BF16: Family = Family {
    sources: Sources::new(&[include_str!("../cuda/gemm_portable.cu")]),
    entries: ["gemm_portable", "gemm_portable_reduce"],
    threads: TILE * TILE / (2 * WARP_N),
    defines: &[("WARP_N", WARP_N), ("STAGES", STAGES)],
    shared_memory: STAGES * 2 * TILE * 128,
    part: 1024,
    part_multiple: 64,
    reduce_chunk: 2048,
    plain_f32: 6,
};

/// `f32` operands, multiplied in TF32.
pub(super) const TF32: Family = Family {
    defines: &[("WARP_N", WARP_N), ("STAGES", STAGES), ("TF32", 1)],
    ..BF16
};

/// Columns of a thread of [`F32`].
const THREAD_N: usize = 16;

/// `f32` operands.
pub(super) const F32: Family = Family {
    sources: Sources::new(&[include_str!("../cuda/gemm_f32.cu")]),
    entries: ["gemm_f32", "gemm_f32_reduce"],
    threads: TILE * TILE / (8 * THREAD_N),
    defines: &[("THREAD_N", THREAD_N)],
    shared_memory: 0,
    part: 512,
    part_multiple: 8,
    reduce_chunk: 1024,
    plain_f32: 0,
};

impl Family {
    /// Parts of the sum, and what each but the last sums over. Too few tiles would leave multiprocessors idle.
    fn splits(&self, tiles: usize, k: usize, multiprocessors: usize) -> (usize, usize) {
        let splits = (2 * multiprocessors / tiles).clamp(1, k.div_ceil(self.part));
        let part = k.div_ceil(splits).next_multiple_of(self.part_multiple);
        (k.div_ceil(part), part)
    }

    fn kernel(&self, entry: &'static str, threads: usize) -> Kernel {
        let kernel = Kernel::new(self.sources, entry, threads);
        let defines = self.defines.iter();
        defines.fold(kernel, |kernel, &(name, value)| kernel.define(name, value))
    }

    pub(super) fn run(&self, layout: Layout, sizes: Sizes, [a, b]: [&Tensor; 2], out: &Tensor, epilogue: &Epilogue) {
        let Sizes { m, n, k } = sizes;
        let tiles = m.div_ceil(TILE) * n.div_ceil(TILE);
        let (splits, part) = self.splits(tiles, k, multiprocessors(out));
        // An operand that an epilogue lacks may be any tensor.
        let (code, bias, extra) = match epilogue {
            Epilogue::Plain => (0, out, out),
            Epilogue::Bias(bias) => (1, *bias, out),
            Epilogue::Gelu { bias, activated } => (2, *bias, *activated),
            Epilogue::Onto { bias, residual } => (3, *bias, *residual),
            Epilogue::GeluGradient { inner, .. } => (4, out, *inner),
            Epilogue::Single { accumulate: true } => (5, out, out),
            Epilogue::Single { accumulate: false } => (self.plain_f32, out, out),
        };
        let product = |code, to: &Tensor| {
            let kernel = self
                .kernel(self.entries[0], self.threads)
                .define("LAYOUT", layout.code())
                .define("EPILOGUE", code)
                .define("TILE_M", TILE)
                .define("TILE_N", TILE)
                .shared_memory(self.shared_memory);
            Launch::on(out)
                .buffers([a, b, to, bias, extra])
                .words([m, n, k, part])
                .run(kernel, [tiles, splits, 1]);
        };
        if splits == 1 {
            product(code, out);
            return;
        }
        let parts = empty(out, &[splits, m, n], DType::F32);
        product(self.plain_f32, &parts);
        let reduce = self
            .kernel(self.entries[1], 256)
            .define("REDUCE", 1)
            .define("EPILOGUE", code);
        Launch::on(out)
            .buffers([&parts, out, bias, extra])
            .words([m, n, splits, 0])
            .run(reduce, [(m * n).div_ceil(self.reduce_chunk), 1, 1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_sum() {
        for family in [BF16, TF32, F32] {
            for (tiles, k) in [(1, 7), (36, 8192), (36, 8200), (300, 50_304), (6, 1024)] {
                let (splits, part) = family.splits(tiles, k, 132);
                assert!((splits - 1) * part < k && k <= splits * part, "{tiles} tiles, {k}");
                assert!(part % family.part_multiple == 0, "{tiles} tiles, {k}");
            }
        }
    }
}
