//! The reference classifier: logits, softmax, cross-entropy and their derivatives, a chunk of rows at a time.

use crate::capabilities::FEW_LOGITS;
use crate::ops::convert::{primitive, round, tensor, widen};
use crate::ops::types::{ClassifierGradients, ClassifierShape};
use burn::tensor::backend::Backend;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn::tensor::{DType, IndexingUpdateOp, Int, Tensor, TensorData};

pub(in crate::ops) fn logits<B: Backend>(hidden: FloatTensor<B>, wte: FloatTensor<B>) -> FloatTensor<B> {
    // The small operand is the one that is transposed: some backends copy what is.
    B::float_transpose(B::float_matmul(wte, B::float_transpose(hidden)))
}

pub(in crate::ops) fn loss<B: Backend>(
    hidden: FloatTensor<B>,
    wte: FloatTensor<B>,
    targets: IntTensor<B>,
    shape: ClassifierShape,
) -> FloatTensor<B> {
    let inputs = Inputs::<B>::new(hidden, wte, targets, shape);
    let total = inputs
        .chunks()
        .map(|chunk| inputs.softmax(&chunk).losses.sum())
        .reduce(|sum, loss| sum + loss)
        .expect("at least one row");
    primitive(total / inputs.rows as f64)
}

pub(in crate::ops) fn token_losses<B: Backend>(
    hidden: FloatTensor<B>,
    wte: FloatTensor<B>,
    targets: IntTensor<B>,
    shape: ClassifierShape,
) -> FloatTensor<B> {
    let inputs = Inputs::<B>::new(hidden, wte, targets, shape);
    let losses: Vec<_> = inputs.chunks().map(|chunk| inputs.softmax(&chunk).losses).collect();
    primitive(Tensor::cat(losses, 0).squeeze_dim::<1>(1))
}

pub(in crate::ops) fn gradients<B: Backend>(
    hidden: FloatTensor<B>,
    wte: FloatTensor<B>,
    targets: IntTensor<B>,
    shape: ClassifierShape,
) -> ClassifierGradients<B> {
    let inputs = Inputs::<B>::new(hidden, wte, targets, shape);
    let mut total: Option<Tensor<B, 1>> = None;
    let mut d_wte: Option<Tensor<B, 2>> = None;
    let mut d_hidden = Vec::new();
    for chunk in inputs.chunks() {
        let softmax = inputs.softmax(&chunk);
        let loss = softmax.losses.sum();
        // d loss / d logits = (softmax − one-hot) / N
        let scale = 1.0 / inputs.rows as f64;
        let minus_one = Tensor::full([chunk.len, 1], -scale, &inputs.device);
        let d_logits = (softmax.probabilities * scale).scatter(1, chunk.targets, minus_one, IndexingUpdateOp::Add);
        let d_logits = round(d_logits, shape.precision);
        d_hidden.push(d_logits.clone().matmul(inputs.wte.clone()));
        let grad_wte = widen(d_logits.transpose().matmul(chunk.hidden));
        d_wte = Some(match d_wte {
            Some(sum) => sum + grad_wte,
            None => grad_wte,
        });
        total = Some(match total {
            Some(sum) => sum + loss,
            None => loss,
        });
    }
    let (total, d_wte) = total.zip(d_wte).expect("at least one row");
    let d_hidden = Tensor::cat(d_hidden, 0);
    ClassifierGradients {
        loss: primitive(total / inputs.rows as f64),
        hidden: primitive(if inputs.narrow { d_hidden } else { widen(d_hidden) }),
        wte: primitive(d_wte),
    }
}

struct Inputs<B: Backend> {
    hidden: Tensor<B, 2>,
    wte: Tensor<B, 2>,
    targets: Tensor<B, 1, Int>,
    /// 0 for tokens and −∞ for padded rows, `[1, Vp]`; absent where nothing is padded.
    padding: Option<Tensor<B, 2>>,
    /// Whether the hidden states came in the type of the products.
    narrow: bool,
    rows: usize,
    chunk_rows: usize,
    device: B::Device,
}

struct Chunk<B: Backend> {
    hidden: Tensor<B, 2>,
    targets: Tensor<B, 2, Int>,
    len: usize,
}

struct Softmax<B: Backend> {
    /// `[n, Vp]`.
    probabilities: Tensor<B, 2>,
    /// `[n, 1]`.
    losses: Tensor<B, 2>,
}

impl<B: Backend> Inputs<B> {
    fn new(hidden: FloatTensor<B>, wte: FloatTensor<B>, targets: IntTensor<B>, shape: ClassifierShape) -> Self {
        let hidden = tensor::<B, 2>(hidden);
        let wte = tensor::<B, 2>(wte);
        let device = wte.device();
        let ([rows, _], [padded, _]) = (hidden.dims(), wte.dims());
        let padding = (padded > shape.vocab_size).then(|| {
            let mut mask = vec![0.0_f32; padded];
            mask[shape.vocab_size..].fill(f32::NEG_INFINITY);
            Tensor::from_data(TensorData::new(mask, [1, padded]), &device)
        });
        Self {
            narrow: hidden.dtype() == DType::BF16,
            hidden: round(hidden, shape.precision),
            wte: round(wte, shape.precision),
            targets: Tensor::from_primitive(targets),
            padding,
            rows,
            chunk_rows: (FEW_LOGITS / padded).clamp(1, rows),
            device,
        }
    }

    fn chunks(&self) -> impl Iterator<Item = Chunk<B>> + '_ {
        (0..self.rows).step_by(self.chunk_rows).map(|start| {
            let len = self.chunk_rows.min(self.rows - start);
            Chunk {
                hidden: self.hidden.clone().narrow(0, start, len),
                targets: self.targets.clone().narrow(0, start, len).unsqueeze_dim(1), // [n, 1]
                len,
            }
        })
    }

    fn softmax(&self, chunk: &Chunk<B>) -> Softmax<B> {
        let mut logits = widen(chunk.hidden.clone().matmul(self.wte.clone().transpose())); // [n, Vp]
        if let Some(padding) = &self.padding {
            logits = logits + padding.clone();
        }
        let shifted = logits.clone() - logits.max_dim(1);
        let picked = shifted.clone().gather(1, chunk.targets.clone()); // [n, 1]
        let exponentials = shifted.exp();
        let sum = exponentials.clone().sum_dim(1); // [n, 1]
        Softmax {
            losses: sum.clone().log() - picked,
            probabilities: exponentials / sum,
        }
    }
}
