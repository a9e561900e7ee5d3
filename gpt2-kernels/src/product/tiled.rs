//! Products in square tiles, by a warp's instructions: `bf16` on the tensor cores that every GPU since Ampere has, and `f32` on
//! the CUDA cores or, rounded to TF32, on the tensor cores too. All take the same arguments.

use super::{Epilogue, EpilogueKind, Layout, Sizes};
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
    /// Blocks that a multiprocessor holds, and what one of them does a second; measured on an H100.
    blocks: usize,
    flops: f64,
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
    sources: Sources::new(&[
        include_str!("../cuda/common.cuh"),
        include_str!("../cuda/warp.cuh"),
        include_str!("../cuda/gemm_tiled.cuh"),
        include_str!("../cuda/gemm_portable.cu"),
    ]),
    entries: ["gemm_portable", "gemm_portable_reduce"],
    threads: TILE * TILE / (2 * WARP_N),
    defines: &[("WARP_N", WARP_N), ("STAGES", STAGES)],
    shared_memory: STAGES * 2 * TILE * 128,
    blocks: 2,
    flops: 1.5e12,
    part: 512,
    part_multiple: 64,
    reduce_chunk: 2048,
    plain_f32: 6,
};

/// `f32` operands, multiplied in TF32.
pub(super) const TF32: Family = Family {
    defines: &[("WARP_N", WARP_N), ("STAGES", STAGES), ("TF32", 1)],
    flops: 0.75e12,
    ..BF16
};

/// `f32` operands in full, by three products in TF32.
pub(super) const SPLIT: Family = Family {
    threads: TILE * TILE / (2 * SPLIT_WARP_N),
    defines: &[("WARP_N", SPLIT_WARP_N), ("STAGES", STAGES), ("TF32", 3)],
    blocks: 1,
    flops: 0.5e12,
    ..BF16
};

/// Columns of a warp of [`SPLIT`], which has twice the sums to hold.
const SPLIT_WARP_N: usize = 32;

/// Columns of a thread of [`F32`].
const THREAD_N: usize = 16;

/// `f32` operands.
pub(super) const F32: Family = Family {
    sources: Sources::new(&[
        include_str!("../cuda/common.cuh"),
        include_str!("../cuda/warp.cuh"),
        include_str!("../cuda/gemm_tiled.cuh"),
        include_str!("../cuda/gemm_f32.cu"),
    ]),
    entries: ["gemm_f32", "gemm_f32_reduce"],
    threads: TILE * TILE / (8 * THREAD_N),
    defines: &[("THREAD_N", THREAD_N)],
    shared_memory: 0,
    blocks: 2,
    flops: 0.17e12,
    part: 512,
    part_multiple: 8,
    reduce_chunk: 1024,
    plain_f32: 0,
};

impl Family {
    /// Parts of the sum, and what each but the last sums over, so that the product should take the least time: too few tiles,
    /// or a few too many, leave multiprocessors idle.
    fn splits(&self, Sizes { m, n, k }: Sizes, multiprocessors: usize) -> (usize, usize) {
        const MOST: usize = 16;
        const BYTES_PER_SECOND: f64 = 2.5e12;
        let tiles = m.div_ceil(TILE) * n.div_ceil(TILE);
        let part = |splits: usize| k.div_ceil(splits).next_multiple_of(self.part_multiple);
        let seconds = |&splits: &usize| {
            let waves = (tiles * splits).div_ceil(self.blocks * multiprocessors);
            let product = (waves * 2 * TILE * TILE * part(splits)) as f64 / self.flops;
            let parts = if splits == 1 { 0 } else { 2 * splits + 1 };
            product + (parts * m * n * 4) as f64 / BYTES_PER_SECOND
        };
        let most = k.div_ceil(self.part).clamp(1, MOST);
        let best = (1..=most).min_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        let part = part(best.expect("there is one at least"));
        (k.div_ceil(part), part)
    }

    fn kernel(&self, entry: &'static str, threads: usize) -> Kernel {
        let kernel = Kernel::new(self.sources, entry, threads);
        let defines = self.defines.iter();
        defines.fold(kernel, |kernel, &(name, value)| kernel.define(name, value))
    }

    /// The number by which the kernels know an epilogue.
    fn code(&self, epilogue: EpilogueKind) -> usize {
        match epilogue {
            EpilogueKind::Plain => 0,
            EpilogueKind::Bias => 1,
            EpilogueKind::Gelu => 2,
            EpilogueKind::Onto => 3,
            EpilogueKind::GeluGradient { .. } => 4,
            EpilogueKind::Single { accumulate: true } => 5,
            EpilogueKind::Single { accumulate: false } => self.plain_f32,
        }
    }

    fn product_kernel(&self, layout: Layout, code: usize) -> Kernel {
        self.kernel(self.entries[0], self.threads)
            .define("LAYOUT", layout.code())
            .define("EPILOGUE", code)
            .define("TILE_M", TILE)
            .define("TILE_N", TILE)
            .shared_memory(self.shared_memory)
    }

    /// The kernel that adds up the parts of a product.
    fn reduce_kernel(&self, code: usize) -> Kernel {
        self.kernel(self.entries[1], 256)
            .define("REDUCE", 1)
            .define("EPILOGUE", code)
    }

    /// Every kernel of a product, to be compiled by a test.
    #[cfg(test)]
    pub(super) fn kernels(&self, layout: Layout, epilogue: EpilogueKind) -> Vec<Kernel> {
        let code = self.code(epilogue);
        vec![
            self.product_kernel(layout, code),
            self.product_kernel(layout, self.plain_f32),
            self.reduce_kernel(code),
        ]
    }

    pub(super) fn run(&self, layout: Layout, sizes: Sizes, [a, b]: [&Tensor; 2], out: &Tensor, epilogue: &Epilogue) {
        let Sizes { m, n, k } = sizes;
        let tiles = m.div_ceil(TILE) * n.div_ceil(TILE);
        let (splits, part) = self.splits(sizes, multiprocessors(out));
        // An operand that an epilogue lacks may be any tensor.
        let (bias, extra) = match epilogue {
            Epilogue::Plain | Epilogue::Single { .. } => (out, out),
            Epilogue::Bias(bias) => (*bias, out),
            Epilogue::Gelu { bias, activated } => (*bias, *activated),
            Epilogue::Onto { bias, residual } => (*bias, *residual),
            Epilogue::GeluGradient { inner, .. } => (out, *inner),
        };
        let code = self.code(epilogue.kind());
        let product = |code, to: &Tensor| {
            Launch::on(out)
                .buffers([a, b, to, bias, extra])
                .words([m, n, k, part])
                .run(self.product_kernel(layout, code), [tiles, splits, 1]);
        };
        if splits == 1 {
            product(code, out);
            return;
        }
        let parts = empty(out, &[splits, m, n], DType::F32);
        product(self.plain_f32, &parts);
        Launch::on(out)
            .buffers([&parts, out, bias, extra])
            .words([m, n, splits, 0])
            .run(self.reduce_kernel(code), [(m * n).div_ceil(self.reduce_chunk), 1, 1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_that_is_nearly_empty_is_avoided() {
        // 144 tiles on 132 multiprocessors.
        let sizes = Sizes {
            m: 3072,
            n: 768,
            k: 8192,
        };
        assert!(SPLIT.splits(sizes, 132).0 > 1);
        assert_eq!(SPLIT.splits(Sizes { m: 50_304, ..sizes }, 132).0, 1);
    }

    #[test]
    fn parts_cover_the_sum() {
        for family in [BF16, TF32, SPLIT, F32] {
            for (m, n, k) in [(5, 64, 7), (768, 768, 8192), (768, 768, 8200), (2048, 768, 50_304)] {
                let (splits, part) = family.splits(Sizes { m, n, k }, 132);
                assert!((splits - 1) * part < k && k <= splits * part, "{m} by {n}, {k}");
                assert!(part % family.part_multiple == 0, "{m} by {n}, {k}");
            }
        }
    }
}
