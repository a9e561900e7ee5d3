//! The tile unit (AMX) of Intel's server processors from Sapphire Rapids on: whether it is there, and its instructions.

use super::tile::{BAND, SIDE, Tile};
use ndarray::ArrayViewMut2;
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;
use std::sync::LazyLock;

/// Whether this processor has a tile unit that multiplies `bf16`, and the system lets us use it.
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
