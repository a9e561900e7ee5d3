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
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Lines, or pairs of elements, of a tile.
const SIDE: usize = 16;
/// Elements of the inner dimension that a tile holds of each line.
pub(super) const DEPTH: usize = 2 * SIDE;
/// Lines of a band: two tiles beside each other.
pub(super) const BAND: usize = 2 * SIDE;
/// Rows and columns of a block of the result, whose sums are in a core's own cache with the tiles they are made of.
const BLOCK: usize = 256;
/// Tiles along the inner dimension that are multiplied before the next band's.
const RUN: usize = 16;

/// Pairs of elements that lie beside each other along the inner dimension; the first of a pair in the low half.
///
/// A row holds one line's pairs in a tile of the left operand, and one pair of each line in a tile of the right one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Tile([[u32; SIDE]; SIDE]);

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
    let [by_line, by_inner] = [0, 1].map(|axis| matrix.strides()[axis]);
    let of = if whole && by_inner == 1 {
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
    unit::with_tiles(|unit| {
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
        if matches!(start, Start::Result) {
            // SAFETY: by the meaning of `Start::Result`, it has been written.
            sums.zip_mut_with(block, |sum, value| *sum = unsafe { value.assume_init() }.wide());
        } else {
            begin(start, as_uninit(sums));
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

/// Whether this processor has a tile unit that multiplies `bf16`, and the system lets us use it.
pub(super) fn available() -> bool {
    unit::available()
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod unit {
    use super::{BAND, SIDE, Tile};
    use ndarray::ArrayViewMut2;
    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;
    use std::marker::PhantomData;
    use std::sync::LazyLock;

    pub(super) fn available() -> bool {
        static AVAILABLE: LazyLock<bool> = LazyLock::new(|| has_unit() && permitted());
        *AVAILABLE
    }

    /// Intel's manual, volume 2A, CPUID: leaf 7 tells of AMX in the bits 22 (`bf16`) and 24 (tiles) of EDX. A processor
    /// without that leaf answers with another's bits, but has no AVX-512 either.
    fn has_unit() -> bool {
        let bits = __cpuid_count(7, 0).edx;
        is_x86_feature_detected!("avx512f") && (bits >> 22) & 1 == 1 && (bits >> 24) & 1 == 1
    }

    /// Asks Linux for the tiles' state, which a process must before it uses them (`Documentation/arch/x86/xstate.rst`).
    fn permitted() -> bool {
        const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
        const XFEATURE_XTILEDATA: libc::c_long = 18;
        // SAFETY: asks for a permission and takes no pointers.
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
    }

    /// The operand of `ldtilecfg`: palette 1, and the bytes of a row and the rows of each of eight tiles.
    #[repr(C, align(64))]
    struct Configuration {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        row_bytes: [u16; 16],
        rows: [u8; 16],
    }

    static CONFIGURATION: Configuration = Configuration {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
        rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
    };

    /// The unit of this thread, configured. Not to be sent to another.
    pub(super) struct Unit(PhantomData<*const ()>);

    /// Runs `work` with the unit configured, and then gives its state back.
    ///
    /// # Panics
    /// If it is not [`available`].
    pub(super) fn with_tiles(work: impl FnOnce(&Unit)) {
        assert!(available());
        // SAFETY: the processor has the unit, and the system allows it; the configuration is a valid one.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(nostack, readonly)) };
        work(&Unit(PhantomData));
        // SAFETY: as above; no tile is needed any more.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }

    impl Unit {
        /// Adds to `sums`, or with `fresh` writes to it, the product of two bands of `steps` places.
        ///
        /// # Shapes
        /// `sums` is `[32, 32]`, its rows each in one piece.
        #[expect(clippy::unused_self, reason = "only a configured unit multiplies")]
        pub(super) fn multiply(&self, a: &[Tile], b: &[Tile], steps: usize, fresh: bool, mut sums: ArrayViewMut2<f32>) {
            assert!(steps > 0 && a.len() >= 2 * steps && b.len() >= 2 * steps, "tiles");
            assert!(sums.dim() == (BAND, BAND) && sums.strides()[1] == 1 && sums.strides()[0] > 0);
            let row = sums.strides()[0].cast_unsigned() * size_of::<f32>();
            let upper = sums.as_mut_ptr();
            // SAFETY: `with_tiles` configured the unit, whose registers nothing else touches between its instructions; the
            // loop reads `2·steps` tiles of each operand and reads and writes 32 rows of 32 sums, which the assertions cover.
            unsafe {
                let lower = upper.byte_add(SIDE * row);
                asm!(
                    "test {fresh}, {fresh}",
                    "jnz 2f",
                    "tileloadd tmm0, [{upper} + {row}]",
                    "tileloadd tmm1, [{upper} + {row} + 64]",
                    "tileloadd tmm2, [{lower} + {row}]",
                    "tileloadd tmm3, [{lower} + {row} + 64]",
                    "jmp 3f",
                    "2:",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "3:",
                    "tileloadd tmm4, [{a} + {line}]",
                    "tileloadd tmm6, [{b} + {line}]",
                    "tileloadd tmm5, [{a} + {line} + 1024]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{b} + {line} + 1024]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "add {a}, 2048",
                    "add {b}, 2048",
                    "dec {steps}",
                    "jnz 3b",
                    "tilestored [{upper} + {row}], tmm0",
                    "tilestored [{upper} + {row} + 64], tmm1",
                    "tilestored [{lower} + {row}], tmm2",
                    "tilestored [{lower} + {row} + 64], tmm3",
                    a = inout(reg) a.as_ptr() => _,
                    b = inout(reg) b.as_ptr() => _,
                    steps = inout(reg) steps => _,
                    fresh = in(reg) u64::from(fresh),
                    upper = in(reg) upper,
                    lower = in(reg) lower,
                    row = in(reg) row,
                    line = in(reg) size_of::<Tile>() / SIDE,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
mod unit {
    use super::Tile;
    use ndarray::ArrayViewMut2;

    pub(super) enum Unit {}

    pub(super) fn available() -> bool {
        false
    }

    pub(super) fn with_tiles(_work: impl FnOnce(&Unit)) {
        unreachable!("asked for only where it is available");
    }

    impl Unit {
        pub(super) fn multiply(
            &self,
            _a: &[Tile],
            _b: &[Tile],
            _steps: usize,
            _fresh: bool,
            _sums: ArrayViewMut2<f32>,
        ) {
            match *self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            product_into(&a, &b, Start::Result, as_uninit(sum.view_mut()));
            assert_eq!(sum, expected + above);
        }
    }
}
