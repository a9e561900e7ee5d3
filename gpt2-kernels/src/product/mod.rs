//! Matrix products with what comes right after them.
//!
//! Which kernel runs follows from the operands' type and the device: `bf16` on Hopper through its warpgroup products, on
//! other GPUs through those of a warp; `f32` as an operand in TF32 (Burn's `Flex32`) likewise; `f32` in full on the CUDA cores or,
//! where the tensor cores are more than three times as fast at TF32, as three products there, which are as exact.

mod hopper;
mod hopper_tf32;
mod tiled;

#[cfg(test)]
use crate::launch::Kernel;
use crate::launch::{ComputeCapability, compute_capability, empty, empty_within};
use crate::{Tensor, columns};
use burn::tensor::{DType, TensorMetadata};
use std::cell::Cell;

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
    let sizes = Sizes::of(Layout::Nt, a, b);
    let out = empty(a, &[sizes.m, sizes.n], a.dtype);
    let sum_rows = match Path::of(Layout::Nt, sizes, a.dtype, compute_capability(a)) {
        Path::Hopper => Some(hopper::sum_rows(sizes.m)),
        Path::HopperTf32 => Some(hopper_tf32::sum_rows(sizes.m)),
        _ => None,
    };
    let partial = sum_rows.map(|rows| empty(a, &[rows, sizes.n], DType::F32));
    let epilogue = Epilogue::GeluGradient {
        inner,
        column_sums: partial.as_ref(),
    };
    run(Layout::Nt, a, b, &out, &epilogue);
    let sums = match &partial {
        Some(partial) => {
            let [sums] = columns::sum_rows([partial]);
            sums
        }
        None => columns::operand_with_sums(&out, out.dtype).1,
    };
    (out, sums)
}

/// `aᵀ·b`: `[K, M]` times `[K, N]`, in `f32`.
pub fn by_rows(a: &Tensor, b: &Tensor) -> Tensor {
    by_rows_within(a, b, 0)
}

/// [`by_rows`] at the front of `bytes` bytes of memory, if it takes less.
fn by_rows_within(a: &Tensor, b: &Tensor, bytes: usize) -> Tensor {
    let out = empty_within(a, &[a.shape()[1], b.shape()[1]], DType::F32, bytes);
    run(Layout::Tn, a, b, &out, &Epilogue::Single { accumulate: false });
    out
}

thread_local! {
    /// See [`set_reuses_activations`].
    static REUSES_ACTIVATIONS: Cell<bool> = const { Cell::new(false) };
}

/// Whether [`gradient_by_rows`] takes, on this thread from now on, the memory of activations. They are dead when the
/// gradients are made; gradients that live on in the next forward pass would keep more memory than they need.
pub fn set_reuses_activations(on: bool) {
    REUSES_ACTIVATIONS.set(on);
}

/// [`by_rows`], the gradient of weights. Memory is kept for the next tensor of exactly its size: where that of
/// activations is [reused](set_reuses_activations), the gradient takes as much as `like`, which activations are as
/// large as, if that is enough. `cost.rs` of gpt2-model knows which.
pub fn gradient_by_rows(a: &Tensor, b: &Tensor, like: &Tensor) -> Tensor {
    let bytes = if REUSES_ACTIVATIONS.get() {
        like.shape().num_elements() * like.dtype.size()
    } else {
        0
    };
    by_rows_within(a, b, bytes)
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
        /// Of each block of rows, `[blocks, N]`; the kernels for Hopper alone write it.
        column_sums: Option<&'a Tensor>,
    },
    /// Stored in `f32`.
    Single {
        accumulate: bool,
    },
}

impl Epilogue<'_> {
    fn kind(&self) -> EpilogueKind {
        match self {
            Self::Plain => EpilogueKind::Plain,
            Self::Bias(_) => EpilogueKind::Bias,
            Self::Gelu { .. } => EpilogueKind::Gelu,
            Self::Onto { .. } => EpilogueKind::Onto,
            Self::GeluGradient { column_sums, .. } => EpilogueKind::GeluGradient {
                column_sums: column_sums.is_some(),
            },
            Self::Single { accumulate } => EpilogueKind::Single {
                accumulate: *accumulate,
            },
        }
    }
}

/// What of an [`Epilogue`] a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EpilogueKind {
    Plain,
    Bias,
    Gelu,
    Onto,
    GeluGradient { column_sums: bool },
    Single { accumulate: bool },
}

/// The products that there are. A kernel is compiled for each of them by a test; [`run`] takes no other.
const PRODUCTS: [(Layout, EpilogueKind); 9] = [
    (Layout::Nn, EpilogueKind::Plain),
    (Layout::Nn, EpilogueKind::Bias),
    (Layout::Nn, EpilogueKind::Gelu),
    (Layout::Nn, EpilogueKind::Onto),
    (Layout::Nt, EpilogueKind::Plain),
    (Layout::Nt, EpilogueKind::GeluGradient { column_sums: false }),
    (Layout::Nt, EpilogueKind::GeluGradient { column_sums: true }),
    (Layout::Tn, EpilogueKind::Single { accumulate: false }),
    (Layout::Tn, EpilogueKind::Single { accumulate: true }),
];

/// Every kernel of a product on a device, to be compiled by a test.
#[cfg(test)]
pub(crate) fn kernels(capability: ComputeCapability) -> Vec<Kernel> {
    let dtypes = [DType::BF16, DType::Flex32, DType::F32];
    // Widths that the kernels with panels take, and widths that they do not.
    let widths = [hopper::PANEL, hopper::PANEL / 2];
    let mut kernels = Vec::new();
    for (layout, epilogue) in PRODUCTS {
        for (dtype, width) in dtypes.into_iter().flat_map(|dtype| widths.map(|width| (dtype, width))) {
            let [m, n, k] = [width; 3];
            kernels.extend(match Path::of(layout, Sizes { m, n, k }, dtype, capability) {
                Path::Hopper => hopper::kernels(layout, epilogue),
                Path::HopperTf32 => hopper_tf32::kernels(layout, epilogue),
                Path::Portable => tiled::BF16.kernels(layout, epilogue),
                Path::Tf32 => tiled::TF32.kernels(layout, epilogue),
                Path::Split => tiled::SPLIT.kernels(layout, epilogue),
                Path::Single => tiled::F32.kernels(layout, epilogue),
            });
        }
    }
    kernels
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
    HopperTf32,
    Portable,
    Tf32,
    Split,
    Single,
}

impl Path {
    /// For operands of this type on this device.
    fn of(layout: Layout, sizes: Sizes, dtype: DType, capability: ComputeCapability) -> Self {
        // What is summed over in TN are rows, of which there may be any number.
        let widths = [sizes.n, if layout == Layout::Tn { sizes.m } else { sizes.k }];
        let in_panels = widths.iter().all(|width| width % hopper::PANEL == 0);
        let on_hopper = in_panels && capability.has_wgmma();
        match dtype {
            DType::F32 if capability.has_fast_tf32() => Self::Split,
            DType::F32 => Self::Single,
            DType::Flex32 if on_hopper => Self::HopperTf32,
            DType::Flex32 => Self::Tf32,
            _ if on_hopper => Self::Hopper,
            _ => Self::Portable,
        }
    }
}

fn run(layout: Layout, a: &Tensor, b: &Tensor, out: &Tensor, epilogue: &Epilogue) {
    let sizes = Sizes::of(layout, a, b);
    let operands = [a, b];
    let product = (layout, epilogue.kind());
    assert!(PRODUCTS.contains(&product), "no kernel is compiled for {product:?}");
    match Path::of(layout, sizes, a.dtype, compute_capability(a)) {
        Path::Hopper => hopper::run(layout, sizes, operands, out, epilogue),
        Path::HopperTf32 => hopper_tf32::run(layout, sizes, operands, out, epilogue),
        Path::Portable => tiled::BF16.run(layout, sizes, operands, out, epilogue),
        Path::Tf32 => tiled::TF32.run(layout, sizes, operands, out, epilogue),
        Path::Split => tiled::SPLIT.run(layout, sizes, operands, out, epilogue),
        Path::Single => tiled::F32.run(layout, sizes, operands, out, epilogue),
    }
}

fn outer(x: &Tensor, w: &Tensor) -> [usize; 2] {
    [x.shape()[0], w.shape()[1]]
}
