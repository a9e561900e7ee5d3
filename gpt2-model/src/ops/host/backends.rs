//! The backends whose tensors are in the host's memory.

use super::tensor::HostTensor;
use crate::ops::backend::Gpt2Backend;
use crate::ops::convert;
use crate::ops::host;
use crate::ops::reference::{affine, attention, classifier, embedding, gelu, layer_norm, scale};
use crate::ops::types::{
    AffineGradients, Attended, ClassifierGradients, ClassifierShape, LayerNormGradients, Normalised,
};
use crate::precision::Precision;
use burn::tensor::ops::{FloatTensor, IntTensor};
use half::bf16;
use ndarray::ArrayViewD;

/// The methods of [`Gpt2Backend`]: what [`host`] computes, or the reference for tensors that it does not take.
macro_rules! host_operations {
    () => {
        fn supports_matmul(x: &FloatTensor<Self>, _w: &FloatTensor<Self>) -> bool {
            host::computes(x)
        }

        fn supports_layer_norm(x: &FloatTensor<Self>, precision: Precision) -> bool {
            let has_type = match precision {
                Precision::F32 => true,
                Precision::Tf32 => false,
                Precision::Bf16 => <FloatTensor<Self> as HostTensor>::from_halves(Vec::new(), &[0]).is_some(),
            };
            x.view().is_some() && has_type
        }

        fn supports_attention(qkv: &FloatTensor<Self>, _n_head: usize) -> bool {
            host::computes(qkv)
        }

        fn logits(hidden: FloatTensor<Self>, wte: FloatTensor<Self>) -> FloatTensor<Self> {
            host::logits(&hidden, &wte).unwrap_or_else(|| classifier::logits::<Self>(hidden, wte))
        }

        fn classifier_loss(
            hidden: FloatTensor<Self>,
            wte: FloatTensor<Self>,
            operand: Option<FloatTensor<Self>>,
            targets: IntTensor<Self>,
            shape: ClassifierShape,
        ) -> FloatTensor<Self> {
            let wte = operand.unwrap_or(wte);
            host::classifier_loss(&hidden, &wte, &targets, shape.vocab_size)
                .unwrap_or_else(|| classifier::loss::<Self>(hidden, wte, targets, shape))
        }

        fn token_losses(
            hidden: FloatTensor<Self>,
            wte: FloatTensor<Self>,
            targets: IntTensor<Self>,
            shape: ClassifierShape,
        ) -> FloatTensor<Self> {
            host::token_losses(&hidden, &wte, &targets, shape.vocab_size)
                .unwrap_or_else(|| classifier::token_losses::<Self>(hidden, wte, targets, shape))
        }

        fn classifier_gradients(
            hidden: FloatTensor<Self>,
            wte: FloatTensor<Self>,
            targets: IntTensor<Self>,
            shape: ClassifierShape,
        ) -> ClassifierGradients<Self> {
            match host::classifier_gradients(&hidden, &wte, &targets, shape.vocab_size) {
                Some([loss, hidden, wte]) => ClassifierGradients { loss, hidden, wte },
                None => classifier::gradients::<Self>(hidden, wte, targets, shape),
            }
        }

        fn scale(tensor: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
            if host::is_one(&factor) {
                tensor
            } else {
                scale::value::<Self>(tensor, factor)
            }
        }

        fn embed_backward(
            tables: [FloatTensor<Self>; 2],
            tokens: IntTensor<Self>,
            past: usize,
            grad_output: FloatTensor<Self>,
            sum: Option<FloatTensor<Self>>,
        ) -> [FloatTensor<Self>; 2] {
            let [wte, wpe] = tables;
            let grad_wpe = embedding::by_positions::<Self>(&wpe, grad_output.clone(), past);
            let grad_wte = host::embed_backward(&wte, &tokens, &grad_output, sum)
                .unwrap_or_else(|sum| embedding::by_tokens::<Self>(wte, tokens, grad_output, sum));
            [grad_wte, grad_wpe]
        }

        fn affine(x: FloatTensor<Self>, w: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
            host::affine(&x, &w, &bias).unwrap_or_else(|| affine::value::<Self>(x, w, bias))
        }

        fn affine_onto(
            residual: FloatTensor<Self>,
            x: FloatTensor<Self>,
            w: FloatTensor<Self>,
            bias: FloatTensor<Self>,
        ) -> FloatTensor<Self> {
            host::affine_onto(&residual, &x, &w, &bias).unwrap_or_else(|| affine::onto::<Self>(residual, x, w, bias))
        }

        fn affine_backward(
            x: FloatTensor<Self>,
            w: FloatTensor<Self>,
            grad_output: FloatTensor<Self>,
        ) -> AffineGradients<FloatTensor<Self>> {
            host::affine_backward(&x, &w, &grad_output)
                .unwrap_or_else(|| affine::derivatives::<Self>(x, w, grad_output))
        }

        fn normalise_rows(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            bias: FloatTensor<Self>,
            precision: Precision,
        ) -> Normalised<FloatTensor<Self>> {
            match host::layer_norm(&x, &weight, &bias, precision) {
                Some(out) => Normalised {
                    out,
                    statistics: None,
                },
                None => layer_norm::value::<Self>(x, weight, bias, precision),
            }
        }

        fn normalise_rows_backward(
            x: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            _statistics: Option<[FloatTensor<Self>; 2]>,
            grad_output: FloatTensor<Self>,
            sum: Option<FloatTensor<Self>>,
        ) -> LayerNormGradients<FloatTensor<Self>> {
            host::layer_norm_backward(&x, &weight, &grad_output, sum.as_ref())
                .unwrap_or_else(|| layer_norm::derivatives::<Self>(x, weight, grad_output, sum))
        }

        fn causal_attention(qkv: FloatTensor<Self>, n_head: usize) -> Attended<FloatTensor<Self>> {
            host::attention(&qkv, n_head).unwrap_or_else(|| attention::value::<Self>(qkv, n_head))
        }

        fn causal_attention_backward(
            qkv: FloatTensor<Self>,
            attended: Attended<FloatTensor<Self>>,
            grad_output: FloatTensor<Self>,
            n_head: usize,
        ) -> FloatTensor<Self> {
            host::attention_backward(&qkv, &attended, &grad_output, n_head)
                .unwrap_or_else(|| attention::derivative::<Self>(qkv, grad_output, n_head))
        }

        // Burn's ndarray copies tensors that are shared element by element, which takes fifty times as long.
        fn to_host(tensor: FloatTensor<Self>) -> Vec<f32> {
            let copied = tensor.view().map(|view| match view.as_slice() {
                Some(slice) => slice.to_vec(),
                None => view.iter().copied().collect(),
            });
            copied.unwrap_or_else(|| convert::to_host::<Self>(tensor))
        }

        fn tanh_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
            host::gelu(&x).unwrap_or_else(|| gelu::value::<Self>(x))
        }

        fn tanh_gelu_backward(x: FloatTensor<Self>, grad_output: FloatTensor<Self>) -> FloatTensor<Self> {
            host::gelu_backward(&x, &grad_output).unwrap_or_else(|| gelu::derivative::<Self>(x, grad_output))
        }
    };
}

#[cfg(feature = "ndarray")]
#[allow(clippy::wildcard_imports, reason = "the macro names nearly all of it")]
mod with_ndarray {
    use super::*;
    use burn_ndarray::{NdArray, NdArrayTensor};
    use ndarray::ArrayD;

    // Of the default types alone: the operations are then compiled here, and not once more in each crate that uses them.
    impl Gpt2Backend for NdArray {
        host_operations!();
    }

    impl HostTensor for NdArrayTensor {
        fn view(&self) -> Option<ArrayViewD<'_, f32>> {
            match self {
                Self::F32(storage) => Some(storage.view()),
                _ => None,
            }
        }

        fn halves(&self) -> Option<ArrayViewD<'_, bf16>> {
            None
        }

        fn indices(&self) -> Option<Vec<usize>> {
            match self {
                Self::I64(storage) => storage.view().iter().map(|&index| index.try_into().ok()).collect(),
                Self::I32(storage) => storage.view().iter().map(|&index| index.try_into().ok()).collect(),
                _ => None,
            }
        }

        fn from_values(values: Vec<f32>, shape: &[usize]) -> Self {
            let array = ArrayD::from_shape_vec(shape, values).expect("as many elements as the shape has");
            array.into_shared().into()
        }

        fn from_halves(_values: Vec<bf16>, _shape: &[usize]) -> Option<Self> {
            None
        }

        fn values_mut(&mut self) -> Option<&mut [f32]> {
            let Self::F32(storage) = self else {
                return None;
            };
            if !storage.view().is_standard_layout() {
                let view = storage.view();
                *self = Self::from_values(view.iter().copied().collect(), view.shape());
            }
            match self {
                Self::F32(storage) => storage.ensure_owned().as_slice_mut(),
                _ => None,
            }
        }
    }
}

#[cfg(feature = "flex")]
#[allow(clippy::wildcard_imports, reason = "the macro names nearly all of it")]
mod with_flex {
    use super::*;
    use burn::tensor::ops::FloatTensorOps;
    use burn::tensor::{Bytes, DType, Element, FloatDType, Shape};
    use burn_flex::{Flex, FlexTensor, Layout};
    use ndarray::{IxDyn, ShapeBuilder};

    impl Gpt2Backend for Flex {
        host_operations!();

        // Burn's products of `bf16` take thirty times as long as those of `f32` here.
        fn plain_precision(_precision: Precision) -> Precision {
            Precision::F32
        }

        // The tile unit's operands are rounded as they are laid out: rounded weights would only be another copy.
        fn round_weights(w: FloatTensor<Self>, dtype: FloatDType) -> FloatTensor<Self> {
            if dtype == FloatDType::BF16 && host::multiplies_bf16() {
                w
            } else {
                Self::float_cast(w, dtype)
            }
        }
    }

    /// The elements, with their strides.
    fn strided<E: Element + bytemuck::Pod>(tensor: &FlexTensor) -> Option<ArrayViewD<'_, E>> {
        let layout = tensor.layout();
        let strides: Option<Vec<usize>> = layout.strides().iter().map(|&stride| stride.try_into().ok()).collect();
        let shape = IxDyn(layout.shape()).strides(IxDyn(&strides?));
        ArrayViewD::from_shape(shape, &tensor.storage::<E>()[layout.start_offset()..]).ok()
    }

    fn contiguous<E: Element>(values: Vec<E>, shape: &[usize]) -> FlexTensor {
        assert_eq!(
            values.len(),
            shape.iter().product::<usize>(),
            "as many elements as the shape has"
        );
        let layout = Layout::contiguous(Shape::from(shape.to_vec()));
        FlexTensor::new(Bytes::from_elems(values), layout, E::dtype())
    }

    impl HostTensor for FlexTensor {
        fn view(&self) -> Option<ArrayViewD<'_, f32>> {
            (self.dtype() == DType::F32).then(|| strided(self))?
        }

        fn halves(&self) -> Option<ArrayViewD<'_, bf16>> {
            (self.dtype() == DType::BF16).then(|| strided(self))?
        }

        fn indices(&self) -> Option<Vec<usize>> {
            let tensor = self.to_contiguous();
            match tensor.dtype() {
                DType::I32 => tensor
                    .storage::<i32>()
                    .iter()
                    .map(|&index| index.try_into().ok())
                    .collect(),
                DType::I64 => tensor
                    .storage::<i64>()
                    .iter()
                    .map(|&index| index.try_into().ok())
                    .collect(),
                _ => None,
            }
        }

        fn from_values(values: Vec<f32>, shape: &[usize]) -> Self {
            contiguous(values, shape)
        }

        fn from_halves(values: Vec<bf16>, shape: &[usize]) -> Option<Self> {
            Some(contiguous(values, shape))
        }

        fn values_mut(&mut self) -> Option<&mut [f32]> {
            if self.dtype() != DType::F32 {
                return None;
            }
            *self = self.to_contiguous(); // shares the memory where it lies in order already
            Some(self.storage_mut())
        }
    }
}
