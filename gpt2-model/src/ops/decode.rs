//! [`DecodeKernels`] of Burn's CubeCL backends, by the kernels of `gpt2-cubecl`.

use super::types::{BlockWeights, ClassifierShape, DecodeKernels, DecodeShape};
use crate::capabilities::{DECODE_WIDEST_HEAD, WGPU_LANES};
use crate::precision::Precision;
use burn_cubecl::element::{BoolElement, FloatElement, IntElement};
use burn_cubecl::{CubeBackend, CubeRuntime};
use gpt2_cubecl::decode::{self, Rounding, Weights};
use gpt2_cubecl::{Tensor, contiguous, owned};

const _: () = assert!(gpt2_cubecl::LANES == WGPU_LANES && decode::WIDEST_HEAD == DECODE_WIDEST_HEAD);

/// The kernels of a backend on `R`.
pub(super) fn kernels<R, F, I, BT>() -> DecodeKernels<CubeBackend<R, F, I, BT>>
where
    R: CubeRuntime,
    F: FloatElement,
    I: IntElement,
    BT: BoolElement,
{
    DecodeKernels {
        block: block::<R>,
        logits: logits::<R>,
    }
}

fn block<R: CubeRuntime>(
    x: Tensor<R>,
    weights: BlockWeights<Tensor<R>>,
    held: [Tensor<R>; 2],
    shape: DecodeShape,
) -> (Tensor<R>, [Tensor<R>; 2]) {
    let (x, held) = (owned(x), held.map(owned));
    let weights = weights.map(contiguous);
    let weights = Weights {
        ln_1: weights.ln_1,
        qkv: weights.qkv,
        attention_out: weights.attention_out,
        ln_2: weights.ln_2,
        feed_in: weights.feed_in,
        feed_out: weights.feed_out,
    };
    decode::block(&x, &weights, held.each_ref(), shape.past, rounding(shape.precision));
    (x, held)
}

fn logits<R: CubeRuntime>(hidden: Tensor<R>, classifier: Tensor<R>, shape: ClassifierShape) -> Tensor<R> {
    decode::logits(
        &contiguous(hidden),
        &contiguous(classifier),
        shape.vocab_size,
        rounding(shape.precision),
    )
}

fn rounding(precision: Precision) -> Rounding {
    match precision {
        Precision::F32 | Precision::Tf32 => Rounding::None,
        Precision::Bf16 => Rounding::Bf16,
    }
}
