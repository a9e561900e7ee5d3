//! Matrix products with what follows them.
//!
//! A cube computes a tile of the result. It goes through the inner dimension by `DEPTH`, with both operands' parts in
//! shared memory, the inner index outermost, and fetches the next part into registers while it multiplies the present one.
//! There is room for two parts, so that one barrier a part is enough. Each unit has blocks of four rows by four columns: one,
//! or in a tile of twice the side four, 64 rows and columns apart.
//!
//! Every width must be a multiple of four; the number of rows may be any.
//!
//! Operands that may be rounded (Burn's `Flex32`, `f32` in memory) are rounded to `bf16`, once for the products that share
//! an [operand], and multiplied on the device's [tensor units](TensorUnits).

mod tensor_units;

use crate::launch::{UNITS, array, cubes, empty, empty_of, of_type, units};
use crate::{Tensor, columns, gelu};
use burn::tensor::{DType, TensorMetadata, bf16};
use burn_cubecl::CubeRuntime;
use cubecl::prelude::*;

pub use tensor_units::TensorUnits;

/// Four numbers that are read and written at once.
type Four = Vector<f32, Const<4>>;

/// How many numbers that is.
const FOUR: usize = crate::LANES;

/// Four operands as they are in memory: `f32`, or `bf16` for tensor units.
type Operands<E> = Vector<E, Const<4>>;

/// Units down a cube, and across.
const SIDE: usize = 16;

/// Rows and columns of a tile for each of a unit's blocks of four.
const STEP: usize = SIDE * FOUR;

/// Of the inner dimension, how much is in shared memory at once.
const DEPTH: usize = 16;

/// Fewer tiles than this leave a large device without work.
const FEW: usize = 128;

/// How the operands of `x · y`, `[M, K]` and `[K, N]`, stand in memory, and the side of a tile; known when a kernel is
/// compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Plan {
    /// `x` is stored as `[K, M]`.
    x_transposed: bool,
    /// `y` is stored as `[N, K]`.
    y_transposed: bool,
    /// A tile is so many times [`STEP`] rows high and columns wide.
    blocks: usize,
    /// Tiles or parts go past the end of the operands.
    edges: bool,
    /// What multiplies, rounding the operands, in place of the ordinary units.
    tensor_units: Option<TensorUnits>,
}

impl Plan {
    /// Rows and columns of a tile.
    fn tile(self) -> usize {
        self.tensor_units.map_or(STEP * self.blocks, |_| tensor_units::SIDE)
    }

    /// Of the inner dimension, how much is in shared memory at once.
    fn depth(self) -> usize {
        self.tensor_units.map_or(DEPTH, |_| tensor_units::DEPTH)
    }

    /// Fours of a part.
    fn room(self) -> usize {
        DEPTH * self.tile() / FOUR
    }

    /// Blocks of four by four numbers that a part of an operand has, and the fewer of them that a unit reads.
    fn loads(self) -> usize {
        self.tile() / FOUR * (DEPTH / FOUR)
    }

    /// The fours of a unit's share of a tile.
    fn fours(self) -> usize {
        self.tensor_units
            .map_or(FOUR * self.blocks * self.blocks, |_| tensor_units::SHARE)
    }
}

/// Where a product's operands are, in fours, and their sizes.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Place {
    /// M, N and K.
    rows: usize,
    columns: usize,
    inner: usize,
    /// The first four of `x`, of `y` and of the result.
    x_start: usize,
    y_start: usize,
    out_start: usize,
    /// Of the inner dimension, what a cube's share is; the shares' results follow each other.
    share: usize,
}

/// An operand in memory: its first four, its rows (of the right one: columns), the inner dimension, and where that ends for
/// this cube.
#[derive(CubeType, Clone, Copy)]
struct Operand {
    start: usize,
    outer: usize,
    inner: usize,
    end: usize,
}

#[cube]
fn left_operand(place: Place, end: usize) -> Operand {
    Operand {
        start: place.x_start,
        outer: place.rows,
        inner: place.inner,
        end,
    }
}

#[cube]
fn right_operand(place: Place, end: usize) -> Operand {
    Operand {
        start: place.y_start,
        outer: place.columns,
        inner: place.inner,
        end,
    }
}

/// What is at `at`, or 0 where that is not `inside`; only at `edges` anything is not.
#[cube]
fn read<E: Float>(from: &Array<Operands<E>>, at: usize, inside: bool, #[comptime] edges: bool) -> Operands<E> {
    if comptime!(edges) {
        select(inside, from[select(inside, at, 0)], Operands::<E>::new(E::new(0.0)))
    } else {
        from[at]
    }
}

/// Reads a block of four by four numbers of an operand, from row (or column) `first` and inner index `depth`: fours along
/// the tile, one for each of four inner indices. What is past the end is 0. `along` says that it is stored in that order.
#[cube]
fn fetch<E: Float>(
    from: &Array<Operands<E>>,
    block: &mut Array<Four>,
    operand: Operand,
    first: usize,
    depth: usize,
    #[comptime] along: bool,
    #[comptime] edges: bool,
) {
    let Operand {
        start,
        outer,
        inner,
        end,
    } = operand;
    if along {
        let stride = outer / FOUR;
        #[unroll]
        for k in 0..FOUR {
            let at = start + (depth + k) * stride + first / FOUR;
            block[k] = Four::cast_from(read(from, at, first < outer && depth + k < end, edges));
        }
    } else {
        let stride = inner / FOUR;
        let mut rows = Array::<Four>::new(FOUR);
        #[unroll]
        for r in 0..FOUR {
            let at = start + (first + r) * stride + depth / FOUR;
            rows[r] = Four::cast_from(read(from, at, first + r < outer && depth < end, edges));
        }
        #[unroll]
        for k in 0..FOUR {
            let mut four = Four::empty();
            #[unroll]
            for r in 0..FOUR {
                let row = rows[r];
                four[r] = row[k];
            }
            block[k] = four;
        }
    }
}

/// Where in a part an operand's four number `outer` of inner index `inner` is. Where the operand had to be turned round, fours
/// change places from block to block, so that neighbouring units write to different banks.
#[cube]
fn slot(outer: usize, inner: usize, #[comptime] along: bool, #[comptime] side: usize) -> usize {
    let row = inner * (side / FOUR);
    if along {
        row + outer
    } else {
        row + (outer ^ (inner / FOUR % FOUR * 2))
    }
}

/// Puts a block into the part at `start` of shared memory.
#[cube]
fn put(
    block: &Array<Four>,
    to: &mut SharedMemory<Four>,
    start: usize,
    outer: usize,
    inner: usize,
    #[comptime] along: bool,
    #[comptime] side: usize,
) {
    #[unroll]
    for k in 0..FOUR {
        to[start + slot(outer, inner + k, along, side)] = block[k];
    }
}

/// The unit's place in its cube's tile, in fours: down and across. Of sixteen neighbours two are below each other and eight
/// beside each other, so that they read few different fours of shared memory.
#[cube]
fn seat() -> (usize, usize) {
    let unit = UNIT_POS as usize;
    (
        unit % 2 + unit / 16 % 2 * 2 + unit / 64 * 4,
        unit / 2 % 8 + unit / 32 % 2 * 8,
    )
}

/// The unit's fours of the cube's tile of the product.
#[cube]
fn multiply<E: Float>(
    x: &Array<Operands<E>>,
    y: &Array<Operands<E>>,
    place: Place,
    tile: Tile,
    #[comptime] plan: Plan,
) -> Array<Four> {
    if comptime!(plan.tensor_units.is_some()) {
        tensor_units::multiply(x, y, place, tile, plan, comptime!(plan.tensor_units.unwrap()))
    } else {
        multiply_blocks(x, y, place, tile, plan)
    }
}

/// The unit's blocks of the cube's tile of the product.
#[cube]
fn multiply_blocks<E: Float>(
    x: &Array<Operands<E>>,
    y: &Array<Operands<E>>,
    place: Place,
    tile: Tile,
    #[comptime] plan: Plan,
) -> Array<Four> {
    let (side, room, loads, blocks) = comptime!((plan.tile(), plan.room(), plan.loads(), plan.blocks));
    let (x_along, y_along) = comptime!((plan.x_transposed, !plan.y_transposed));
    let mut left = SharedMemory::<Four>::new(comptime!(2 * room));
    let mut right = SharedMemory::<Four>::new(comptime!(2 * room));
    let mut sums = Array::<Four>::new(comptime!(plan.fours()));
    #[unroll]
    for i in 0..plan.fours() {
        sums[i] = Four::new(0.0);
    }

    // The first units read the left operand, the next ones the right one; neighbours read what is neighbouring in memory.
    let unit = UNIT_POS as usize;
    let on_left = unit < loads;
    let on_right = unit >= loads && unit < 2 * loads;
    let (x_outer, x_inner) = spread(unit % loads, side, x_along);
    let (y_outer, y_inner) = spread(unit % loads, side, y_along);
    let (row, column) = (tile.row + x_outer * FOUR, tile.column + y_outer * FOUR);
    let (down, across) = seat();
    let mut block = Array::<Four>::new(FOUR);

    let end = min(tile.depth + place.share, place.inner);
    let x_operand = left_operand(place, end);
    let y_operand = right_operand(place, end);
    if on_left {
        fetch(x, &mut block, x_operand, row, tile.depth + x_inner, x_along, plan.edges);
        put(&block, &mut left, 0, x_outer, x_inner, x_along, side);
    } else if on_right {
        fetch(
            y,
            &mut block,
            y_operand,
            column,
            tile.depth + y_inner,
            y_along,
            plan.edges,
        );
        put(&block, &mut right, 0, y_outer, y_inner, y_along, side);
    }
    sync_cube();

    let mut depth = tile.depth + DEPTH;
    let mut start = 0usize;
    while depth < end + DEPTH {
        // The next part arrives while this one is multiplied.
        if depth < end {
            if on_left {
                fetch(x, &mut block, x_operand, row, depth + x_inner, x_along, plan.edges);
            } else if on_right {
                fetch(y, &mut block, y_operand, column, depth + y_inner, y_along, plan.edges);
            }
        }
        #[unroll]
        for k in 0..DEPTH {
            let mut a = Array::<Four>::new(blocks);
            let mut b = Array::<Four>::new(blocks);
            #[unroll]
            for i in 0..blocks {
                a[i] = left[start + slot(i * SIDE + down, k, x_along, side)];
                b[i] = right[start + slot(i * SIDE + across, k, y_along, side)];
            }
            #[unroll]
            for i in 0..blocks {
                let four = a[i];
                #[unroll]
                for r in 0..FOUR {
                    #[unroll]
                    for j in 0..blocks {
                        let at = (i * FOUR + r) * blocks + j;
                        sums[at] = fma(Four::new(four[r]), b[j], sums[at]);
                    }
                }
            }
        }
        start = room - start;
        if depth < end {
            if on_left {
                put(&block, &mut left, start, x_outer, x_inner, x_along, side);
            } else if on_right {
                put(&block, &mut right, start, y_outer, y_inner, y_along, side);
            }
        }
        sync_cube();
        depth += DEPTH;
    }
    sums
}

/// Which block of an operand's part a unit reads: its place along the tile, in fours, and its first inner index.
#[cube]
fn spread(load: usize, #[comptime] side: usize, #[comptime] along: bool) -> (usize, usize) {
    if along {
        (load % (side / FOUR), load / (side / FOUR) * FOUR)
    } else {
        (load / (DEPTH / FOUR), load % (DEPTH / FOUR) * FOUR)
    }
}

/// The part of a product that a cube computes.
#[derive(CubeType, Clone, Copy)]
struct Tile {
    /// Its first row, column and inner index.
    row: usize,
    column: usize,
    depth: usize,
    /// The first four of its result.
    out: usize,
}

#[cube]
fn tile_of(place: Place, #[comptime] plan: Plan) -> Tile {
    let side = comptime!(plan.tile());
    Tile {
        row: CUBE_POS_Y as usize * side,
        column: CUBE_POS_X as usize * side,
        depth: CUBE_POS_Z as usize * place.share,
        out: place.out_start + CUBE_POS_Z as usize * place.rows * place.columns / FOUR,
    }
}

/// A four of the result: its column and its place in memory, and whether it is inside.
#[derive(CubeType, Clone, Copy)]
struct Spot {
    column: usize,
    at: usize,
    inside: bool,
}

/// The place of four number `i` of a unit's share.
#[cube]
fn spot(place: Place, tile: Tile, #[comptime] i: usize, #[comptime] plan: Plan) -> Spot {
    if comptime!(plan.tensor_units.is_some()) {
        tensor_units::spot(place, tile, i, plan.edges, comptime!(plan.tensor_units.unwrap()))
    } else {
        spot_in_blocks(place, tile, i, plan)
    }
}

#[cube]
fn spot_in_blocks(place: Place, tile: Tile, #[comptime] i: usize, #[comptime] plan: Plan) -> Spot {
    let (block, row_in, group) = comptime!((i / (FOUR * plan.blocks), i / plan.blocks % FOUR, i % plan.blocks));
    let (down, across) = seat();
    let row = tile.row + block * STEP + down * FOUR + row_in;
    let column = tile.column + group * STEP + across * FOUR;
    Spot {
        column,
        at: tile.out + (row * place.columns + column) / FOUR,
        inside: !comptime!(plan.edges) || (row < place.rows && column < place.columns),
    }
}

#[cube(launch_unchecked)]
fn round_kernel(x: &Array<Four>, out: &mut Array<Operands<bf16>>) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = Operands::<bf16>::cast_from(x[ABSOLUTE_POS]);
    }
}

/// `x · y`, or with `adds` the result and that.
#[cube(launch_unchecked)]
fn plain_kernel<E: Float>(
    x: &Array<Operands<E>>,
    y: &Array<Operands<E>>,
    out: &mut Array<Four>,
    place: Place,
    #[comptime] adds: bool,
    #[comptime] plan: Plan,
) {
    let tile = tile_of(place, plan);
    let sums = multiply(x, y, place, tile, plan);
    #[unroll]
    for i in 0..plan.fours() {
        let spot = spot(place, tile, i, plan);
        if spot.inside {
            if adds {
                out[spot.at] += sums[i];
            } else {
                out[spot.at] = sums[i];
            }
        }
    }
}

/// `x · y + bias`, or with `adds` `residual` and that.
#[cube(launch_unchecked)]
fn affine_kernel<E: Float>(
    x: &Array<Operands<E>>,
    y: &Array<Operands<E>>,
    bias: &Array<Four>,
    residual: &Array<Four>,
    out: &mut Array<Four>,
    place: Place,
    #[comptime] adds: bool,
    #[comptime] plan: Plan,
) {
    let tile = tile_of(place, plan);
    let sums = multiply(x, y, place, tile, plan);
    #[unroll]
    for i in 0..plan.fours() {
        let spot = spot(place, tile, i, plan);
        if spot.inside {
            let mut value = sums[i] + bias[spot.column / FOUR];
            if adds {
                value += residual[spot.at];
            }
            out[spot.at] = value;
        }
    }
}

/// `x · y + bias`, and GELU of it.
#[cube(launch_unchecked)]
fn gelu_kernel<E: Float>(
    x: &Array<Operands<E>>,
    y: &Array<Operands<E>>,
    bias: &Array<Four>,
    out: &mut Array<Four>,
    activated: &mut Array<Operands<E>>,
    place: Place,
    #[comptime] plan: Plan,
) {
    let tile = tile_of(place, plan);
    let sums = multiply(x, y, place, tile, plan);
    #[unroll]
    for i in 0..plan.fours() {
        let spot = spot(place, tile, i, plan);
        if spot.inside {
            let value = sums[i] + bias[spot.column / FOUR];
            out[spot.at] = value;
            let mut four = Four::empty();
            #[unroll]
            for j in 0..FOUR {
                four[j] = gelu::value(value[j]);
            }
            activated[spot.at] = Operands::<E>::cast_from(four);
        }
    }
}

/// `x · y` times GELU's derivative at `inner`.
#[cube(launch_unchecked)]
fn slope_kernel<E: Float>(
    x: &Array<Operands<E>>,
    y: &Array<Operands<E>>,
    inner: &Array<Four>,
    out: &mut Array<Operands<E>>,
    place: Place,
    #[comptime] plan: Plan,
) {
    let tile = tile_of(place, plan);
    let sums = multiply(x, y, place, tile, plan);
    #[unroll]
    for i in 0..plan.fours() {
        let spot = spot(place, tile, i, plan);
        if spot.inside {
            let (at, mut four) = (inner[spot.at], Four::empty());
            #[unroll]
            for j in 0..FOUR {
                four[j] = gelu::slope(at[j]);
            }
            out[spot.at] = Operands::<E>::cast_from(sums[i] * four);
        }
    }
}

/// The sizes of a product, and where its operands and its result start.
#[derive(Debug, Clone, Copy, Default)]
struct Sizes {
    rows: usize,
    columns: usize,
    inner: usize,
    /// The first row of `x`, of `y` as they are stored, and of the result.
    x_row: usize,
    y_row: usize,
    out_row: usize,
}

/// A product as it is launched.
struct Launch {
    plan: Plan,
    cubes: CubeCount,
    sizes: Sizes,
    share: usize,
    /// Of the inner dimension, each with a result of its own.
    shares: usize,
}

impl Launch {
    /// `x · y`, of which the one or the other is stored transposed.
    fn new(sizes: Sizes, [x_transposed, y_transposed]: [bool; 2], tensor_units: Option<TensorUnits>) -> Self {
        let plan = |blocks| {
            let plan = Plan {
                x_transposed,
                y_transposed,
                blocks,
                edges: false,
                tensor_units,
            };
            let is_whole = [sizes.rows, sizes.columns]
                .iter()
                .all(|side| side.is_multiple_of(plan.tile()));
            Plan {
                edges: !is_whole || !sizes.inner.is_multiple_of(plan.depth()),
                ..plan
            }
        };
        let tiles = |plan: Plan| [sizes.columns, sizes.rows].map(|side| side.div_ceil(plan.tile()));
        let count = |plan| tiles(plan).iter().product::<usize>();
        let large = count(plan(2)) >= FEW || sizes.inner >= 8 * FEW;
        let plan = plan(if large && sizes.rows.min(sizes.columns) > STEP {
            2
        } else {
            1
        });
        let [across, down] = tiles(plan);
        Self {
            plan,
            cubes: CubeCount::new_2d(across as u32, down as u32),
            sizes,
            share: sizes.inner,
            shares: 1,
        }
    }

    /// Shares a long inner dimension out to cubes of their own, where there are few tiles.
    fn shared_out(mut self) -> Self {
        let CubeCount::Static(across, down, _) = self.cubes else {
            return self;
        };
        let tiles = across as usize * down as usize;
        let wanted = (2 * FEW).div_ceil(tiles).min(self.sizes.inner / (2 * FEW));
        if tiles < FEW && wanted > 1 {
            self.share = self.sizes.inner.div_ceil(wanted).next_multiple_of(self.plan.depth());
            self.shares = self.sizes.inner.div_ceil(self.share);
            self.cubes = CubeCount::new_3d(across, down, self.shares as u32);
        }
        self
    }

    fn place<R: CubeRuntime>(&self) -> PlaceLaunch<R> {
        let Sizes {
            rows,
            columns,
            inner,
            x_row,
            y_row,
            out_row,
        } = self.sizes;
        let x_width = if self.plan.x_transposed { rows } else { inner };
        let y_width = if self.plan.y_transposed { inner } else { columns };
        // A result of several shares starts at its beginning.
        let out_row = if self.shares > 1 { 0 } else { out_row };
        PlaceLaunch::new(
            rows,
            columns,
            inner,
            x_row * x_width / FOUR,
            y_row * y_width / FOUR,
            out_row * columns / FOUR,
            self.share,
        )
    }

    /// Writes `x · y` to `out`, or with `adds` adds it.
    fn plain<R: CubeRuntime>(self, x: &Tensor<R>, y: &Tensor<R>, out: &Tensor<R>, adds: bool) {
        let shares = (self.shares > 1).then(|| empty(x, &[self.shares, self.sizes.rows * self.sizes.columns]));
        let result = shares.as_ref().unwrap_or(out);
        let place = self.place();
        // SAFETY: what is outside of the matrices is neither read nor written.
        unsafe {
            of_type!(x, plain_kernel)(
                &x.client,
                self.cubes,
                units(),
                array(x),
                array(y),
                array(result),
                place,
                adds && shares.is_none(),
                self.plan,
            );
        }
        if let Some(shares) = shares {
            columns::sums_into(&shares, out, self.sizes.out_row * self.sizes.columns);
        }
    }
}

/// The sizes of `x · w` or, with the columns of both, of `grad_output · wᵀ`.
fn sizes<R: CubeRuntime>(x: &Tensor<R>, columns: usize) -> Sizes {
    let [rows, inner] = x.shape().dims();
    Sizes {
        rows,
        columns,
        inner,
        ..Sizes::default()
    }
}

/// Whether `x` and `y` are multiplied on tensor units: where one of them may be rounded, or is.
fn rounds<R: CubeRuntime>(x: &Tensor<R>, y: &Tensor<R>) -> bool {
    [x, y].iter().any(|x| [DType::Flex32, DType::BF16].contains(&x.dtype))
}

/// `f32`, which may be rounded when it is multiplied if that holds for one of a product's operands.
fn type_of<R: CubeRuntime>(x: &Tensor<R>, y: &Tensor<R>) -> DType {
    if rounds(x, y) { DType::Flex32 } else { DType::F32 }
}

/// `x` as its product with `y` reads it, for several products: in `bf16` where they are on tensor units.
pub fn operand<R: CubeRuntime>(x: &Tensor<R>, y: &Tensor<R>) -> Tensor<R> {
    if x.dtype == DType::BF16 || !rounds(x, y) {
        return x.clone();
    }
    let out = empty_of(x, x.shape().as_slice(), DType::BF16);
    let count = x.shape().num_elements().div_ceil(FOUR * UNITS);
    // SAFETY: no unit goes past the end of its tensors, which are of one size.
    unsafe { round_kernel::launch_unchecked(&x.client, cubes(count), units(), array(x), array(&out)) };
    out
}

/// Both operands of a product as it reads them, and what multiplies, where not the ordinary units.
///
/// # Panics
/// If the operands may be rounded, and the device has no tensor units.
fn operands<R: CubeRuntime>(x: &Tensor<R>, y: &Tensor<R>) -> ([Tensor<R>; 2], Option<TensorUnits>) {
    let tensor_units = rounds(x, y)
        .then(|| TensorUnits::of(&x.client).expect("products of bf16 are for devices with tensor units for them"));
    ([operand(x, y), operand(y, x)], tensor_units)
}

/// `x · w + bias`, with or without `residual`.
fn affine_of<R: CubeRuntime>(
    x: &Tensor<R>,
    w: &Tensor<R>,
    bias: &Tensor<R>,
    residual: Option<&Tensor<R>>,
) -> Tensor<R> {
    let sizes = sizes(x, w.shape()[1]);
    let dtype = if residual.is_some() { DType::F32 } else { type_of(x, w) };
    let out = empty_of(x, &[sizes.rows, sizes.columns], dtype);
    let ([x, w], tensor_units) = operands(x, w);
    let launch = Launch::new(sizes, [false, false], tensor_units);
    let place = launch.place();
    // SAFETY: what is outside of the matrices is neither read nor written.
    unsafe {
        of_type!(x, affine_kernel)(
            &x.client,
            launch.cubes,
            units(),
            array(&x),
            array(&w),
            array(bias),
            array(residual.unwrap_or(bias)),
            array(&out),
            place,
            residual.is_some(),
            launch.plan,
        );
    }
    out
}

/// `x · w + bias`: `[N, in]`, `[in, out]` and `[out]` give `[N, out]`.
pub fn affine<R: CubeRuntime>(x: &Tensor<R>, w: &Tensor<R>, bias: &Tensor<R>) -> Tensor<R> {
    affine_of(x, w, bias, None)
}

/// `residual + x · w + bias`, with `residual` `[N, out]`.
pub fn affine_onto<R: CubeRuntime>(residual: &Tensor<R>, x: &Tensor<R>, w: &Tensor<R>, bias: &Tensor<R>) -> Tensor<R> {
    affine_of(x, w, bias, Some(residual))
}

/// `x · w + bias`, and GELU of it as an [operand], `[N, out]` both.
pub fn affine_gelu<R: CubeRuntime>(x: &Tensor<R>, w: &Tensor<R>, bias: &Tensor<R>) -> [Tensor<R>; 2] {
    let sizes = sizes(x, w.shape()[1]);
    let shape = [sizes.rows, sizes.columns];
    let out = empty_of(x, &shape, type_of(x, w));
    let ([x, w], tensor_units) = operands(x, w);
    let activated = empty_of(&x, &shape, x.dtype);
    let launch = Launch::new(sizes, [false, false], tensor_units);
    let place = launch.place();
    // SAFETY: what is outside of the matrices is neither read nor written.
    unsafe {
        of_type!(x, gelu_kernel)(
            &x.client,
            launch.cubes,
            units(),
            array(&x),
            array(&w),
            array(bias),
            array(&out),
            array(&activated),
            place,
            launch.plan,
        );
    }
    [out, activated]
}

/// `grad_output · wᵀ`: `[N, out]` and `[in, out]` give `[N, in]`.
pub fn transposed<R: CubeRuntime>(grad_output: &Tensor<R>, w: &Tensor<R>) -> Tensor<R> {
    let sizes = sizes(grad_output, w.shape()[0]);
    let out = empty_of(grad_output, &[sizes.rows, sizes.columns], type_of(grad_output, w));
    let ([grad_output, w], tensor_units) = operands(grad_output, w);
    Launch::new(sizes, [false, true], tensor_units).plain(&grad_output, &w, &out, false);
    out
}

/// [`transposed`] times GELU's derivative at `inner`, `[N, in]`, as an [operand].
pub fn transposed_by_gelu<R: CubeRuntime>(grad_output: &Tensor<R>, w: &Tensor<R>, inner: &Tensor<R>) -> Tensor<R> {
    let sizes = sizes(grad_output, w.shape()[0]);
    let ([grad_output, w], tensor_units) = operands(grad_output, w);
    let out = empty_of(&grad_output, &[sizes.rows, sizes.columns], grad_output.dtype);
    let launch = Launch::new(sizes, [false, true], tensor_units);
    let place = launch.place();
    // SAFETY: what is outside of the matrices is neither read nor written.
    unsafe {
        of_type!(grad_output, slope_kernel)(
            &grad_output.client,
            launch.cubes,
            units(),
            array(&grad_output),
            array(&w),
            array(inner),
            array(&out),
            place,
            launch.plan,
        );
    }
    out
}

/// `xᵀ · grad_output`: `[N, in]` and `[N, out]` give `[in, out]`.
pub fn by_rows<R: CubeRuntime>(x: &Tensor<R>, grad_output: &Tensor<R>) -> Tensor<R> {
    let ([inner, rows], [_, columns]) = (x.shape().dims(), grad_output.shape().dims());
    let out = empty(x, &[rows, columns]);
    let sizes = Sizes {
        rows,
        columns,
        inner,
        ..Sizes::default()
    };
    let ([x, grad_output], tensor_units) = operands(x, grad_output);
    let launch = Launch::new(sizes, [true, false], tensor_units).shared_out();
    launch.plain(&x, &grad_output, &out, false);
    out
}

/// `hidden[start..start + count] · wteᵀ`: `[N, C]` and `[Vp, C]` give `[count, Vp]`.
pub(crate) fn logits<R: CubeRuntime>(hidden: &Tensor<R>, start: usize, count: usize, wte: &Tensor<R>) -> Tensor<R> {
    let [columns, inner] = wte.shape().dims();
    let out = empty(hidden, &[count, columns]);
    let sizes = Sizes {
        rows: count,
        columns,
        inner,
        x_row: start,
        ..Sizes::default()
    };
    let ([hidden, wte], tensor_units) = operands(hidden, wte);
    Launch::new(sizes, [false, true], tensor_units).plain(&hidden, &wte, &out, false);
    out
}

/// Writes `grad_logits · wte`, `[n, Vp]` and `[Vp, C]`, to the rows of `grad_hidden`, `[N, C]`, from `start`.
pub(crate) fn grad_hidden<R: CubeRuntime>(
    grad_logits: &Tensor<R>,
    wte: &Tensor<R>,
    grad_hidden: &Tensor<R>,
    start: usize,
) {
    let sizes = Sizes {
        out_row: start,
        ..sizes(grad_logits, wte.shape()[1])
    };
    let ([grad_logits, wte], tensor_units) = operands(grad_logits, wte);
    let launch = Launch::new(sizes, [false, false], tensor_units).shared_out();
    launch.plain(&grad_logits, &wte, grad_hidden, false);
}

/// Writes `grad_logitsᵀ · hidden[start..start + n]`, `[n, Vp]` and `[N, C]`, to `grad_wte`, `[Vp, C]`, or with `adds`
/// adds it.
pub(crate) fn grad_wte<R: CubeRuntime>(
    grad_logits: &Tensor<R>,
    hidden: &Tensor<R>,
    start: usize,
    grad_wte: &Tensor<R>,
    adds: bool,
) {
    let ([inner, rows], [_, columns]) = (grad_logits.shape().dims(), hidden.shape().dims());
    let sizes = Sizes {
        rows,
        columns,
        inner,
        y_row: start,
        ..Sizes::default()
    };
    let ([grad_logits, hidden], tensor_units) = operands(grad_logits, hidden);
    Launch::new(sizes, [true, false], tensor_units).plain(&grad_logits, &hidden, grad_wte, adds);
}
