//! The shape of the tiles that the tile unit multiplies.

/// Lines, or pairs of elements, of a tile.
pub(super) const SIDE: usize = 16;
/// Elements of the inner dimension that a tile holds of each line.
pub(super) const DEPTH: usize = 2 * SIDE;
/// Lines of a band: two tiles next to each other.
pub(super) const BAND: usize = 2 * SIDE;

/// Pairs of elements that are next to each other along the inner dimension; the first of a pair in the low half.
///
/// A row holds one line's pairs in a tile of the left operand, and one pair of each line in a tile of the right one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Tile(pub(super) [[u32; SIDE]; SIDE]);
