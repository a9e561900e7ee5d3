//! `bf16` products by Hopper's warpgroup instructions.

use super::{Epilogue, EpilogueKind, Layout, Sizes};
use crate::Tensor;
use crate::launch::{Kernel, Launch, Sources, empty, multiprocessors};
use burn::tensor::{DType, TensorMetadata};

const SOURCES: Sources = Sources::new(&[
    include_str!("../cuda/common.cuh"),
    include_str!("../cuda/warp.cuh"),
    include_str!("../cuda/hopper.cuh"),
    include_str!("../cuda/gemm_hopper.cuh"),
    include_str!("../cuda/gemm.cu"),
]);
const SPLIT_SUM: Sources = Sources::new(&[
    include_str!("../cuda/common.cuh"),
    include_str!("../cuda/gemm_split_sum.cu"),
]);

/// Widths that the kernels take are multiples of this: a row of 128 bytes.
pub(super) const PANEL: usize = 64;

/// Rows of a tile, and what it sums over at a time.
const TILE_M: usize = 128;
const TILE_K: usize = 64;

/// Boxes of 64 rows of 128 bytes through which a warpgroup stores its part of the result, with and without sums of its
/// columns, which take memory too.
const BOXES: usize = 4;
const BOXES_WITH_SUMS: usize = 3;

/// Columns of a tile, tiles of operands on their way at once, and what a multiprocessor of an H100 does a second.
const SHAPES: [(usize, usize, f64); 2] = [(192, 4, 5.3e12), (128, 5, 4.9e12)];

/// How a product is cut up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    /// Columns of a tile.
    tile_n: usize,
    /// Tiles of operands that are on their way at once.
    stages: usize,
    /// Parts of the sum, each added up by itself.
    splits: usize,
}

impl Plan {
    /// The plan that should take the least time.
    fn of(sizes: Sizes, multiprocessors: usize, may_split: bool) -> Self {
        const BYTES_PER_SECOND: f64 = 2.5e12;
        const LAUNCH_SECONDS: f64 = 4e-6;
        let Sizes { m, n, k } = sizes;
        let most_splits = if may_split { (k / 512).clamp(1, 8) } else { 1 };
        let plans = SHAPES
            .iter()
            .flat_map(|shape| (1..=most_splits).map(move |splits| (shape, splits)));
        let cost = |&(tile_n, _, rate): &(usize, usize, f64), splits: usize| {
            let waves = (m.div_ceil(TILE_M) * n.div_ceil(tile_n) * splits).div_ceil(multiprocessors);
            let product = (waves * 2 * TILE_M * tile_n * k.div_ceil(splits)) as f64 / rate;
            if splits == 1 {
                return product;
            }
            // Each part is written and read, and their sum written.
            product + ((2 * splits + 1) * m * n * 4) as f64 / BYTES_PER_SECOND + LAUNCH_SECONDS
        };
        let best = plans.min_by(|a, b| cost(a.0, a.1).total_cmp(&cost(b.0, b.1)));
        let (&(tile_n, stages, _), splits) = best.expect("there is a shape");
        Self { tile_n, stages, splits }
    }

    fn tiles(&self, sizes: Sizes) -> usize {
        sizes.m.div_ceil(TILE_M) * sizes.n.div_ceil(self.tile_n) * self.splits
    }

    /// Of a block, in bytes: the operands' tiles, the boxes, and barriers.
    fn shared_memory(&self, with_sums: bool) -> usize {
        let operands = self.stages * (TILE_M + self.tile_n) * TILE_K * 2;
        let (boxes, sums) = if with_sums { (BOXES_WITH_SUMS, 4096) } else { (BOXES, 0) };
        1024 + operands + 16 * self.stages + boxes * (2 * 8192 + 32) + sums
    }
}

pub(super) fn run(layout: Layout, sizes: Sizes, operands: [&Tensor; 2], out: &Tensor, epilogue: &Epilogue) {
    let multiprocessors = multiprocessors(out);
    let may_split = matches!(epilogue, Epilogue::Single { accumulate: false });
    let plan = Plan::of(sizes, multiprocessors, may_split);
    if plan.splits == 1 {
        launch(layout, sizes, operands, out, epilogue, plan, multiprocessors);
        return;
    }
    let parts = empty(out, &[plan.splits, sizes.m, sizes.n], DType::F32);
    launch(layout, sizes, operands, &parts, epilogue, plan, multiprocessors);
    add_parts(&parts, plan.splits, out);
}

/// Writes the sum of `parts`, `splits` of the size of `out` one after the other, to `out`, all in `f32`.
pub(super) fn add_parts(parts: &Tensor, splits: usize, out: &Tensor) {
    let count = out.shape().num_elements();
    Launch::on(out)
        .buffers([parts, out])
        .words([count, splits])
        .run(split_sum_kernel(), [count.div_ceil(1024), 1, 1]);
}

fn split_sum_kernel() -> Kernel {
    Kernel::new(SPLIT_SUM, "gemm_split_sum", 256)
}

/// The kernel of a product that is cut up by `plan`.
fn kernel(layout: Layout, epilogue: EpilogueKind, plan: Plan) -> Kernel {
    let code = match epilogue {
        EpilogueKind::Plain | EpilogueKind::Bias => 0,
        EpilogueKind::Gelu => 1,
        EpilogueKind::Onto => 2,
        EpilogueKind::GeluGradient { .. } => 3,
        EpilogueKind::Single { .. } => 4,
    };
    let with_sums = epilogue == EpilogueKind::GeluGradient { column_sums: true };
    let kernel = Kernel::new(SOURCES, "gemm", 384)
        .define("LAYOUT", layout.code())
        .define("EPILOGUE", code)
        .define("TILE_N", plan.tile_n)
        .define("STAGES", plan.stages)
        .shared_memory(plan.shared_memory(with_sums));
    if with_sums {
        return kernel.define("COLUMN_SUMS", 1);
    }
    kernel
}

/// Every kernel of a product, to be compiled by a test.
#[cfg(test)]
pub(super) fn kernels(layout: Layout, epilogue: EpilogueKind) -> Vec<Kernel> {
    let product = |(tile_n, stages, _)| {
        let plan = Plan {
            tile_n,
            stages,
            splits: 1,
        };
        kernel(layout, epilogue, plan)
    };
    SHAPES.into_iter().map(product).chain([split_sum_kernel()]).collect()
}

/// Rows of partial sums of columns that [`Epilogue::GeluGradient`] writes for a result of `rows` rows.
pub(super) fn sum_rows(rows: usize) -> usize {
    rows.div_ceil(TILE_M)
}

fn launch(
    layout: Layout,
    sizes: Sizes,
    [a, b]: [&Tensor; 2],
    out: &Tensor,
    epilogue: &Epilogue,
    plan: Plan,
    multiprocessors: usize,
) {
    let Sizes { m, n, k } = sizes;
    let kernel = kernel(layout, epilogue.kind(), plan);
    let mut launch = Launch::on(out);
    launch = match layout {
        Layout::Tn => panels(launch, a, [k, m], [2, TILE_K]),
        _ => panels(launch, a, [m, k], [1, TILE_M]),
    };
    launch = match layout {
        Layout::Nt => panels(launch, b, [n, k], [1, plan.tile_n / 2]),
        _ => panels(launch, b, [k, n], [plan.tile_n / 64, TILE_K / 2]),
    };
    launch = match epilogue {
        Epilogue::Single { .. } => launch.map(out, [plan.splits, m, n], [1, 64, 32]),
        Epilogue::Onto { residual, .. } => launch.map(out, [m, n], [64, 32]).map(residual, [m, n], [64, 32]),
        Epilogue::Gelu { activated: extra, .. } | Epilogue::GeluGradient { inner: extra, .. } => {
            launch.map(out, [m, n], [64, 64]).map(extra, [m, n], [64, 64])
        }
        Epilogue::Plain | Epilogue::Bias(_) => launch.map(out, [m, n], [64, 64]),
    };
    let flag = match epilogue {
        Epilogue::Bias(bias) | Epilogue::Gelu { bias, .. } | Epilogue::Onto { bias, .. } => {
            launch = launch.buffer(bias);
            true
        }
        Epilogue::Plain => {
            launch = launch.buffer(a);
            false
        }
        Epilogue::GeluGradient { column_sums, .. } => {
            launch = launch.buffers(*column_sums);
            false
        }
        Epilogue::Single { accumulate } => *accumulate,
    };
    // Rows of tiles that are done together, so that their operands stay in the cache.
    let group = if n > 8192 { 32 } else { 8 };
    launch
        .words([m, n, k.div_ceil(TILE_K), plan.splits, group, flag.into()])
        .run(kernel, [plan.tiles(sizes).min(multiprocessors), 1, 1]);
}

/// Passes a matrix in panels of 64 columns, which are 128 bytes, some panels and rows at a time.
fn panels<'a>(
    launch: Launch<'a>,
    matrix: &Tensor,
    [rows, columns]: [usize; 2],
    [panels_at_once, rows_at_once]: [usize; 2],
) -> Launch<'a> {
    launch.map_strided(
        matrix,
        [columns.div_ceil(64), rows, 64],
        [64, columns, 1],
        [panels_at_once, rows_at_once, 64],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: usize = 132;

    #[test]
    fn the_fastest_plans_that_were_measured_are_chosen() {
        // docs/lab-notes.md; the derivatives by the weights, for 8,192 tokens.
        for (m, n, tile_n, splits) in [
            (768, 2304, 128, 1),
            (768, 768, 128, 3),
            (768, 3072, 192, 1),
            (3072, 768, 192, 1),
        ] {
            let plan = Plan::of(Sizes { m, n, k: 8192 }, H100, true);
            assert_eq!((plan.tile_n, plan.splits), (tile_n, splits), "{m} by {n}");
        }
        for n in [768, 2304, 3072, 50_304] {
            let plan = Plan::of(Sizes { m: 8192, n, k: 768 }, H100, false);
            assert_eq!((plan.tile_n, plan.splits), (192, 1), "{n}");
        }
    }

    #[test]
    fn a_block_has_the_memory_of_a_multiprocessor_at_most() {
        for (tile_n, stages) in [(192, 4), (128, 5)] {
            let plan = Plan {
                tile_n,
                stages,
                splits: 1,
            };
            assert!(plan.shared_memory(false).max(plan.shared_memory(true)) <= 227 * 1024);
        }
    }
}
