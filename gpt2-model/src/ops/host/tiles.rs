//! Products of `bf16` operands, summed in `f32`, on the tile unit (AMX) of Intel's server processors from Sapphire Rapids on.
//!
//! An operand is first rounded and laid out as the unit reads it: tiles of 16 lines by 32 elements of the inner dimension, two
//! tiles of neighbouring lines beside each other. Lines are rows of the left operand, columns of the right one. The sums are
//! made up in the order of the inner dimension, whatever the number of threads.

#![expect(
    clippy::inline_always,
    reason = "only what is inlined is compiled for the processor's vectors"
)]

use super::element::Element;
use super::math::vectorised;
use super::memory::{as_uninit, written};
use super::product::{Start, begin};
use super::tile::{BAND, DEPTH, SIDE, Tile};
use super::tile_unit::{available, with_tiles};
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Rows and columns of a block of the result, whose sums are in a core's own cache with the tiles they are made of.
const BLOCK: usize = 256;
/// Tiles along the inner dimension that are multiplied before the next band's.
const RUN: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Left,
    Right,
}

/// An operand as the unit reads it.
#[derive(Default)]
pub(super) struct Operand {
    /// By band, by place along the inner dimension, by half of the band.
    tiles: Vec<Tile>,
    /// Places along the inner dimension.
    steps: usize,
    lines: usize,
}

impl Operand {
    /// `matrix` is `[lines, inner]`: a left operand as it stands, a right one transposed.
    pub(super) fn new<E: Element>(matrix: ArrayView2<E>, role: Role) -> Self {
        let (lines, inner) = matrix.dim();
        let steps = inner.div_ceil(DEPTH);
        let tiles = written(lines.div_ceil(BAND) * steps * 2, 2 * steps, |band, out| {
            for (i, out) in out.iter_mut().enumerate() {
                out.write(tile(matrix, role, band, i));
            }
            // SAFETY: all of them were written just now.
            unsafe { out.assume_init_mut() }
        });
        Self { tiles, steps, lines }
    }

    /// Holds another matrix from now on: [`Operand::new`] on this thread, in the memory that is there.
    pub(super) fn hold<E: Element>(&mut self, matrix: ArrayView2<E>, role: Role) {
        let (lines, inner) = matrix.dim();
        (self.lines, self.steps) = (lines, inner.div_ceil(DEPTH));
        self.tiles.clear();
        for band in 0..self.bands() {
            self.tiles
                .extend((0..2 * self.steps).map(|i| tile(matrix, role, band, i)));
        }
    }

    /// The tiles of a band from the place `step` on.
    fn band(&self, band: usize, step: usize) -> &[Tile] {
        &self.tiles[2 * (band * self.steps + step)..]
    }

    /// Tiles along the inner dimension.
    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    pub(super) fn bands(&self) -> usize {
        self.lines.div_ceil(BAND)
    }
}

/// The `i`th tile of a band of `matrix`, `[lines, inner]`, with zeros where it ends.
fn tile<E: Element>(matrix: ArrayView2<E>, role: Role, band: usize, i: usize) -> Tile {
    let (all_lines, all_inner) = matrix.dim();
    let (line, step) = ((band * BAND + i % 2 * SIDE).min(all_lines), i / 2 * DEPTH);
    let (lines, inner) = ((all_lines - line).min(SIDE), (all_inner - step).min(DEPTH));
    let matrix = matrix.slice(s![line..line + lines, step..step + inner]);
    let mut rows = [[0; SIDE]; SIDE];
    let whole = lines == SIDE && inner == DEPTH;
    let [by_line, grad_inner] = [0, 1].map(|axis| matrix.strides()[axis]);
    let of = if whole && grad_inner == 1 {
        for (row, line) in rows.iter_mut().zip(matrix.outer_iter()) {
            let line = line.to_slice().expect("lines in one piece");
            vectorised(
                #[inline(always)]
                || {
                    for (pair, elements) in row.iter_mut().zip(line.as_chunks().0) {
                        *pair = joined(*elements);
                    }
                },
            );
        }
        Role::Left
    } else if whole && by_line == 1 {
        for (row, pair) in rows.iter_mut().zip(matrix.axis_chunks_iter(Axis(1), 2)) {
            let [low, high] = [0, 1].map(|i| pair.index_axis_move(Axis(1), i).to_slice().expect("lines side by side"));
            vectorised(
                #[inline(always)]
                || {
                    for ((joint, &low), &high) in row.iter_mut().zip(low).zip(high) {
                        *joint = joined([low, high]);
                    }
                },
            );
        }
        Role::Right
    } else {
        for (row, line) in rows.iter_mut().zip(matrix.outer_iter()) {
            for (i, &element) in line.iter().enumerate() {
                row[i / 2] |= u32::from(bits(element)) << (i % 2 * 16);
            }
        }
        Role::Left
    };
    Tile(if of == role { rows } else { transposed(&rows) })
}

#[inline(always)]
fn joined<E: Element>([low, high]: [E; 2]) -> u32 {
    u32::from(bits(low)) | u32::from(bits(high)) << 16
}

#[inline(always)]
fn bits<E: Element>(element: E) -> u16 {
    half::bf16::rounded(element.wide()).to_bits()
}

fn transposed(rows: &[[u32; SIDE]; SIDE]) -> [[u32; SIDE]; SIDE] {
    std::array::from_fn(|i| std::array::from_fn(|j| rows[j][i]))
}

/// The product of `a`, `[m, k]`, and `b`, `[k, n]`, added to `start`.
///
/// # Panics
/// If this processor has no tile unit: see [`available`].
pub(super) fn product<E: Element>(a: &Operand, b: &Operand, start: Start) -> Array2<E> {
    let mut out = Array2::uninit((a.lines, b.lines));
    product_into(a, b, start, out.view_mut());
    // SAFETY: `product_into` writes every element.
    unsafe { out.assume_init() }
}

/// Writes the product of `a`, `[m, k]`, and `b`, `[k, n]`, added to `start`, to every element of `out`, `[m, n]`, whose rows
/// must each lie in one piece.
///
/// # Panics
/// If this processor has no tile unit: see [`available`].
pub(super) fn product_into<E: Element>(a: &Operand, b: &Operand, start: Start, out: ArrayViewMut2<MaybeUninit<E>>) {
    assert!(available(), "a tile unit");
    assert_eq!(
        (a.steps, out.dim()),
        (b.steps, (a.lines, b.lines)),
        "shapes of a product"
    );
    let mut blocks = Vec::new();
    for (i, rows) in pieces(out, Axis(0)).into_iter().enumerate() {
        let start = start.rows(i * BLOCK);
        for (j, block) in pieces(rows, Axis(1)).into_iter().enumerate() {
            blocks.push(([i, j], start.columns(j * BLOCK), block));
        }
    }
    blocks
        .into_par_iter()
        .for_each_init(Sums::default, |sums, ([i, j], start, mut block)| {
            sums.begin(start, &block);
            sums.add(a, b, [i, j]);
            for (out, sums) in block.outer_iter_mut().zip(sums.matrix().outer_iter()) {
                let out = out.into_slice().expect("rows in one piece");
                let sums = sums.to_slice().expect("rows in one piece");
                vectorised(
                    #[inline(always)]
                    || {
                        for (out, &sum) in out.iter_mut().zip(sums) {
                            out.write(E::rounded(sum));
                        }
                    },
                );
            }
        });
}

/// `matrix` in pieces of [`BLOCK`] along `axis`.
fn pieces<E>(mut matrix: ArrayViewMut2<E>, axis: Axis) -> Vec<ArrayViewMut2<E>> {
    let mut pieces = Vec::new();
    while matrix.len_of(axis) > 0 {
        let size = BLOCK.min(matrix.len_of(axis));
        let (piece, rest) = matrix.split_at(axis, size);
        pieces.push(piece);
        matrix = rest;
    }
    pieces
}

/// Adds to `sums`, or with `fresh` writes to it, the product of bands of `a` and of `b` over `steps` places of the inner
/// dimension, on this thread. A range of places starts at its own place in each operand.
///
/// # Shapes
/// `sums` is as many bands high and wide as there are; it lies in an [`Aligned`] buffer.
pub(super) fn multiply(
    [a, b]: [&Operand; 2],
    [rows, columns]: [Range<usize>; 2],
    [a_step, b_step]: [usize; 2],
    steps: usize,
    fresh: bool,
    mut sums: ArrayViewMut2<f32>,
) {
    with_tiles(|unit| {
        for (j, column) in columns.enumerate() {
            for (i, row) in rows.clone().enumerate() {
                let sums = sums.slice_mut(s![i * BAND..(i + 1) * BAND, j * BAND..(j + 1) * BAND]);
                unit.multiply(a.band(row, a_step), b.band(column, b_step), steps, fresh, sums);
            }
        }
    });
}

/// Numbers at the start of a line of the cache.
#[derive(Default)]
pub(super) struct Aligned(Vec<f32>);

impl Aligned {
    /// A matrix whose elements are whatever numbers were there.
    pub(super) fn matrix(&mut self, rows: usize, columns: usize) -> ArrayViewMut2<'_, f32> {
        const LINE: usize = 64;
        let spare = LINE / size_of::<f32>();
        if self.0.len() < rows * columns + spare {
            self.0.resize(rows * columns + spare, 0.0);
        }
        let offset = self.0.as_ptr().align_offset(LINE);
        ArrayViewMut2::from_shape((rows, columns), &mut self.0[offset..][..rows * columns])
            .expect("as many elements as the shape has")
    }
}

/// The sums of a block of the result.
#[derive(Default)]
struct Sums(Aligned);

impl Sums {
    fn matrix(&mut self) -> ArrayViewMut2<'_, f32> {
        self.0.matrix(BLOCK, BLOCK)
    }

    /// What the sums of `block` start from.
    fn begin<E: Element>(&mut self, start: Start, block: &ArrayViewMut2<MaybeUninit<E>>) {
        let (rows, columns) = block.dim();
        let mut sums = self.matrix().slice_move(s![..rows, ..columns]);
        if matches!(start, Start::Result(_)) {
            // SAFETY: it has been written, as `Written` promises.
            sums.zip_mut_with(block, |sum, value| *sum = unsafe { value.assume_init() }.wide());
        } else {
            // SAFETY: `begin` writes every element.
            begin(start, unsafe { as_uninit(sums) });
        }
    }

    /// Adds the block `[i, j]` of the product.
    fn add(&mut self, a: &Operand, b: &Operand, [i, j]: [usize; 2]) {
        const BANDS: usize = BLOCK / BAND;
        let bands = |operand: &Operand, block: usize| block * BANDS..operand.bands().min((block + 1) * BANDS);
        let (rows, columns) = (bands(a, i), bands(b, j));
        let sums = self.matrix();
        let mut sums = sums.slice_move(s![..rows.len() * BAND, ..columns.len() * BAND]);
        for step in (0..a.steps).step_by(RUN) {
            let steps = RUN.min(a.steps - step);
            let sums = sums.view_mut();
            multiply(
                [a, b],
                [rows.clone(), columns.clone()],
                [step, step],
                steps,
                false,
                sums,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::host::product::Written;
    use half::bf16;
    use ndarray::ArrayView1;

    /// Whole numbers whose products add up exactly, whatever the order.
    fn numbers(rows: usize, columns: usize, seed: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |(i, j)| ((i * 31 + j * 17 + seed) % 13) as f32 - 6.0)
    }

    fn check<E: Element>(a: ArrayView2<E>, b: ArrayView2<E>, start: Start, expected: &Array2<f32>) {
        let (a, b) = (Operand::new(a, Role::Left), Operand::new(b.t(), Role::Right));
        assert_eq!(product::<f32>(&a, &b, start), expected);
        assert_eq!(
            product::<bf16>(&a, &b, start).mapv(Element::wide),
            expected.mapv(|value| bf16::rounded(value).wide())
        );
    }

    #[test]
    fn products_of_every_shape_and_layout_are_exact() {
        if !available() {
            return;
        }
        for (m, k, n) in [(1, 1, 1), (16, 32, 16), (33, 47, 70), (300, 1_100, 270), (32, 512, 257)] {
            let (a, b) = (numbers(m, k, 1), numbers(k, n, 2));
            let (a_turned, b_turned) = (
                a.t().as_standard_layout().into_owned(),
                b.t().as_standard_layout().into_owned(),
            );
            let expected = a.dot(&b);
            for a in [a.view(), a_turned.t()] {
                for b in [b.view(), b_turned.t()] {
                    check(a, b, Start::Nothing, &expected);
                    check(
                        a.mapv(bf16::rounded).view(),
                        b.mapv(bf16::rounded).view(),
                        Start::Nothing,
                        &expected,
                    );
                }
            }
            let bias: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let above = numbers(m, n, 3);
            let with_bias = &expected + &ArrayView1::from(&bias);
            check(a.view(), b.view(), Start::Row(&bias), &with_bias);
            check(
                a.view(),
                b.view(),
                Start::Onto(above.view(), &bias),
                &(&with_bias + &above),
            );

            let mut sum = above.clone();
            let (a, b) = (Operand::new(a.view(), Role::Left), Operand::new(b.t(), Role::Right));
            // SAFETY: `sum` is written, and every element of it once more.
            let (written, sum_view) = unsafe { (Written::promise(), as_uninit(sum.view_mut())) };
            product_into(&a, &b, Start::Result(written), sum_view);
            assert_eq!(sum, expected + above);
        }
    }
}
