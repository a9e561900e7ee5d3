//! Products on a device's tensor units, as cooperative matrices of Vulkan (`VK_KHR_cooperative_matrix`): operands are
//! `bf16`, sums are `f32`.
//!
//! A cube's tile is cut into one rectangle for each of its planes, and this into cooperative matrices. Their elements
//! belong to no unit in particular, so that sums leave through shared memory, after which each unit has fours as in the
//! other products.

use super::{FOUR, Four, Operand, Operands, Place, Plan, Spot, Tile, left_operand, read, right_operand};
use crate::launch::UNITS;
use burn::tensor::bf16;
use burn_cubecl::CubeRuntime;
use cubecl::client::ComputeClient;
use cubecl::cmma::{self, MatrixIdent, MatrixLayout};
use cubecl::features::{MmaConfig, TypeUsage};
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

/// Four operands as they are multiplied.
type Halves = Vector<bf16, Const<4>>;

/// Rows, columns and inner indices of a cooperative matrix.
const MATRIX: usize = 16;

/// Rows and columns of a tile. One of 64 rows is slower, and one of 256 columns too.
pub(super) const SIDE: usize = 128;

/// Of the inner dimension, how much is in shared memory at once.
pub(super) const DEPTH: usize = 32;

/// Fours of a part that a unit fetches.
const LOADS: usize = SIDE * DEPTH / FOUR / UNITS;

/// Fours of a tile that are a unit's.
pub(super) const SHARE: usize = SIDE * SIDE / FOUR / UNITS;

/// Elements behind each row of shared memory, so that neighbouring rows begin in different banks.
const PAD: usize = 8;

/// The tensor units of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorUnits {
    /// Units of a plane, which hold a cooperative matrix together.
    plane: usize,
}

impl TensorUnits {
    /// [`Self::of`] a device.
    pub fn on<R: CubeRuntime>(device: &R::Device) -> Option<Self> {
        Self::of(&R::client(device))
    }

    /// Those of the device, if it has what the products need: cooperative matrices of 16 by 16 by 16 with operands in `bf16`
    /// and sums in `f32`, `bf16` in memory, planes of one size, and 48 KiB of shared memory.
    pub fn of<R: CubeRuntime>(client: &ComputeClient<R>) -> Option<Self> {
        let properties = client.properties();
        let float = |kind| ElemType::Float(kind).into();
        let matrix = MmaConfig {
            a_type: float(FloatKind::BF16),
            b_type: float(FloatKind::BF16),
            cd_type: float(FloatKind::F32),
            m: MATRIX as u32,
            n: MATRIX as u32,
            k: MATRIX as u32,
        };
        let hardware = &properties.hardware;
        let units = Self {
            plane: hardware.plane_size_max as usize,
        };
        let is_there = properties.features.matmul.cmma.contains(&matrix)
            && properties
                .type_usage(float(FloatKind::BF16))
                .contains(TypeUsage::Buffer)
            && hardware.plane_size_min == hardware.plane_size_max
            && [8, 16, 32, 64].contains(&units.plane)
            && units.shared_memory() <= hardware.max_shared_memory_size;
        is_there.then_some(units)
    }

    fn planes(self) -> usize {
        UNITS / self.plane
    }

    /// Planes down a tile, and across.
    fn grid(self) -> (usize, usize) {
        let across = 1 << self.planes().ilog2().div_ceil(2);
        (self.planes() / across, across)
    }

    /// Cooperative matrices down a plane's rectangle, and across.
    fn matrices(self) -> (usize, usize) {
        let (down, across) = self.grid();
        (SIDE / down / MATRIX, SIDE / across / MATRIX)
    }

    /// Fours of a cooperative matrix that are a unit's.
    fn fours(self) -> usize {
        MATRIX * MATRIX / FOUR / self.plane
    }

    /// Bytes of a cube, at the most: two parts of each operand, and a matrix for each plane.
    fn shared_memory(self) -> usize {
        let room = [true, false].map(|along| Part { along }.room());
        4 * room[0].max(room[1]) * size_of::<[bf16; FOUR]>() + self.planes() * MATRIX * MATRIX * size_of::<f32>()
    }
}

/// What is in shared memory of an operand at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Part {
    /// A row has what belongs to one inner index, along the side of the tile; else the inner indices of one row or column of
    /// the tile.
    along: bool,
}

impl Part {
    /// Fours of a row.
    fn row(self) -> usize {
        (if self.along { SIDE } else { DEPTH }) / FOUR
    }

    /// Fours from one row to the next.
    fn stride(self) -> usize {
        self.row() + PAD / FOUR
    }

    /// Fours of shared memory.
    fn room(self) -> usize {
        self.stride() * if self.along { DEPTH } else { SIDE }
    }
}

/// The unit's fetch number `i` of a part: its row, and its place there in fours.
#[cube]
fn seat(#[comptime] i: usize, #[comptime] part: Part) -> (usize, usize) {
    let four = UNIT_POS as usize + i * UNITS;
    (four / comptime!(part.row()), four % comptime!(part.row()))
}

/// Reads the unit's fours of an operand's part, from row (or column) `first` and inner index `depth`. What is past the end
/// is 0.
#[cube]
fn fetch<E: Float>(
    from: &Array<Operands<E>>,
    block: &mut Array<Operands<E>>,
    operand: Operand,
    first: usize,
    depth: usize,
    #[comptime] part: Part,
    #[comptime] edges: bool,
) {
    #[unroll]
    for i in 0..LOADS {
        let (row, four) = seat(i, part);
        if comptime!(part.along) {
            let (outer, inner) = (first + four * FOUR, depth + row);
            let at = operand.start + inner * (operand.outer / FOUR) + outer / FOUR;
            block[i] = read(from, at, outer < operand.outer && inner < operand.end, edges);
        } else {
            let (outer, inner) = (first + row, depth + four * FOUR);
            let at = operand.start + outer * (operand.inner / FOUR) + inner / FOUR;
            block[i] = read(from, at, outer < operand.outer && inner < operand.end, edges);
        }
    }
}

/// Puts what was fetched into shared memory from `start`.
#[cube]
fn put<E: Float>(block: &Array<Operands<E>>, to: &mut SharedMemory<Halves>, start: usize, #[comptime] part: Part) {
    #[unroll]
    for i in 0..LOADS {
        let (row, four) = seat(i, part);
        to[start + row * comptime!(part.stride()) + four] = Halves::cast_from(block[i]);
    }
}

/// The cooperative matrix of the part at `start` from row (or column) `outer` and inner index `inner` on.
#[cube]
fn matrix(
    from: SharedMemory<Halves>,
    start: usize,
    outer: usize,
    inner: usize,
    #[comptime] ident: MatrixIdent,
    #[comptime] part: Part,
) -> cmma::Matrix<Halves> {
    let layout = comptime!(if part.along == (ident == MatrixIdent::B) {
        MatrixLayout::RowMajor
    } else {
        MatrixLayout::ColMajor
    });
    let mut at = start;
    if comptime!(part.along) {
        at += inner * comptime!(part.stride()) + outer / FOUR;
    } else {
        at += outer * comptime!(part.stride()) + inner / FOUR;
    }
    cmma::Matrix::<Halves>::from_slice(
        ident,
        MATRIX,
        MATRIX,
        MATRIX,
        layout,
        &from.slice(at, start + comptime!(part.room())),
        comptime!((part.stride() * FOUR) as u32),
    )
}

/// The first row and column of the plane's rectangle in its cube's tile.
#[cube]
fn rectangle(#[comptime] units: TensorUnits) -> (usize, usize) {
    let plane = UNIT_POS as usize / comptime!(units.plane);
    let (down, across) = comptime!(units.grid());
    (
        plane / across * comptime!(SIDE / down),
        plane % across * comptime!(SIDE / across),
    )
}

/// The unit's fours of the cube's tile of the product.
#[cube]
pub(super) fn multiply<E: Float>(
    x: &Array<Operands<E>>,
    y: &Array<Operands<E>>,
    place: Place,
    tile: Tile,
    #[comptime] plan: Plan,
    #[comptime] units: TensorUnits,
) -> Array<Four> {
    let x_part = comptime!(Part {
        along: plan.x_transposed,
    });
    let y_part = comptime!(Part {
        along: !plan.y_transposed,
    });
    let (x_room, y_room) = comptime!((x_part.room(), y_part.room()));
    let (down, across) = comptime!(units.matrices());
    let mut left = SharedMemory::<Halves>::new(comptime!(2 * x_room));
    let mut right = SharedMemory::<Halves>::new(comptime!(2 * y_room));
    let mut sums = Sequence::<cmma::Matrix<f32>>::new();
    #[unroll]
    for _ in 0..down * across {
        sums.push(cmma::Matrix::<f32>::from_value(
            MatrixIdent::Accumulator,
            MATRIX,
            MATRIX,
            MATRIX,
            MatrixLayout::Undefined,
            0.0,
        ));
    }

    let end = min(tile.depth + place.share, place.inner);
    let x_operand = left_operand(place, end);
    let y_operand = right_operand(place, end);
    let mut x_block = Array::<Operands<E>>::new(LOADS);
    let mut y_block = Array::<Operands<E>>::new(LOADS);
    fetch(x, &mut x_block, x_operand, tile.row, tile.depth, x_part, plan.edges);
    fetch(y, &mut y_block, y_operand, tile.column, tile.depth, y_part, plan.edges);
    put(&x_block, &mut left, 0, x_part);
    put(&y_block, &mut right, 0, y_part);
    sync_cube();

    let (row, column) = rectangle(units);
    let mut depth = tile.depth + DEPTH;
    let mut x_start = 0usize;
    let mut y_start = 0usize;
    while depth < end + DEPTH {
        // The next part arrives while this one is multiplied.
        if depth < end {
            fetch(x, &mut x_block, x_operand, tile.row, depth, x_part, plan.edges);
            fetch(y, &mut y_block, y_operand, tile.column, depth, y_part, plan.edges);
        }
        #[unroll]
        for k in 0..DEPTH / MATRIX {
            let inner = k * MATRIX;
            let mut b = Sequence::<cmma::Matrix<Halves>>::new();
            #[unroll]
            for j in 0..across {
                b.push(matrix(
                    right,
                    y_start,
                    column + j * MATRIX,
                    inner,
                    MatrixIdent::B,
                    y_part,
                ));
            }
            #[unroll]
            for i in 0..down {
                let a = matrix(left, x_start, row + i * MATRIX, inner, MatrixIdent::A, x_part);
                #[unroll]
                for j in 0..across {
                    let sum = sums.index(comptime!(i * across + j));
                    cmma::execute(&a, b.index(j), sum, sum);
                }
            }
        }
        x_start = x_room - x_start;
        y_start = y_room - y_start;
        if depth < end {
            put(&x_block, &mut left, x_start, x_part);
            put(&y_block, &mut right, y_start, y_part);
        }
        sync_cube();
        depth += DEPTH;
    }
    let matrix_fours = comptime!(MATRIX * MATRIX / FOUR);
    let mut staged = SharedMemory::<Four>::new(comptime!(units.planes() * matrix_fours));
    let lane = UNIT_POS as usize % comptime!(units.plane);
    let start = UNIT_POS as usize / comptime!(units.plane) * matrix_fours;
    let mut fours = Array::<Four>::new(SHARE);
    #[unroll]
    for m in 0..down * across {
        cmma::store(
            &mut staged.slice_mut(start, start + matrix_fours),
            sums.index(m),
            MATRIX as u32,
            MatrixLayout::RowMajor,
        );
        sync_cube();
        #[unroll]
        for i in 0..comptime!(units.fours()) {
            fours[comptime!(m * units.fours() + i)] = staged[start + comptime!(i * units.plane) + lane];
        }
        sync_cube();
    }
    fours
}

/// The place of four number `i` of a unit's share.
#[cube]
pub(super) fn spot(
    place: Place,
    tile: Tile,
    #[comptime] i: usize,
    #[comptime] edges: bool,
    #[comptime] units: TensorUnits,
) -> Spot {
    let (fours, across) = comptime!((units.fours(), units.matrices().1));
    let (matrix_down, matrix_across) = comptime!((i / fours / across, i / fours % across));
    let (row, column) = rectangle(units);
    let in_row = comptime!(MATRIX / FOUR);
    let four = UNIT_POS as usize % comptime!(units.plane) + comptime!(i % fours * units.plane);
    let row = tile.row + row + matrix_down * MATRIX + four / in_row;
    let column = tile.column + column + matrix_across * MATRIX + four % in_row * FOUR;
    Spot {
        column,
        at: tile.out + (row * place.columns + column) / FOUR,
        inside: !comptime!(edges) || (row < place.rows && column < place.columns),
    }
}
