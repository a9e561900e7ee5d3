//! The operations on a CUDA device, by the kernels of `gpt2-kernels`.
//!
//! Which shapes they take is in [`capabilities`](crate::capabilities). Other shapes take the reference.

use super::backend::Gpt2Backend;
use super::convert;
use super::decode;
use super::reference::{affine, attention, classifier, embedding, feed_forward, gelu, layer_norm, scale};
use super::types::{
    AffineGradients, Attended, ClassifierGradients, ClassifierShape, DecodeKernels, FeedForwardGradients, GradOutput,
    LayerNormGradients, Normalised,
};
use crate::capabilities::{BackendKind, CUDA_LANES, CUDA_LOGITS_BYTES, CUDA_WIDEST_HEAD, CUDA_WIDEST_ROW};
use crate::config::Gpt2Config;
use crate::precision::Precision;
use burn::tensor::ops::{FloatTensor, FloatTensorOps, IntTensor};
use burn::tensor::{DType, FloatDType, TensorMetadata};
use burn_cubecl::CubeBackend;
use cubecl::cuda::CudaRuntime;
use cubecl::prelude::CubeElement;
use gpt2_kernels as kernels;
use gpt2_kernels::{Tensor, contiguous, owned};

/// Burn's CUDA backend without its kernel fusion.
pub type Cuda = CubeBackend<CudaRuntime, f32, i32, u8>;

const _: () = assert!(kernels::HEAD_MULTIPLE == CUDA_LANES);
const _: () = assert!(kernels::WIDEST_HEAD == CUDA_WIDEST_HEAD);
const _: () = assert!(kernels::WIDEST_ROW == CUDA_WIDEST_ROW);

impl Gpt2Backend for Cuda {
    fn supports_matmul(x: &Tensor, w: &Tensor) -> bool {
        Precision::of_operands(x.dtype)
            .is_some_and(|precision| BackendKind::Cuda.supports_matmul(precision, w.shape().as_slice()))
    }

    fn supports_layer_norm(x: &Tensor, precision: Precision) -> bool {
        BackendKind::Cuda.supports_layer_norm(precision, channels(x))
    }

    fn supports_attention(qkv: &Tensor, n_head: usize) -> bool {
        Precision::of_operands(qkv.dtype)
            .is_some_and(|precision| BackendKind::Cuda.supports_attention(precision, channels(qkv) / 3, n_head))
    }

    /// In pieces: CubeCL reads into pages of pinned memory, which it keeps and which are far larger than what is read.
    /// On a device of 141 GB that of an embedding of 154 MB has 2.2 GB, and takes more than a second to make.
    fn to_host(tensor: Tensor) -> Vec<f32> {
        const PIECE: usize = 8 << 20;
        if tensor.dtype != DType::F32 {
            return convert::to_host::<Self>(tensor);
        }
        let tensor = contiguous(tensor);
        let bytes = size_of::<f32>() * tensor.shape().num_elements();
        // Memory is handed out in larger pieces than may be asked for.
        let held = tensor.handle.size_in_used();
        let mut values = Vec::with_capacity(tensor.shape().num_elements());
        for start in (0..bytes).step_by(PIECE) {
            let end = bytes.min(start + PIECE);
            let piece = tensor
                .handle
                .clone()
                .offset_start(start as u64)
                .offset_end(held - end as u64);
            let piece = tensor.client.read_one(piece).expect("the device has done its work");
            values.extend_from_slice(f32::from_bytes(&piece));
        }
        values
    }

    fn decode_kernels(config: &Gpt2Config) -> Option<DecodeKernels<Self>> {
        BackendKind::Cuda.supports_decode(config).then(decode::kernels)
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
        let wte = in_type_of(wte, &hidden);
        kernels::classifier::loss(
            &contiguous(hidden),
            &wte,
            &contiguous(targets),
            shape.vocab_size,
            CUDA_LOGITS_BYTES,
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
        let wte = in_type_of(wte, &hidden);
        kernels::classifier::token_losses(
            &contiguous(hidden),
            &wte,
            &contiguous(targets),
            shape.vocab_size,
            CUDA_LOGITS_BYTES,
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
        let wte = in_type_of(wte, &hidden);
        let found = kernels::classifier::gradients(
            &contiguous(hidden),
            &wte,
            &contiguous(targets),
            shape.vocab_size,
            CUDA_LOGITS_BYTES,
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
        if !has_wide_rows(&wte) {
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
        if past > 0 || !has_wide_rows(&wte) {
            let grad_wpe = embedding::by_positions::<Self>(&wpe, grad_output.clone(), past);
            return [embedding::by_tokens::<Self>(wte, tokens, grad_output, sum), grad_wpe];
        }
        let grad_wte = match sum {
            Some(sum) => owned(sum),
            None => contiguous(Self::float_zeros(wte.shape(), &wte.device, FloatDType::F32)),
        };
        let positions = wpe.shape()[0];
        let grad_wpe =
            kernels::embedding::backward(&contiguous(tokens), &contiguous(grad_output), &grad_wte, positions);
        [grad_wte, grad_wpe]
    }

    fn scale(tensor: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        if !in_fours(&tensor) {
            return scale::value::<Self>(tensor, factor);
        }
        let tensor = owned(tensor);
        kernels::scale::in_place(&tensor, &contiguous(factor));
        tensor
    }

    fn round_weights(w: FloatTensor<Self>, dtype: FloatDType) -> FloatTensor<Self> {
        match dtype {
            FloatDType::BF16 if in_fours(&w) => kernels::columns::round(&contiguous(w)),
            // The same in memory.
            FloatDType::Flex32 => Tensor {
                dtype: DType::Flex32,
                ..w
            },
            _ => Self::float_cast(w, dtype),
        }
    }

    fn affine(x: FloatTensor<Self>, w: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        if !Self::supports_matmul(&x, &w) {
            return affine::value::<Self>(x, w, bias);
        }
        let w = in_type_of(w, &x);
        kernels::product::affine(&contiguous(x), &w, &contiguous(bias))
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
        let w = in_type_of(w, &x);
        kernels::product::affine_onto(&contiguous(residual), &contiguous(x), &w, &contiguous(bias))
    }

    fn affine_backward(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        grad_output: FloatTensor<Self>,
    ) -> AffineGradients<FloatTensor<Self>> {
        if !Self::supports_matmul(&x, &w) {
            return affine::derivatives::<Self>(x, w, grad_output);
        }
        let (grad_output, bias) = kernels::columns::operand_with_sums(&contiguous(grad_output), x.dtype);
        affine_derivatives(x, w, &grad_output, bias)
    }

    fn affine_backward_from(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        grad_output: GradOutput<FloatTensor<Self>>,
    ) -> AffineGradients<FloatTensor<Self>> {
        match grad_output.column_sums {
            Some(bias) if Self::supports_matmul(&x, &w) => {
                affine_derivatives(x, w, &contiguous(grad_output.value), bias)
            }
            _ => Self::affine_backward(x, w, grad_output.value),
        }
    }

    fn affine_gelu(x: FloatTensor<Self>, w: FloatTensor<Self>, bias: FloatTensor<Self>) -> [FloatTensor<Self>; 2] {
        if !Self::supports_matmul(&x, &w) {
            return affine::with_gelu::<Self>(x, w, bias);
        }
        let w = in_type_of(w, &x);
        kernels::product::affine_gelu(&contiguous(x), &w, &contiguous(bias)).into()
    }

    fn feed_forward_backward(
        x: FloatTensor<Self>,
        weights: [FloatTensor<Self>; 2],
        inner: FloatTensor<Self>,
        activated: Option<FloatTensor<Self>>,
        grad_output: FloatTensor<Self>,
        operand: Option<GradOutput<FloatTensor<Self>>>,
    ) -> (FloatTensor<Self>, FeedForwardGradients<FloatTensor<Self>>) {
        if !Self::supports_matmul(&x, &weights[0]) {
            return feed_forward::derivatives::<Self>(x, weights, inner, activated, grad_output);
        }
        let activated = activated.unwrap_or_else(|| kernels::gelu::forward(&inner));
        let [w_in, w_out] = weights.map(|w| in_type_of(w, &x));
        let (x, stream) = (contiguous(x), contiguous(grad_output));
        let (grad_output, bias_out) = match operand {
            Some(GradOutput {
                value,
                column_sums: Some(sums),
            }) => (value, sums),
            _ => kernels::columns::operand_with_sums(&stream, x.dtype),
        };
        let grad_w_out = kernels::product::gradient_by_rows(&activated, &grad_output, &stream);
        drop((activated, stream));
        let (grad_inner, bias_in) = kernels::product::transposed_by_gelu(&grad_output, &w_out, &inner);
        drop((grad_output, inner));
        let by = FeedForwardGradients {
            w_in: kernels::product::gradient_by_rows(&x, &grad_inner, &grad_inner),
            bias_in,
            w_out: grad_w_out,
            bias_out,
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
        let dtype = precision.operands().into();
        let normal = kernels::layer_norm::forward(&contiguous(x), &contiguous(weight), &contiguous(bias), dtype);
        Normalised {
            out: normal.out,
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
        layer_norm_backward(x, weight, statistics, grad_output, sum, false).0
    }

    fn normalise_rows_backward_for_product(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        statistics: Option<[FloatTensor<Self>; 2]>,
        grad_output: FloatTensor<Self>,
        sum: Option<FloatTensor<Self>>,
    ) -> (LayerNormGradients<FloatTensor<Self>>, GradOutput<FloatTensor<Self>>) {
        let with_operand = grad_output.dtype == DType::BF16 && sum.is_some();
        let (found, operand) = layer_norm_backward(x, weight, statistics, grad_output, sum, with_operand);
        let grad_x = operand.unwrap_or_else(|| found.x.clone().into());
        (found, grad_x)
    }

    fn defer_sums() -> impl Sized {
        kernels::columns::DeferredSums::begin()
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
        if !in_fours(&x) {
            return gelu::value::<Self>(x);
        }
        kernels::gelu::forward(&contiguous(x))
    }

    fn tanh_gelu_backward(x: FloatTensor<Self>, grad_output: FloatTensor<Self>) -> FloatTensor<Self> {
        if !in_fours(&x) {
            return gelu::derivative::<Self>(x, grad_output);
        }
        kernels::gelu::backward(&contiguous(x), &contiguous(grad_output))
    }
}

/// An affine map's derivatives, from the gradient of its result as an operand, and that of its bias.
fn affine_derivatives(x: Tensor, w: Tensor, grad_output: &Tensor, bias: Tensor) -> AffineGradients<Tensor> {
    let (w, x) = (in_type_of(w, &x), contiguous(x));
    AffineGradients {
        x: kernels::product::transposed(grad_output, &w),
        w: kernels::product::gradient_by_rows(&x, grad_output, grad_output),
        bias,
    }
}

/// LayerNorm's gradients, and the one of `x` as a product's operand where the kernels compute it and it is asked for.
fn layer_norm_backward(
    x: Tensor,
    weight: Tensor,
    statistics: Option<[Tensor; 2]>,
    grad_output: Tensor,
    sum: Option<Tensor>,
    with_operand: bool,
) -> (LayerNormGradients<Tensor>, Option<GradOutput<Tensor>>) {
    let Some(statistics) = statistics else {
        return (layer_norm::derivatives::<Cuda>(x, weight, grad_output, sum), None);
    };
    let found = kernels::layer_norm::backward(
        &contiguous(grad_output),
        &contiguous(x),
        &contiguous(weight),
        statistics.each_ref(),
        sum.map(contiguous),
        with_operand,
    );
    let gradients = LayerNormGradients {
        x: found.x,
        weight: found.gain,
        bias: found.offset,
    };
    let operand = found.operand.map(|[value, sums]| GradOutput {
        value,
        column_sums: Some(sums),
    });
    (gradients, operand)
}

/// `w` in the type of `x`.
fn in_type_of(w: Tensor, x: &Tensor) -> Tensor {
    if w.dtype == x.dtype {
        contiguous(w)
    } else {
        Cuda::round_weights(w, x.dtype.into())
    }
}

/// Whether the kernels that read four elements at once take a tensor of this size.
fn in_fours(x: &Tensor) -> bool {
    x.shape().num_elements().is_multiple_of(4)
}

/// Whether the embedding's kernels take these rows, as LayerNorm's do.
fn has_wide_rows(x: &Tensor) -> bool {
    BackendKind::Cuda.supports_layer_norm(Precision::F32, channels(x))
}

/// The last dimension.
fn channels(x: &Tensor) -> usize {
    let shape = x.shape();
    shape[shape.num_dims() - 1]
}
