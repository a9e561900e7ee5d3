//! `bf16` products by Hopper's warpgroup instructions.

use super::{Epilogue, Layout, Sizes};
use crate::Tensor;
use crate::launch::{Kernel, Launch, empty, multiprocessors};
use burn::tensor::DType;

const SOURCES: &[&str] = &[include_str!("../cuda/common.cuh"), include_str!("../cuda/gemm.cu")];
const SPLIT_SUM: &[&str] = &[include_str!("../cuda/gemm_split_sum.cu")];

/// Rows of a tile, and what it sums over at a time.
const TILE_M: usize = 128;
const TILE_K: usize = 64;

/// Blocks that share operands.
const CLUSTER: usize = 2;

/// Rows of tiles that are done together, so that their operands stay in the cache.
const GROUP: usize = 8;

/// How a product is cut up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    /// Columns of a tile.
    tile_n: usize,
    /// Parts of the sum, each added up by itself.
    splits: usize,
}

impl Plan {
    fn of(layout: Layout, sizes: Sizes, multiprocessors: usize, accumulates: bool) -> Self {
        let tile_n = 192;
        let tiles = sizes.m.div_ceil(TILE_M * CLUSTER) * sizes.n.div_ceil(tile_n);
        let clusters = multiprocessors / CLUSTER;
        let splits = if layout == Layout::Tn && !accumulates {
            (clusters / tiles).clamp(1, sizes.k.div_ceil(8 * TILE_K))
        } else {
            1
        };
        Self { tile_n, splits }
    }

    fn tiles(&self, sizes: Sizes) -> usize {
        sizes.m.div_ceil(TILE_M * CLUSTER) * sizes.n.div_ceil(self.tile_n) * self.splits
    }
}

pub(super) fn run(layout: Layout, sizes: Sizes, operands: [&Tensor; 2], out: &Tensor, epilogue: &Epilogue) {
    let accumulates = matches!(epilogue, Epilogue::Single { accumulate: true });
    let multiprocessors = multiprocessors(out);
    let plan = Plan::of(layout, sizes, multiprocessors, accumulates);
    if plan.splits == 1 {
        launch(layout, sizes, operands, out, epilogue, plan, multiprocessors);
        return;
    }
    let Sizes { m, n, .. } = sizes;
    let parts = empty(out, &[plan.splits, m, n], DType::F32);
    launch(layout, sizes, operands, &parts, epilogue, plan, multiprocessors);
    Launch::on(out)
        .buffers([&parts, out])
        .words([m * n, plan.splits, 0])
        .run(
            Kernel::new(SPLIT_SUM, "gemm_split_sum", 256),
            [(m * n).div_ceil(1024), 1, 1],
        );
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
    let (code, stages) = match epilogue {
        Epilogue::Plain | Epilogue::Bias(_) => (0, 4),
        Epilogue::Gelu { .. } => (1, 4),
        Epilogue::Onto { .. } => (2, 4),
        Epilogue::GeluGradient { .. } => (3, 4),
        Epilogue::Single { .. } => (4, 4),
    };
    let shared_memory = 1024 + stages * (TILE_M * TILE_K * 2 + plan.tile_n * TILE_K * 2) + 8 * 8192 + 16 * stages + 128;
    let kernel = Kernel::new(SOURCES, "gemm", 384)
        .define("LAYOUT", layout.code())
        .define("EPILOGUE", code)
        .define("TILE_N", plan.tile_n)
        .define("CLUSTER", CLUSTER)
        .define("PINGPONG", 1)
        .define("STAGES", stages)
        .shared_memory(shared_memory);

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
        Epilogue::Single { .. } => launch.map(out, &[plan.splits, m, n], &[1, 64, 32]),
        Epilogue::Onto { residual, .. } => launch.map(out, &[m, n], &[64, 32]).map(residual, &[m, n], &[64, 32]),
        Epilogue::Gelu { activated: extra, .. } | Epilogue::GeluGradient { inner: extra } => {
            launch.map(out, &[m, n], &[64, 64]).map(extra, &[m, n], &[64, 64])
        }
        Epilogue::Plain | Epilogue::Bias(_) => launch.map(out, &[m, n], &[64, 64]),
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
        Epilogue::GeluGradient { .. } => false,
        Epilogue::Single { accumulate } => *accumulate,
    };
    let clusters = plan.tiles(sizes).min(multiprocessors / CLUSTER);
    launch
        .words([m, n, k.div_ceil(TILE_K), plan.splits, GROUP, flag.into()])
        .run(kernel, [CLUSTER * clusters, 1, 1]);
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
        &[columns.div_ceil(64), rows, 64],
        &[64, columns, 1],
        &[panels_at_once, rows_at_once, 64],
    )
}
