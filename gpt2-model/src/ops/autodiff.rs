//! Derivatives of the operations, for any backend that has them.

use super::{AffineGradients, Attended, ClassifierGradients, ClassifierShape, Gpt2Backend};
use burn::backend::Autodiff;
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn_autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};

/// The classifier's backward pass: both derivatives were made with the loss, and wait for its own gradient.
#[derive(Debug)]
struct ClassifierBackward;

impl<B: Gpt2Backend> Backward<B, 2> for ClassifierBackward {
    /// Derivatives by the hidden states and by the embedding.
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node); // [1]
        for (parent, derivative) in ops.parents.into_iter().zip(ops.state) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, B::scale(derivative, upstream.clone()));
            }
        }
    }
}

/// The embedding's backward pass.
#[derive(Debug)]
struct LookupBackward;

impl<B: Gpt2Backend> Backward<B, 1> for LookupBackward {
    /// The table and the indices.
    type State = (FloatTensor<Autodiff<B>>, IntTensor<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [parent] = ops.parents;
        let upstream = grads.consume::<B>(&ops.node);
        let (table, indices) = ops.state;
        if let Some(parent) = parent {
            // A tied classifier has its derivative there already: far larger than the few rows that are added here.
            let sum = grads.remove::<B>(&table);
            grads.register::<B>(parent.id, B::lookup_backward(table.primitive, indices, upstream, sum));
        }
    }
}

/// The affine map's backward pass.
#[derive(Debug)]
struct AffineBackward;

impl<B: Gpt2Backend> Backward<B, 3> for AffineBackward {
    /// Input and weights.
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [x, w, bias] = ops.parents;
        let upstream = grads.consume::<B>(&ops.node);
        let [x_value, w_value] = ops.state;
        let wanted = AffineGradients {
            x: x.is_some(),
            w: w.is_some(),
            bias: bias.is_some(),
        };
        let found = B::affine_backward(x_value, w_value, upstream, wanted);
        for (parent, gradient) in [(x, found.x), (w, found.w), (bias, found.bias)] {
            if let Some((parent, gradient)) = parent.zip(gradient) {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// GELU's backward pass keeps its input alone.
#[derive(Debug)]
struct GeluBackward;

impl<B: Gpt2Backend> Backward<B, 1> for GeluBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [parent] = ops.parents;
        let upstream = grads.consume::<B>(&ops.node);
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, B::tanh_gelu_backward(ops.state, upstream));
        }
    }
}

/// LayerNorm's backward pass computes the statistics of its input anew.
#[derive(Debug)]
struct LayerNormBackward;

impl<B: Gpt2Backend> Backward<B, 3> for LayerNormBackward {
    /// Input and gain.
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let [x, weight] = ops.state;
        let found = B::normalise_rows_backward(x, weight, upstream);
        for (parent, gradient) in ops.parents.into_iter().zip([found.x, found.weight, found.bias]) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// Attention's backward pass.
#[derive(Debug)]
struct AttentionBackward;

impl<B: Gpt2Backend> Backward<B, 1> for AttentionBackward {
    /// Query, key and value; what attention gave; the number of heads.
    type State = (FloatTensor<B>, Attended<FloatTensor<B>>, usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [parent] = ops.parents;
        let upstream = grads.consume::<B>(&ops.node);
        let (qkv, attended, n_head) = ops.state;
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, B::causal_attention_backward(qkv, attended, upstream, n_head));
        }
    }
}

impl<B: Gpt2Backend, C: CheckpointStrategy> Gpt2Backend for Autodiff<B, C> {
    fn lookup(table: FloatTensor<Self>, indices: IntTensor<Self>) -> FloatTensor<Self> {
        match LookupBackward
            .prepare::<C>([table.node.clone()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => {
                let state = (table.clone(), indices.clone());
                prepared.finish(state, B::lookup(table.primitive, indices))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::lookup(table.primitive, indices)),
        }
    }

    fn affine(x: FloatTensor<Self>, w: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node.clone(), w.node.clone(), bias.node.clone()];
        match AffineBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let state = [x.primitive.clone(), w.primitive.clone()];
                prepared.finish(state, B::affine(x.primitive, w.primitive, bias.primitive))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::affine(x.primitive, w.primitive, bias.primitive)),
        }
    }

    fn tanh_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match GeluBackward.prepare::<C>([x.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(x.primitive.clone(), B::tanh_gelu(x.primitive)),
            OpsKind::UnTracked(prepared) => prepared.finish(B::tanh_gelu(x.primitive)),
        }
    }

    fn normalise_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node.clone(), weight.node.clone(), bias.node.clone()];
        match LayerNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let state = [x.primitive.clone(), weight.primitive.clone()];
                prepared.finish(state, B::normalise_rows(x.primitive, weight.primitive, bias.primitive))
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::normalise_rows(x.primitive, weight.primitive, bias.primitive))
            }
        }
    }

    fn causal_attention(qkv: FloatTensor<Self>, n_head: usize) -> Attended<FloatTensor<Self>> {
        let prepared = AttentionBackward
            .prepare::<C>([qkv.node.clone()])
            .compute_bound()
            .stateful();
        let attended = B::causal_attention(qkv.primitive.clone(), n_head);
        let log_sum = Self::from_inner(attended.log_sum.clone());
        let out = match prepared {
            OpsKind::Tracked(prepared) => {
                let out = attended.out.clone();
                prepared.finish((qkv.primitive, attended, n_head), out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(attended.out),
        };
        Attended { out, log_sum }
    }

    fn classifier_loss(
        hidden: FloatTensor<Self>,
        wte: FloatTensor<Self>,
        targets: IntTensor<Self>,
        shape: ClassifierShape,
    ) -> FloatTensor<Self> {
        let nodes = [hidden.node.clone(), wte.node.clone()];
        match ClassifierBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let result = B::classifier_gradients(hidden.primitive, wte.primitive, targets, shape);
                prepared.finish([result.hidden, result.wte], result.loss)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::classifier_loss(hidden.primitive, wte.primitive, targets, shape))
            }
        }
    }

    fn classifier_gradients(
        hidden: FloatTensor<Self>,
        wte: FloatTensor<Self>,
        targets: IntTensor<Self>,
        shape: ClassifierShape,
    ) -> ClassifierGradients<Self> {
        let result = B::classifier_gradients(hidden.primitive, wte.primitive, targets, shape);
        ClassifierGradients {
            loss: Self::from_inner(result.loss),
            hidden: Self::from_inner(result.hidden),
            wte: Self::from_inner(result.wte),
        }
    }
}
