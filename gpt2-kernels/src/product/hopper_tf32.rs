//! `f32` products in TF32 by Hopper's warpgroup instructions.

use super::hopper::add_parts;
use super::{Epilogue, EpilogueKind, Layout, Sizes};
use crate::Tensor;
use crate::launch::{Kernel, Launch, Sources, empty, multiprocessors};
use burn::tensor::DType;

const SOURCES: Sources = Sources::new(&[
    include_str!("../cuda/common.cuh"),
    include_str!("../cuda/warp.cuh"),
    include_str!("../cuda/hopper.cuh"),
    include_str!("../cuda/gemm_hopper.cuh"),
    include_str!("../cuda/gemm_tf32.cu"),
]);

/// Rows of a tile, and what it sums over at a time.
const TILE_M: usize = 192;
const TILE_K: usize = 32;

/// How a product is cut up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    /// Whether the two warpgroups of a block share a tile, which then is twice as wide, or take tiles in turn.
    together: bool,
    /// Parts of the sum, each added up by itself.
    splits: usize,
}

impl Plan {
    /// The plan that should take the least time; the constants are fitted to an H100.
    fn of(layout: Layout, sizes: Sizes, multiprocessors: usize, may_split: bool) -> Self {
        const MOST_SPLITS: usize = 11;
        let most_splits = if may_split && layout != Layout::Nt {
            sizes.k.div_ceil(TILE_K).clamp(1, MOST_SPLITS)
        } else {
            1
        };
        let plans = Self::arrangements(layout)
            .flat_map(|together| (1..=most_splits).map(move |splits| Self { together, splits }));
        let best = plans.min_by(|a, b| {
            let cost = |plan: &Self| plan.microseconds(layout, sizes, multiprocessors);
            cost(a).total_cmp(&cost(b))
        });
        best.expect("each layout has one")
    }

    /// What `together` may be.
    fn arrangements(layout: Layout) -> impl Iterator<Item = bool> {
        let apart = (layout != Layout::Tn).then_some(false);
        let together = (layout != Layout::Nt).then_some(true);
        apart.into_iter().chain(together)
    }

    fn microseconds(&self, layout: Layout, sizes: Sizes, multiprocessors: usize) -> f64 {
        let waves = self.tiles(sizes).div_ceil(multiprocessors) as f64;
        let steps = sizes.k.div_ceil(TILE_K).div_ceil(self.splits) as f64;
        let product = match (self.together, layout) {
            (false, _) => 7.0 + waves * steps * 0.71,
            (true, Layout::Tn) => 3.0 + waves * (steps * 1.25 + 6.0),
            (true, _) => 3.0 + waves * (steps * 1.1 + 6.0),
        };
        if self.splits == 1 {
            return product;
        }
        product + 4.0 + ((2 * self.splits + 1) * sizes.m * sizes.n) as f64 / 1e6
    }

    fn tile_n(&self) -> usize {
        if self.together { 256 } else { 128 }
    }

    fn tiles(&self, sizes: Sizes) -> usize {
        sizes.m.div_ceil(TILE_M) * sizes.n.div_ceil(self.tile_n()) * self.splits
    }

    /// Of a block, in bytes: the operands' tiles and barriers.
    fn shared_memory(&self) -> usize {
        let stages = if self.together { 4 } else { 5 };
        1024 + stages * ((TILE_M + self.tile_n()) * 128 + 24)
    }
}

/// Rows of partial sums of columns that [`Epilogue::GeluGradient`] writes for a result of `rows` rows.
pub(super) fn sum_rows(rows: usize) -> usize {
    rows.div_ceil(TILE_M)
}

pub(super) fn run(layout: Layout, sizes: Sizes, operands: [&Tensor; 2], out: &Tensor, epilogue: &Epilogue) {
    let may_split = matches!(epilogue, Epilogue::Plain | Epilogue::Single { accumulate: false });
    let plan = Plan::of(layout, sizes, multiprocessors(out), may_split);
    if plan.splits == 1 {
        launch(layout, sizes, operands, out, epilogue, plan);
        return;
    }
    let parts = empty(out, &[plan.splits, sizes.m, sizes.n], DType::F32);
    launch(layout, sizes, operands, &parts, epilogue, plan);
    add_parts(&parts, plan.splits, out);
}

/// The kernel of a product that is cut up by `plan`.
fn kernel(layout: Layout, epilogue: EpilogueKind, plan: Plan) -> Kernel {
    let code = match epilogue {
        EpilogueKind::Plain | EpilogueKind::Single { accumulate: false } => 0,
        EpilogueKind::Bias => 1,
        EpilogueKind::Gelu => 2,
        EpilogueKind::Onto => 3,
        EpilogueKind::GeluGradient { .. } => 4,
        EpilogueKind::Single { accumulate: true } => 5,
    };
    let kernel = Kernel::new(SOURCES, "gemm_tf32", 384)
        .define("LAYOUT", layout.code())
        .define("EPILOGUE", code)
        .define("TOGETHER", plan.together.into())
        .shared_memory(plan.shared_memory());
    if epilogue == (EpilogueKind::GeluGradient { column_sums: true }) {
        return kernel.define("COLUMN_SUMS", 1);
    }
    kernel
}

/// Every kernel of a product, to be compiled by a test.
#[cfg(test)]
pub(super) fn kernels(layout: Layout, epilogue: EpilogueKind) -> Vec<Kernel> {
    Plan::arrangements(layout)
        .map(|together| kernel(layout, epilogue, Plan { together, splits: 1 }))
        .collect()
}

fn launch(layout: Layout, sizes: Sizes, [a, b]: [&Tensor; 2], out: &Tensor, epilogue: &Epilogue, plan: Plan) {
    let Sizes { m, n, k } = sizes;
    // An operand that an epilogue lacks may be any tensor.
    let (bias, extra, sums) = match epilogue {
        Epilogue::Plain | Epilogue::Single { .. } => (a, a, None),
        Epilogue::Bias(bias) => (*bias, a, None),
        Epilogue::Gelu { bias, activated } => (*bias, *activated, None),
        Epilogue::Onto { bias, residual } => (*bias, *residual, None),
        Epilogue::GeluGradient { inner, column_sums } => (a, *inner, *column_sums),
    };
    let kernel = kernel(layout, epilogue.kind(), plan);
    let launch = Launch::on(out);
    let launch = match layout {
        Layout::Tn => launch.map_strided(a, [m / 32, k, 32], [32, m, 1], [TILE_M / 32, TILE_K, 32]),
        _ => launch.map(a, [m, k], [TILE_M, TILE_K]),
    };
    let launch = match layout {
        // The order of rows in which a warpgroup's registers take them.
        Layout::Nt => launch.map_strided(
            b,
            [2, n / 32, 2, 8, k],
            [2 * k, 32 * k, k, 4 * k, 1],
            [2, 4, 2, 8, TILE_K],
        ),
        _ => launch.map_strided(b, [n / 32, k, 32], [32, n, 1], [plan.tile_n() / 32, TILE_K, 32]),
    };
    // Rows of tiles that are done together, so that their operands stay in the cache.
    let group = if n > 8192 { 4 } else { 8 };
    launch
        .buffers([out, bias, extra])
        .buffers(sums)
        .words([m, n, k.div_ceil(TILE_K), plan.splits, group])
        .run(kernel, [plan.tiles(sizes).min(multiprocessors(out)), 1, 1]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const H100: usize = 132;

    #[test]
    fn the_fastest_plans_that_were_measured_are_chosen() {
        // docs/lab-notes.md; for 8,192 tokens, and the head for 4,096.
        let plan = |layout, m, n, k, may_split| Plan::of(layout, Sizes { m, n, k }, H100, may_split);
        for (m, n, splits) in [(768, 2304, 3), (768, 768, 11), (768, 3072, 5), (3072, 768, 5)] {
            let found = plan(Layout::Tn, m, n, 8192, true);
            assert_eq!((found.together, found.splits), (true, splits), "{m} by {n}");
        }
        assert_eq!(plan(Layout::Tn, 50_304, 768, 4096, true).splits, 1);
        assert_eq!(plan(Layout::Nn, 4096, 768, 50_304, true).splits, 2);
        for (n, k) in [(2304, 768), (768, 768), (3072, 768), (768, 3072)] {
            assert!(plan(Layout::Nn, 8192, n, k, false).together, "{n}, {k}");
            let transposed = plan(Layout::Nt, 8192, k, n, true);
            assert_eq!((transposed.together, transposed.splits), (false, 1));
        }
        assert!(!plan(Layout::Nn, 4096, 768, 768, false).together);
    }

    #[test]
    fn a_block_has_the_memory_of_a_multiprocessor_at_most() {
        for together in [false, true] {
            assert!(Plan { together, splits: 1 }.shared_memory() <= 227 * 1024);
        }
    }
}
