//! The operations on a GPU through wgpu, by the kernels of `gpt2-cubecl`.
//!
//! Tensors are `f32` in memory, in `bf16` too, but for what only products read: these round their other operands, which
//! Burn's `Flex32` marks, and everything else computes in `f32`. Other types, and attention heads that the kernels do not
//! take, go through the reference.

use super::backend::Gpt2Backend;
use super::decode;
use super::reference::{affine, attention, classifier, embedding, feed_forward, gelu, layer_norm, scale};
use super::types::{
    AffineGradients, Attended, ClassifierGradients, ClassifierShape, DecodeKernels, FeedForwardGradients, GradOutput,
    LayerNormGradients, Normalised,
};
use crate::capabilities::{BackendKind, FEW_LOGITS, WGPU_LANES, WGPU_LOGITS, WGPU_WIDEST_HEAD};
use crate::config::Gpt2Config;
use crate::precision::Precision;
use burn::tensor::ops::{FloatTensor, FloatTensorOps, IntTensor};
use burn::tensor::{DType, FloatDType, TensorMetadata};
use burn_wgpu::{CubeBackend, WgpuDevice, WgpuRuntime};
use gpt2_cubecl as kernels;
use gpt2_cubecl::product::TensorUnits;
use gpt2_cubecl::{contiguous, owned};

/// Burn's wgpu backend without its kernel fusion.
pub type Wgpu = CubeBackend<WgpuRuntime, f32, i32, u32>;

type Tensor = gpt2_cubecl::Tensor<WgpuRuntime>;

/// Whether products of `bf16` are computed on `device`: where it has tensor units for them.
pub fn multiplies_bf16(device: &WgpuDevice) -> bool {
    TensorUnits::on::<WgpuRuntime>(device).is_some()
}

const _: () = assert!(kernels::LANES == WGPU_LANES && kernels::attention::WIDEST_HEAD == WGPU_WIDEST_HEAD);

impl Gpt2Backend for Wgpu {
    fn plain_precision(_precision: Precision) -> Precision {
        // Vulkan has a type of bf16 for cooperative matrices, not for Burn's operations.
        Precision::F32
    }

    fn operand_type(precision: Precision) -> FloatDType {
        match precision {
            Precision::F32 | Precision::Tf32 => FloatDType::F32,
            Precision::Bf16 => FloatDType::Flex32,
        }
    }

    fn round_weights(w: Tensor, dtype: FloatDType) -> Tensor {
        match dtype {
            FloatDType::Flex32 => marked(w, dtype),
            _ => Self::float_cast(w, dtype),
        }
    }

    fn supports_matmul(x: &Tensor, w: &Tensor) -> bool {
        precision_of(x).is_some_and(|precision| BackendKind::Wgpu.supports_matmul(precision, w.shape().as_slice()))
    }

    fn supports_layer_norm(x: &Tensor, precision: Precision) -> bool {
        BackendKind::Wgpu.supports_layer_norm(precision, channels(x))
    }

    fn supports_attention(qkv: &Tensor, n_head: usize) -> bool {
        precision_of(qkv)
            .is_some_and(|precision| BackendKind::Wgpu.supports_attention(precision, channels(qkv) / 3, n_head))
    }

    fn decode_kernels(config: &Gpt2Config) -> Option<DecodeKernels<Self>> {
        BackendKind::Wgpu.supports_decode(config).then(decode::kernels)
    }

    fn classifier_loss(
        hidden: FloatTensor<Self>,
        wte: FloatTensor<Self>,
        operand: Option<FloatTensor<Self>>,
        targets: IntTensor<Self>,
        shape: ClassifierShape,
    ) -> FloatTensor<Self> {
        let wte = operand.unwrap_or(wte);
        if !Self::supports_matmul(&hidden, &wte) {
            return classifier::loss::<Self>(hidden, wte, targets, shape);
        }
        let at_once = logits_at_once(&hidden);
        kernels::classifier::loss(
            &contiguous(hidden),
            &contiguous(wte),
            &contiguous(targets),
            shape.vocab_size,
            at_once,
        )
    }

    fn token_losses(
        hidden: FloatTensor<Self>,
        wte: FloatTensor<Self>,
        targets: IntTensor<Self>,
        shape: ClassifierShape,
    ) -> FloatTensor<Self> {
        if !Self::supports_matmul(&hidden, &wte) {
            return classifier::token_losses::<Self>(hidden, wte, targets, shape);
        }
        let at_once = logits_at_once(&hidden);
        kernels::classifier::token_losses(
            &contiguous(hidden),
            &contiguous(wte),
            &contiguous(targets),
            shape.vocab_size,
            at_once,
        )
    }

    fn classifier_gradients(
        hidden: FloatTensor<Self>,
        wte: FloatTensor<Self>,
        targets: IntTensor<Self>,
        shape: ClassifierShape,
    ) -> ClassifierGradients<Self> {
        if !Self::supports_matmul(&hidden, &wte) {
            return classifier::gradients::<Self>(hidden, wte, targets, shape);
        }
        let at_once = logits_at_once(&hidden);
        let found = kernels::classifier::gradients(
            &contiguous(hidden),
            &contiguous(wte),
            &contiguous(targets),
            shape.vocab_size,
            at_once,
        );
        ClassifierGradients {
            loss: found.loss,
            hidden: found.hidden,
            wte: found.wte,
        }
    }

    fn embed(
        wte: FloatTensor<Self>,
        wpe: FloatTensor<Self>,
        tokens: IntTensor<Self>,
        past: usize,
    ) -> FloatTensor<Self> {
        if !is_f32(&wte) {
            return embedding::value::<Self>(wte, wpe, tokens, past);
        }
        kernels::embedding::forward(&contiguous(wte), &contiguous(wpe), &contiguous(tokens), past)
    }

    fn embed_backward(
        [wte, wpe]: [FloatTensor<Self>; 2],
        tokens: IntTensor<Self>,
        past: usize,
        grad_output: FloatTensor<Self>,
        sum: Option<FloatTensor<Self>>,
    ) -> [FloatTensor<Self>; 2] {
        let grad_wte = match sum {
            Some(sum) => owned(sum),
            None => contiguous(Self::float_zeros(wte.shape(), &wte.device, FloatDType::F32)),
        };
        let positions = wpe.shape()[0];
        let grad_wpe = kernels::embedding::backward(
            &contiguous(tokens),
            &contiguous(grad_output),
            &grad_wte,
            past,
            positions,
        );
        [grad_wte, grad_wpe]
    }

    fn scale(tensor: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        if !is_f32(&tensor) {
            return scale::value::<Self>(tensor, factor);
        }
        let tensor = owned(tensor);
        kernels::scale::in_place(&tensor, &contiguous(factor));
        tensor
    }

    fn affine(x: FloatTensor<Self>, w: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        if !Self::supports_matmul(&x, &w) {
            return affine::value::<Self>(x, w, bias);
        }
        kernels::product::affine(&contiguous(x), &contiguous(w), &contiguous(bias))
    }

    fn affine_onto(
        residual: FloatTensor<Self>,
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        if !Self::supports_matmul(&x, &w) {
            return affine::onto::<Self>(residual, x, w, bias);
        }
        let (x, w) = (contiguous(x), contiguous(w));
        kernels::product::affine_onto(&contiguous(residual), &x, &w, &contiguous(bias))
    }

    fn affine_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        grad_output: FloatTensor<Self>,
    ) -> AffineGradients<FloatTensor<Self>> {
        if !Self::supports_matmul(&x, &w) {
            return affine::derivatives::<Self>(x, w, grad_output);
        }
        let (x, w, grad_output) = (contiguous(x), contiguous(w), contiguous(grad_output));
        let operand = kernels::product::operand(&grad_output, &w);
        AffineGradients {
            x: kernels::product::transposed(&operand, &w),
            w: kernels::product::by_rows(&x, &operand),
            bias: kernels::columns::sums(&grad_output),
        }
    }

    fn affine_gelu(x: FloatTensor<Self>, w: FloatTensor<Self>, bias: FloatTensor<Self>) -> [FloatTensor<Self>; 2] {
        if !Self::supports_matmul(&x, &w) {
            return affine::with_gelu::<Self>(x, w, bias);
        }
        kernels::product::affine_gelu(&contiguous(x), &contiguous(w), &contiguous(bias))
    }

    fn feed_forward_backward(
        x: FloatTensor<Self>,
        weights: [FloatTensor<Self>; 2],
        inner: FloatTensor<Self>,
        activated: Option<FloatTensor<Self>>,
        grad_output: FloatTensor<Self>,
        _operand: Option<GradOutput<FloatTensor<Self>>>,
    ) -> (FloatTensor<Self>, FeedForwardGradients<FloatTensor<Self>>) {
        if !Self::supports_matmul(&x, &weights[0]) {
            return feed_forward::derivatives::<Self>(x, weights, inner, activated, grad_output);
        }
        let [w_in, w_out] = weights.map(contiguous);
        let (x, inner, grad_output) = (contiguous(x), contiguous(inner), contiguous(grad_output));
        let activated = activated.map_or_else(|| kernels::gelu::forward(&inner), contiguous);
        let operand = kernels::product::operand(&grad_output, &w_out);
        let grad_w_out = kernels::product::by_rows(&activated, &operand);
        drop(activated);
        let grad_inner = kernels::product::transposed_by_gelu(&operand, &w_out, &inner);
        drop(inner);
        let by = FeedForwardGradients {
            w_in: kernels::product::by_rows(&x, &grad_inner),
            bias_in: kernels::columns::sums(&grad_inner),
            w_out: grad_w_out,
            bias_out: kernels::columns::sums(&grad_output),
        };
        (kernels::product::transposed(&grad_inner, &w_in), by)
    }

    fn normalise_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        precision: Precision,
    ) -> Normalised<FloatTensor<Self>> {
        if !Self::supports_layer_norm(&x, precision) {
            return layer_norm::value::<Self>(x, weight, bias, precision);
        }
        let normal = kernels::layer_norm::forward(&contiguous(x), &contiguous(weight), &contiguous(bias));
        Normalised {
            out: marked(normal.out, Self::operand_type(precision)),
            statistics: Some([normal.mean, normal.rstd]),
        }
    }

    fn normalise_rows_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        statistics: Option<[FloatTensor<Self>; 2]>,
        grad_output: FloatTensor<Self>,
        sum: Option<FloatTensor<Self>>,
    ) -> LayerNormGradients<FloatTensor<Self>> {
        let Some(statistics) = statistics else {
            return layer_norm::derivatives::<Self>(x, weight, grad_output, sum);
        };
        let found = kernels::layer_norm::backward(
            &contiguous(grad_output),
            &contiguous(x),
            &contiguous(weight),
            statistics.each_ref(),
            sum,
        );
        LayerNormGradients {
            x: found.x,
            weight: found.gain,
            bias: found.offset,
        }
    }

    fn causal_attention(qkv: FloatTensor<Self>, n_head: usize) -> Attended<FloatTensor<Self>> {
        if !Self::supports_attention(&qkv, n_head) {
            return attention::value::<Self>(qkv, n_head);
        }
        let attended = kernels::attention::forward(&contiguous(qkv), n_head);
        Attended {
            out: attended.out,
            log_sum: attended.log_sum,
        }
    }

    fn causal_attention_backward(
        qkv: FloatTensor<Self>,
        attended: Attended<FloatTensor<Self>>,
        grad_output: FloatTensor<Self>,
        n_head: usize,
    ) -> FloatTensor<Self> {
        if !Self::supports_attention(&qkv, n_head) {
            return attention::derivative::<Self>(qkv, grad_output, n_head);
        }
        let attended = kernels::attention::Attended {
            out: attended.out,
            log_sum: attended.log_sum,
        };
        kernels::attention::backward(&contiguous(qkv), &attended, &contiguous(grad_output), n_head)
    }

    fn tanh_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        if !is_f32(&x) {
            return gelu::value::<Self>(x);
        }
        kernels::gelu::forward(&contiguous(x))
    }

    fn tanh_gelu_backward(x: FloatTensor<Self>, grad_output: FloatTensor<Self>) -> FloatTensor<Self> {
        if !is_f32(&x) {
            return gelu::derivative::<Self>(x, grad_output);
        }
        kernels::gelu::backward(&contiguous(x), &contiguous(grad_output))
    }
}

/// `tensor`, whose elements are `f32`, with another type of as many bytes.
fn marked(tensor: Tensor, dtype: FloatDType) -> Tensor {
    Tensor {
        dtype: dtype.into(),
        ..tensor
    }
}

/// The precision whose operands are of the type of `x`.
fn precision_of(x: &Tensor) -> Option<Precision> {
    match x.dtype {
        DType::F32 => Some(Precision::F32),
        DType::Flex32 | DType::BF16 => Some(Precision::Bf16),
        _ => None,
    }
}

/// Whether the elements are `f32` in memory.
fn is_f32(x: &Tensor) -> bool {
    matches!(x.dtype, DType::F32 | DType::Flex32)
}

/// Logits that the classifier makes at once: as many as the device binds as one tensor.
fn logits_at_once(like: &Tensor) -> usize {
    let most = like.client.properties().memory.max_page_size / size_of::<f32>() as u64;
    if most < WGPU_LOGITS as u64 {
        FEW_LOGITS
    } else {
        WGPU_LOGITS
    }
}

/// The last dimension.
fn channels(x: &Tensor) -> usize {
    let shape = x.shape();
    shape[shape.num_dims() - 1]
}
