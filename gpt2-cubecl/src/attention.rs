//! Causal attention from the packed query, key and value, tile by tile (Dao et al. 2022), forward and backward.
//!
//! Every product of matrices goes through two tiles in shared memory. Each unit of a cube computes a block of
//! `Plan::rows` by four of a tile's scores and keeps its share of the results in registers, so that the whole of
//! the scores is never in memory. The weights of the backward pass are computed anew, and no two cubes write to one
//! place, so that the same input gives the same bits.

use crate::Tensor;
use crate::launch::{UNITS, array, cubes, empty, empty_of};
use burn::tensor::TensorMetadata;
use burn_cubecl::CubeRuntime;
use cubecl::prelude::*;

/// Four numbers that are read and written at once.
type Four = Vector<f32, Const<4>>;

/// How many numbers that is.
const FOUR: usize = crate::LANES;

/// A tile, or the weights of one, in shared memory.
type Shared = SharedMemory<Four>;

/// What a masked score is: WGSL has no infinity.
const MASKED: f32 = -1e30;

/// Units down a cube.
const DOWN: usize = 8;

/// Channels of the widest head that is taken.
pub const WIDEST_HEAD: usize = 128;

/// How a cube shares out its tiles; known when a kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Plan {
    /// Queries, and keys, of a tile.
    tile: usize,
    /// Rows of a tile's scores to a unit, which has four columns of them.
    rows: usize,
    /// Units across a cube.
    across: usize,
    /// Fours of a head's channels.
    wide: usize,
    /// Fours of a row's channels to a unit.
    fours: usize,
    /// Fours of a tile in shared memory, where either a head's channels or the weights have room.
    room: usize,
}

impl Plan {
    /// For heads of `head` channels: two tiles fill 32 KiB at most.
    fn new(head: usize) -> Self {
        let tile = if head <= 64 { 64 } else { 32 };
        let (across, wide) = (tile / FOUR, head / FOUR);
        Self {
            tile,
            rows: tile / DOWN,
            across,
            wide,
            fours: wide.div_ceil(across),
            room: tile * wide.max(across),
        }
    }

    fn dim(self) -> CubeDim {
        CubeDim::new_2d(self.across as u32, DOWN as u32)
    }

    /// What the scores are multiplied by.
    fn scale(self) -> f32 {
        1.0 / ((FOUR * self.wide) as f32).sqrt()
    }
}

/// Where one head's rows are in a tensor, in fours.
#[derive(CubeType, Clone, Copy)]
struct Rows {
    start: usize,
    stride: usize,
    tokens: usize,
}

/// The head's rows in the packed tensor: its queries (`part` 0), keys (1) or values (2).
#[cube]
fn packed(pair: usize, tokens: usize, heads: usize, #[comptime] part: usize, #[comptime] plan: Plan) -> Rows {
    let stride = 3 * heads * plan.wide;
    let start = pair / heads * tokens * stride + (part * heads + pair % heads) * plan.wide;
    Rows { start, stride, tokens }
}

/// The head's rows in a tensor of the width of the output.
#[cube]
fn single(pair: usize, tokens: usize, heads: usize, #[comptime] plan: Plan) -> Rows {
    let stride = heads * plan.wide;
    Rows {
        start: pair / heads * tokens * stride + pair % heads * plan.wide,
        stride,
        tokens,
    }
}

/// Where a column's fours of four rows of a tile start; they are a row's width apart. Columns change places from four
/// rows to four rows, so that units that read one column of different rows find it in different banks.
#[cube]
fn place(four_rows: usize, column: usize, #[comptime] plan: Plan) -> usize {
    if comptime!(plan.wide.is_multiple_of(8)) {
        four_rows * (FOUR * plan.wide) + (column ^ (four_rows % 8))
    } else {
        four_rows * (FOUR * plan.wide) + column
    }
}

/// Where a head's rows are: of the packed tensor, and of one of the output's width.
#[derive(CubeType, Clone, Copy)]
struct Head {
    queries: Rows,
    keys: Rows,
    values: Rows,
    out: Rows,
}

#[cube]
fn head(pair: usize, tokens: usize, heads: usize, #[comptime] plan: Plan) -> Head {
    Head {
        queries: packed(pair, tokens, heads, 0usize, plan),
        keys: packed(pair, tokens, heads, 1usize, plan),
        values: packed(pair, tokens, heads, 2usize, plan),
        out: single(pair, tokens, heads, plan),
    }
}

/// Reads the tile whose first row is `first`; rows past the last token are 0.
#[cube]
fn load(tile: &mut Shared, from: &Array<Four>, rows: Rows, first: usize, #[comptime] plan: Plan) {
    let (all, units) = comptime!((plan.tile * plan.wide, plan.across * DOWN));
    #[unroll]
    for n in 0..all.div_ceil(units) {
        let i = UNIT_POS as usize + n * units;
        if comptime!(all.is_multiple_of(units)) || i < all {
            let (row, column) = (i / plan.wide, i % plan.wide);
            let token = first + row;
            let at = rows.start + min(token, rows.tokens - 1) * rows.stride + column;
            tile[place(row / FOUR, column, plan) + row % FOUR * plan.wide] =
                select(token < rows.tokens, from[at], Four::new(0.0));
        }
    }
}

/// Writes the unit's share of a tile, times `factor`, leaving out what is past the last token.
#[cube]
fn store(sums: &Array<Four>, factor: f32, to: &mut Array<Four>, rows: Rows, first: usize, #[comptime] plan: Plan) {
    #[unroll]
    for r in 0..plan.rows {
        let token = first + UNIT_POS_Y as usize * plan.rows + r;
        #[unroll]
        for i in 0..plan.fours {
            let column = UNIT_POS_X as usize + i * plan.across;
            if token < rows.tokens && column < plan.wide {
                to[rows.start + token * rows.stride + column] = sums[r * plan.fours + i] * Four::new(factor);
            }
        }
    }
}

/// An array of zeros.
#[cube]
fn zeros(#[comptime] plan: Plan) -> Array<Four> {
    let mut sums = Array::<Four>::new(comptime!(plan.rows * plan.fours));
    #[unroll]
    for i in 0..plan.rows * plan.fours {
        sums[i] = Four::new(0.0);
    }
    sums
}

/// The unit's block of the dot products of the rows of `a` with those of `b`.
#[cube]
fn products(a: Shared, b: Shared, out: &mut Array<f32>, #[comptime] plan: Plan) {
    let (x, y) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    #[unroll]
    for i in 0..plan.rows * FOUR {
        out[i] = 0.0;
    }
    for column in 0..plan.wide {
        let mut right = Array::<Four>::new(FOUR);
        let start = place(x, column, plan);
        #[unroll]
        for j in 0..FOUR {
            right[j] = b[start + j * plan.wide];
        }
        #[unroll]
        for block in 0..plan.rows / FOUR {
            let start = place(y * (plan.rows / FOUR) + block, column, plan);
            #[unroll]
            for r in 0..FOUR {
                let left = a[start + r * plan.wide];
                #[unroll]
                for e in 0..FOUR {
                    #[unroll]
                    for j in 0..FOUR {
                        let four = right[j];
                        let i = (block * FOUR + r) * FOUR + j;
                        out[i] = fma(left[e], four[e], out[i]);
                    }
                }
            }
        }
    }
}

/// Puts the unit's block of weights into shared memory, row by row.
#[cube]
fn share(weights: &Array<f32>, tile: &mut Shared, #[comptime] plan: Plan) {
    #[unroll]
    for r in 0..plan.rows {
        let mut four = Four::empty();
        #[unroll]
        for j in 0..FOUR {
            four[j] = weights[r * FOUR + j];
        }
        tile[(UNIT_POS_Y as usize * plan.rows + r) * plan.across + UNIT_POS_X as usize] = four;
    }
}

/// Adds to the unit's `sums` the rows of `tile`, by the `weights` that [`share`] put there.
#[cube]
fn add_weighted(weights: Shared, tile: Shared, sums: &mut Array<Four>, #[comptime] plan: Plan) {
    for k in 0..plan.across {
        let mut values = Array::<Four>::new(comptime!(FOUR * plan.fours));
        #[unroll]
        for i in 0..plan.fours {
            // Past the last channel a unit repeats it, and does not store what comes of that.
            let start = place(k, min(UNIT_POS_X as usize + i * plan.across, plan.wide - 1), plan);
            #[unroll]
            for e in 0..FOUR {
                values[i * FOUR + e] = tile[start + e * plan.wide];
            }
        }
        let start = UNIT_POS_Y as usize * (plan.rows * plan.across) + k;
        #[unroll]
        for r in 0..plan.rows {
            let weight = weights[start + r * plan.across];
            #[unroll]
            for i in 0..plan.fours {
                #[unroll]
                for e in 0..FOUR {
                    sums[r * plan.fours + i] =
                        fma(Four::new(weight[e]), values[i * FOUR + e], sums[r * plan.fours + i]);
                }
            }
        }
    }
}

/// Multiplies each row of `sums` by its factor.
#[cube]
fn rescale(sums: &mut Array<Four>, factors: &Array<f32>, #[comptime] plan: Plan) {
    #[unroll]
    for r in 0..plan.rows {
        #[unroll]
        for i in 0..plan.fours {
            sums[r * plan.fours + i] *= Four::new(factors[r]);
        }
    }
}

/// Makes each row's value the largest, or else the sum, of those of all units of that row. Takes shared memory that
/// nobody is reading any more, and that is free again after the next barrier.
#[cube]
fn fold(values: &mut Array<f32>, space: &mut Shared, #[comptime] largest: bool, #[comptime] plan: Plan) {
    let packs = comptime!(plan.rows / FOUR);
    #[unroll]
    for i in 0..packs {
        let mut pack = Four::empty();
        #[unroll]
        for e in 0..FOUR {
            pack[e] = values[i * FOUR + e];
        }
        space[UNIT_POS as usize * packs + i] = pack;
    }
    sync_cube();
    let first = UNIT_POS_Y as usize * plan.across;
    #[unroll]
    for i in 0..packs {
        let mut folded = space[first * packs + i];
        #[unroll]
        for unit in 1..plan.across {
            let other = space[(first + unit) * packs + i];
            if comptime!(largest) {
                folded = max(folded, other);
            } else {
                folded += other;
            }
        }
        #[unroll]
        for e in 0..FOUR {
            values[i * FOUR + e] = folded[e];
        }
    }
}

/// One cube for each tile of queries of each head, those with the most keys first.
#[cube(launch_unchecked)]
fn forward_kernel(
    qkv: &Array<Four>,
    out: &mut Array<Four>,
    log_sum: &mut Array<f32>,
    pairs: usize,
    heads: usize,
    tokens: usize,
    #[comptime] plan: Plan,
) {
    let (pair, tiles) = (CUBE_POS % pairs, tokens.div_ceil(plan.tile));
    if CUBE_POS >= tiles * pairs {
        terminate!();
    }
    let tile = tiles - 1 - CUBE_POS / pairs;
    let first = tile * plan.tile;
    let head = head(pair, tokens, heads, plan);
    let scale = comptime!(plan.scale()).runtime();

    let (mut a, mut b) = (Shared::new(plan.room), Shared::new(plan.room));
    let mut weights = Array::<f32>::new(comptime!(plan.rows * FOUR));
    // Of each row: the largest score, with and without the tile in hand, what that makes of the earlier weights, and
    // the sum of the weights, of which each unit keeps its own columns'.
    let mut largest = Array::<f32>::new(plan.rows);
    let mut before = Array::<f32>::new(plan.rows);
    let mut shrink = Array::<f32>::new(plan.rows);
    let mut total = Array::<f32>::new(plan.rows);
    #[unroll]
    for r in 0..plan.rows {
        largest[r] = MASKED;
        total[r] = 0.0;
    }
    let mut sums = zeros(plan);

    for step in 0..=tile {
        load(&mut a, qkv, head.queries, first, plan);
        load(&mut b, qkv, head.keys, step * plan.tile, plan);
        sync_cube();
        products(a, b, &mut weights, plan);
        sync_cube();

        #[unroll]
        for r in 0..plan.rows {
            before[r] = largest[r];
            let query = first + UNIT_POS_Y as usize * plan.rows + r;
            #[unroll]
            for j in 0..FOUR {
                let key = step * plan.tile + FOUR * UNIT_POS_X as usize + j;
                weights[r * FOUR + j] = select(key <= query, weights[r * FOUR + j], MASKED);
                largest[r] = max(largest[r], weights[r * FOUR + j]);
            }
        }
        load(&mut b, qkv, head.values, step * plan.tile, plan);
        fold(&mut largest, &mut a, true, plan);
        #[unroll]
        for r in 0..plan.rows {
            shrink[r] = f32::exp((before[r] - largest[r]) * scale);
            total[r] *= shrink[r];
            #[unroll]
            for j in 0..FOUR {
                weights[r * FOUR + j] = f32::exp((weights[r * FOUR + j] - largest[r]) * scale);
                total[r] += weights[r * FOUR + j];
            }
        }
        rescale(&mut sums, &shrink, plan);
        sync_cube();

        share(&weights, &mut a, plan);
        sync_cube();
        add_weighted(a, b, &mut sums, plan);
        sync_cube();
    }

    fold(&mut total, &mut a, false, plan);
    #[unroll]
    for r in 0..plan.rows {
        let query = first + UNIT_POS_Y as usize * plan.rows + r;
        if UNIT_POS_X == 0 && query < tokens {
            log_sum[pair * tokens + query] = largest[r] * scale + f32::ln(total[r]);
        }
        shrink[r] = 1.0 / total[r];
    }
    rescale(&mut sums, &shrink, plan);
    store(&sums, 1.0, out, head.out, first, plan);
}

/// One unit for each query of each head: its output times the gradient of that, summed.
#[cube(launch_unchecked)]
fn delta_kernel(
    out: &Array<Four>,
    grad_output: &Array<Four>,
    delta: &mut Array<f32>,
    heads: usize,
    tokens: usize,
    #[comptime] plan: Plan,
) {
    if ABSOLUTE_POS >= delta.len() {
        terminate!();
    }
    let rows = single(ABSOLUTE_POS / tokens, tokens, heads, plan);
    let start = rows.start + ABSOLUTE_POS % tokens * rows.stride;
    let mut sums = Four::new(0.0);
    for i in 0..plan.wide {
        sums = fma(out[start + i], grad_output[start + i], sums);
    }
    delta[ABSOLUTE_POS] = sums[0] + sums[1] + sums[2] + sums[3];
}

/// Makes weights of the scores, and of the weights' derivatives (`slopes`) those of the scores before their scale.
/// The queries are the rows of the tile, or else its columns.
#[cube]
fn weigh(
    weights: &mut Array<f32>,
    slopes: &mut Array<f32>,
    log_sum: &Array<f32>,
    delta: &Array<f32>,
    pair: usize,
    tokens: usize,
    first_query: usize,
    first_key: usize,
    #[comptime] by_row: bool,
    #[comptime] plan: Plan,
) {
    let (x, y) = (FOUR * UNIT_POS_X as usize, UNIT_POS_Y as usize * plan.rows);
    let scale = comptime!(plan.scale()).runtime();
    let (query_of_unit, key_of_unit) = if comptime!(by_row) {
        (first_query + y, first_key + x)
    } else {
        (first_query + x, first_key + y)
    };
    let queries = comptime!(if by_row { plan.rows } else { FOUR });
    let keys = comptime!(if by_row { FOUR } else { plan.rows });
    #[unroll]
    for q in 0..queries {
        let query = query_of_unit + q;
        let at = pair * tokens + min(query, tokens - 1);
        let (log, offset) = (log_sum[at], delta[at]);
        #[unroll]
        for k in 0..keys {
            let key = key_of_unit + k;
            let i = if comptime!(by_row) { q * FOUR + k } else { k * FOUR + q };
            let weight = f32::exp(fma(weights[i], scale, -log));
            weights[i] = select(key <= query && query < tokens, weight, 0.0);
            slopes[i] = weights[i] * (slopes[i] - offset);
        }
    }
}

/// One cube for each tile of keys of each head, those with the most queries first: the derivatives of the keys and
/// of the values. A tile's scores have the keys down and the queries across.
#[cube(launch_unchecked)]
fn key_value_kernel(
    qkv: &Array<Four>,
    grad_output: &Array<Four>,
    log_sum: &Array<f32>,
    delta: &Array<f32>,
    out: &mut Array<Four>,
    pairs: usize,
    heads: usize,
    tokens: usize,
    #[comptime] plan: Plan,
) {
    let (pair, tiles) = (CUBE_POS % pairs, tokens.div_ceil(plan.tile));
    if CUBE_POS >= tiles * pairs {
        terminate!();
    }
    let tile = CUBE_POS / pairs;
    let first = tile * plan.tile;
    let head = head(pair, tokens, heads, plan);

    let (mut a, mut b) = (Shared::new(plan.room), Shared::new(plan.room));
    let mut weights = Array::<f32>::new(comptime!(plan.rows * FOUR));
    let mut slopes = Array::<f32>::new(comptime!(plan.rows * FOUR));
    let (mut of_keys, mut of_values) = (zeros(plan), zeros(plan));

    for step in tile..tiles {
        let first_query = step * plan.tile;
        load(&mut a, qkv, head.values, first, plan);
        load(&mut b, grad_output, head.out, first_query, plan);
        sync_cube();
        products(a, b, &mut slopes, plan);
        sync_cube();
        load(&mut a, qkv, head.keys, first, plan);
        load(&mut b, qkv, head.queries, first_query, plan);
        sync_cube();
        products(a, b, &mut weights, plan);
        weigh(
            &mut weights,
            &mut slopes,
            log_sum,
            delta,
            pair,
            tokens,
            first_query,
            first,
            false,
            plan,
        );
        sync_cube();
        share(&slopes, &mut a, plan);
        sync_cube();
        add_weighted(a, b, &mut of_keys, plan);
        sync_cube();
        share(&weights, &mut a, plan);
        load(&mut b, grad_output, head.out, first_query, plan);
        sync_cube();
        add_weighted(a, b, &mut of_values, plan);
        sync_cube();
    }
    store(&of_keys, comptime!(plan.scale()).runtime(), out, head.keys, first, plan);
    store(&of_values, 1.0, out, head.values, first, plan);
}

/// One cube for each tile of queries of each head, those with the most keys first: the derivative of the queries.
#[cube(launch_unchecked)]
fn query_kernel(
    qkv: &Array<Four>,
    grad_output: &Array<Four>,
    log_sum: &Array<f32>,
    delta: &Array<f32>,
    out: &mut Array<Four>,
    pairs: usize,
    heads: usize,
    tokens: usize,
    #[comptime] plan: Plan,
) {
    let (pair, tiles) = (CUBE_POS % pairs, tokens.div_ceil(plan.tile));
    if CUBE_POS >= tiles * pairs {
        terminate!();
    }
    let tile = tiles - 1 - CUBE_POS / pairs;
    let first = tile * plan.tile;
    let head = head(pair, tokens, heads, plan);

    let (mut a, mut b) = (Shared::new(plan.room), Shared::new(plan.room));
    let mut weights = Array::<f32>::new(comptime!(plan.rows * FOUR));
    let mut slopes = Array::<f32>::new(comptime!(plan.rows * FOUR));
    let mut sums = zeros(plan);

    for step in 0..=tile {
        let first_key = step * plan.tile;
        load(&mut a, grad_output, head.out, first, plan);
        load(&mut b, qkv, head.values, first_key, plan);
        sync_cube();
        products(a, b, &mut slopes, plan);
        sync_cube();
        load(&mut a, qkv, head.queries, first, plan);
        load(&mut b, qkv, head.keys, first_key, plan);
        sync_cube();
        products(a, b, &mut weights, plan);
        weigh(
            &mut weights,
            &mut slopes,
            log_sum,
            delta,
            pair,
            tokens,
            first,
            first_key,
            true,
            plan,
        );
        sync_cube();
        share(&slopes, &mut a, plan);
        sync_cube();
        add_weighted(a, b, &mut sums, plan);
        sync_cube();
    }
    store(&sums, comptime!(plan.scale()).runtime(), out, head.queries, first, plan);
}

/// What [`forward`] gives.
#[derive(Debug)]
pub struct Attended<R: CubeRuntime> {
    /// The heads' outputs side by side, `[B, T, C]`.
    pub out: Tensor<R>,
    /// The natural logarithm of the sum of each query's exponentials of scores, `[B, H, T]`.
    pub log_sum: Tensor<R>,
}

/// Whether `width` channels in `n_head` heads are taken: heads of a multiple of 4 channels, up to 128.
fn takes(width: usize, n_head: usize) -> bool {
    n_head > 0 && width > 0 && width.is_multiple_of(FOUR * n_head) && width / n_head <= WIDEST_HEAD
}

/// What the launches for a packed `qkv` have in common: batch, tokens, width and plan.
fn shape<R: CubeRuntime>(qkv: &Tensor<R>, n_head: usize) -> (usize, usize, usize, Plan) {
    let [batch, tokens, packed] = qkv.shape().dims();
    let width = packed / 3;
    assert!(
        packed == 3 * width && takes(width, n_head),
        "{packed} packed channels in {n_head} heads"
    );
    (batch, tokens, width, Plan::new(width / n_head))
}

/// Attention of each token to itself and to those before it. `qkv` is `[B, T, 3C]`, contiguous: queries, keys and
/// values side by side, each with its `n_head` heads one after the other, of a multiple of four channels, up to [`WIDEST_HEAD`].
pub fn forward<R: CubeRuntime>(qkv: &Tensor<R>, n_head: usize) -> Attended<R> {
    let (batch, tokens, width, plan) = shape(qkv, n_head);
    let (out, log_sum) = (
        empty_of(qkv, &[batch, tokens, width], qkv.dtype),
        empty(qkv, &[batch, n_head, tokens]),
    );
    let pairs = batch * n_head;
    let count = cubes(pairs * tokens.div_ceil(plan.tile));
    // SAFETY: a cube keeps to the rows of its head, of which none is past the last token.
    unsafe {
        forward_kernel::launch_unchecked(
            &qkv.client,
            count,
            plan.dim(),
            array(qkv),
            array(&out),
            array(&log_sum),
            pairs,
            n_head,
            tokens,
            plan,
        );
    }
    Attended { out, log_sum }
}

/// The derivative of [`forward`] at `qkv`, where it gave `attended`, times `grad_output`, `[B, T, C]` and contiguous;
/// in the layout of `qkv`.
pub fn backward<R: CubeRuntime>(
    qkv: &Tensor<R>,
    attended: &Attended<R>,
    grad_output: &Tensor<R>,
    n_head: usize,
) -> Tensor<R> {
    let (batch, tokens, width, plan) = shape(qkv, n_head);
    let (out, delta) = (
        empty_of(qkv, &[batch, tokens, 3 * width], qkv.dtype),
        empty(qkv, &[batch, n_head, tokens]),
    );
    let pairs = batch * n_head;
    // SAFETY: units past the last query do nothing, and each of the others reads its own row.
    unsafe {
        delta_kernel::launch_unchecked(
            &qkv.client,
            cubes((pairs * tokens).div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            array(&attended.out),
            array(grad_output),
            array(&delta),
            n_head,
            tokens,
            plan,
        );
    }
    let count = pairs * tokens.div_ceil(plan.tile);
    // SAFETY: as in `forward`, and the two kernels write to different parts of the rows.
    unsafe {
        key_value_kernel::launch_unchecked(
            &qkv.client,
            cubes(count),
            plan.dim(),
            array(qkv),
            array(grad_output),
            array(&attended.log_sum),
            array(&delta),
            array(&out),
            pairs,
            n_head,
            tokens,
            plan,
        );
        query_kernel::launch_unchecked(
            &qkv.client,
            cubes(count),
            plan.dim(),
            array(qkv),
            array(grad_output),
            array(&attended.log_sum),
            array(&delta),
            array(&out),
            pairs,
            n_head,
            tokens,
            plan,
        );
    }
    out
}
