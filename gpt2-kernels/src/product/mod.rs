//! Matrix products with what comes right after them.
//!
//! Which kernel runs follows from the operands' type and the device: `bf16` on Hopper through its warpgroup products, on
//! other GPUs through those of a warp; `f32` as an operand in TF32 (Burn's `Flex32`) likewise; `f32` in full on the CUDA cores or,
//! where the tensor cores are more than three times as fast at TF32, as three products there, which are as exact.

mod hopper;
mod tiled;

use crate::launch::{compute_capability, empty};
use crate::{Tensor, columns};
use burn::tensor::{DType, TensorMetadata};

/// `x·w + bias`: `x` is `[N, in]`, `w` `[in, out]`, `bias` `[out]` in `f32`; the result `[N, out]`, in the type of `x`.
pub fn affine(x: &Tensor, w: &Tensor, bias: &Tensor) -> Tensor {
    let out = empty(x, &outer(x, w), x.dtype);
    run(Layout::Nn, x, w, &out, &Epilogue::Bias(bias));
    out
}

/// `h = x·w + bias` and GELU of `h`, both in the type of `x`.
pub fn affine_gelu(x: &Tensor, w: &Tensor, bias: &Tensor) -> (Tensor, Tensor) {
    let [inner, activated] = [(); 2].map(|()| empty(x, &outer(x, w), x.dtype));
    run(
        Layout::Nn,
        x,
        w,
        &inner,
        &Epilogue::Gelu {
            bias,
            activated: &activated,
        },
    );
    (inner, activated)
}

/// `residual + x·w + bias`, in `f32`.
pub fn affine_onto(residual: &Tensor, x: &Tensor, w: &Tensor, bias: &Tensor) -> Tensor {
    let out = empty(x, &outer(x, w), DType::F32);
    run(Layout::Nn, x, w, &out, &Epilogue::Onto { bias, residual });
    out
}

/// Writes `a·b`, `[M, K]` times `[K, N]`, to `out`, `[M, N]`, in the type of `a`.
pub(crate) fn plain_into(a: &Tensor, b: &Tensor, out: &Tensor) {
    run(Layout::Nn, a, b, out, &Epilogue::Plain);
}

/// `a·bᵀ`: `[M, K]` times `[N, K]`, in the type of `a`.
pub fn transposed(a: &Tensor, b: &Tensor) -> Tensor {
    let out = empty(a, &[a.shape()[0], b.shape()[0]], a.dtype);
    run(Layout::Nt, a, b, &out, &Epilogue::Plain);
    out
}

/// `a·bᵀ` times GELU's derivative at `inner`, `[M, N]`, in the type of `a`, and the sums of its columns, `[N]` in `f32`.
pub fn transposed_by_gelu(a: &Tensor, b: &Tensor, inner: &Tensor) -> (Tensor, Tensor) {
    let ([m, _], [n, _]): ([usize; 2], [usize; 2]) = (a.shape().dims(), b.shape().dims());
    let out = empty(a, &[m, n], a.dtype);
    let partial = empty(a, &[hopper::sum_rows(m), n], DType::F32);
    let epilogue = Epilogue::GeluGradient {
        inner,
        column_sums: &partial,
    };
    if run(Layout::Nt, a, b, &out, &epilogue) == Path::Hopper {
        let [sums] = columns::sum_rows([&partial]);
        return (out, sums);
    }
    let (_, sums) = columns::operand_with_sums(&out, out.dtype);
    (out, sums)
}

/// `aᵀ·b`: `[K, M]` times `[K, N]`, in `f32`.
pub fn by_rows(a: &Tensor, b: &Tensor) -> Tensor {
    let out = empty(a, &[a.shape()[1], b.shape()[1]], DType::F32);
    run(Layout::Tn, a, b, &out, &Epilogue::Single { accumulate: false });
    out
}

/// Adds `aᵀ·b` to `sum`, `[M, N]` in `f32`.
pub fn add_by_rows(a: &Tensor, b: &Tensor, sum: &Tensor) {
    run(Layout::Tn, a, b, sum, &Epilogue::Single { accumulate: true });
}

/// How the operands lie in memory: whether the dimension that is summed over is the last (N) or the first (T) of the left
/// one, and the first (N) or the last (T) of the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Nn,
    Nt,
    Tn,
}

impl Layout {
    /// The number that the kernels know it by.
    fn code(self) -> usize {
        match self {
            Self::Nn => 0,
            Self::Nt => 1,
            Self::Tn => 2,
        }
    }
}

/// What is done to the sum before it is stored.
enum Epilogue<'a> {
    Plain,
    Bias(&'a Tensor),
    Gelu {
        bias: &'a Tensor,
        activated: &'a Tensor,
    },
    Onto {
        bias: &'a Tensor,
        residual: &'a Tensor,
    },
    GeluGradient {
        inner: &'a Tensor,
        /// Written on Hopper alone: of each block of rows, `[blocks, N]`.
        column_sums: &'a Tensor,
    },
    /// Stored in `f32`.
    Single {
        accumulate: bool,
    },
}

/// A product's sizes: rows and columns of the result, and what is summed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    m: usize,
    n: usize,
    k: usize,
}

impl Sizes {
    fn of(layout: Layout, a: &Tensor, b: &Tensor) -> Self {
        let ([a0, a1], [b0, b1]): ([usize; 2], [usize; 2]) = (a.shape().dims(), b.shape().dims());
        let (m, k) = if layout == Layout::Tn { (a1, a0) } else { (a0, a1) };
        let (n, inner) = if layout == Layout::Nt { (b0, b1) } else { (b1, b0) };
        assert_eq!(k, inner, "the operands share a dimension");
        Self { m, n, k }
    }
}

/// Which kernel a product takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Hopper,
    Portable,
    Tf32,
    Split,
    Single,
}

fn run(layout: Layout, a: &Tensor, b: &Tensor, out: &Tensor, epilogue: &Epilogue) -> Path {
    let sizes = Sizes::of(layout, a, b);
    // What is summed over in TN are rows, of which there may be any number.
    let widths = [sizes.n, if layout == Layout::Tn { sizes.m } else { sizes.k }];
    let in_panels = widths.iter().all(|width| width % hopper::PANEL == 0);
    let path = match a.dtype {
        DType::F32 if tensor_cores_are_fast(a) => Path::Split,
        DType::F32 => Path::Single,
        DType::Flex32 => Path::Tf32,
        _ if in_panels && compute_capability(a) == (9, 0) => Path::Hopper,
        _ => Path::Portable,
    };
    match path {
        Path::Hopper => hopper::run(layout, sizes, [a, b], out, epilogue),
        Path::Portable => tiled::BF16.run(layout, sizes, [a, b], out, epilogue),
        Path::Tf32 => tiled::TF32.run(layout, sizes, [a, b], out, epilogue),
        Path::Split => tiled::SPLIT.run(layout, sizes, [a, b], out, epilogue),
        Path::Single => tiled::F32.run(layout, sizes, [a, b], out, epilogue),
    }
    path
}

/// Whether TF32 is far more than three times as fast as `f32` on the CUDA cores: on A100, H100 and B200, but on no GPU made for
/// desktops.
fn tensor_cores_are_fast(at: &Tensor) -> bool {
    let (major, minor) = compute_capability(at);
    minor == 0 && (8..=10).contains(&major)
}

fn outer(x: &Tensor, w: &Tensor) -> [usize; 2] {
    [x.shape()[0], w.shape()[1]]
}
