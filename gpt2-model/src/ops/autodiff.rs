//! Derivatives of the operations, for any backend that has them.

use super::{
    AffineGradients, Attended, ClassifierGradients, ClassifierShape, FedForward, FeedForwardWeights, Gpt2Backend,
    Normalised,
};
use crate::precision::Precision;
use crate::recompute::Recompute;
use burn::backend::Autodiff;
use burn::tensor::TensorMetadata;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::{FloatTensor, IntTensor};
use burn_autodiff::NodeId;
use burn_autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use std::sync::Arc;

/// The gradient that `tensor` has so far, taken out, for an operation that adds its own to it in place.
///
/// The copy of the tensor is one that the graph does not count, so that keeping it in a step keeps no part of the graph.
#[derive(Debug, Clone)]
struct SoFar<B: Backend>(FloatTensor<Autodiff<B>>);

impl<B: Backend> SoFar<B> {
    fn of<C: CheckpointStrategy>(tensor: &FloatTensor<Autodiff<B, C>>) -> Self {
        let mut copy = tensor.clone();
        copy.rc = Arc::new(NodeId::new());
        Self(copy)
    }

    fn value(&self) -> FloatTensor<B> {
        self.0.primitive.clone()
    }

    fn take(&self, grads: &mut Gradients) -> Option<FloatTensor<B>> {
        grads.remove::<B>(&self.0)
    }
}

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
struct EmbedBackward;

impl<B: Gpt2Backend> Backward<B, 2> for EmbedBackward {
    /// The tables, the tokens and the first position.
    type State = (SoFar<B>, FloatTensor<B>, IntTensor<B>, usize);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let (wte, wpe, tokens, past) = ops.state;
        // A tied classifier has its derivative there already: far larger than the few rows that are added here.
        let sum = wte.take(grads);
        let found = B::embed_backward([wte.value(), wpe], tokens, past, upstream, sum);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// The affine map's backward pass, and what was added to its result.
#[derive(Debug)]
struct AffineBackward;

impl AffineBackward {
    fn register<B: Gpt2Backend>(
        [x, w]: [FloatTensor<B>; 2],
        upstream: FloatTensor<B>,
        parents: [Option<NodeId>; 3],
        grads: &mut Gradients,
    ) {
        let wanted = AffineGradients {
            x: parents[0].is_some(),
            w: parents[1].is_some(),
            bias: parents[2].is_some(),
        };
        let found = B::affine_backward(x, w, upstream, wanted);
        for (parent, gradient) in parents.into_iter().zip([found.x, found.w, found.bias]) {
            if let Some((parent, gradient)) = parent.zip(gradient) {
                grads.register::<B>(parent, gradient);
            }
        }
    }
}

impl<B: Gpt2Backend> Backward<B, 3> for AffineBackward {
    /// Input and rounded weights.
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let parents = ops.parents.map(|parent| parent.map(|parent| parent.id));
        Self::register::<B>(ops.state, upstream, parents, grads);
    }
}

impl<B: Gpt2Backend> Backward<B, 4> for AffineBackward {
    /// Input and rounded weights.
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let [x, w, bias, residual] = ops.parents.map(|parent| parent.map(|parent| parent.id));
        if let Some(residual) = residual {
            grads.register::<B>(residual, upstream.clone());
        }
        Self::register::<B>(ops.state, upstream, [x, w, bias], grads);
    }
}

/// The backward pass of the feed-forward half.
#[derive(Debug)]
struct FeedForwardBackward;

impl<B: Gpt2Backend> Backward<B, 6> for FeedForwardBackward {
    /// Input, rounded weights, and what the forward pass gave.
    type State = (FloatTensor<B>, [FloatTensor<B>; 2], FedForward<FloatTensor<B>>);

    fn backward(self, ops: Ops<Self::State, 6>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let [residual, parents @ ..] = ops.parents;
        if let Some(residual) = residual {
            grads.register::<B>(residual.id, upstream.clone());
        }
        let (x, weights, fed) = ops.state;
        let (by_x, by) = B::feed_forward_backward(x, weights, fed, upstream);
        let found = [by_x, by.w_in, by.bias_in, by.w_out, by.bias_out];
        for (parent, gradient) in parents.into_iter().zip(found) {
            if let Some(parent) = parent {
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

/// LayerNorm's backward pass adds to the gradient that came around it, along the residual stream.
#[derive(Debug)]
struct LayerNormBackward;

impl<B: Gpt2Backend> Backward<B, 3> for LayerNormBackward {
    /// Input, gain and the rows' statistics.
    type State = (SoFar<B>, FloatTensor<B>, Option<[FloatTensor<B>; 2]>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let (x, weight, statistics) = ops.state;
        let sum = x.take(grads);
        let found = B::normalise_rows_backward(x.value(), weight, statistics, upstream, sum);
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

/// `w` in the type of `x`.
fn rounded<B: Gpt2Backend>(w: FloatTensor<B>, x: &FloatTensor<B>) -> FloatTensor<B> {
    if w.dtype() == x.dtype() {
        w
    } else {
        B::round_weights(w, x.dtype().into())
    }
}

impl<B: Gpt2Backend, C: CheckpointStrategy> Gpt2Backend for Autodiff<B, C> {
    fn embed(
        wte: FloatTensor<Self>,
        wpe: FloatTensor<Self>,
        tokens: IntTensor<Self>,
        past: usize,
    ) -> FloatTensor<Self> {
        let nodes = [wte.node.clone(), wpe.node.clone()];
        let value = |wte, wpe, tokens| B::embed(wte, wpe, tokens, past);
        match EmbedBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let state = (SoFar::of::<C>(&wte), wpe.primitive.clone(), tokens.clone(), past);
                prepared.finish(state, value(wte.primitive, wpe.primitive, tokens))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(value(wte.primitive, wpe.primitive, tokens)),
        }
    }

    fn affine(x: FloatTensor<Self>, w: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node.clone(), w.node.clone(), bias.node.clone()];
        let (x, w) = (x.primitive.clone(), rounded::<B>(w.primitive, &x.primitive));
        let value = B::affine(x.clone(), w.clone(), bias.primitive);
        match Backward::<B, 3>::prepare::<C>(AffineBackward, nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => prepared.finish([x, w], value),
            OpsKind::UnTracked(prepared) => prepared.finish(value),
        }
    }

    fn affine_onto(
        residual: FloatTensor<Self>,
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node, w.node, bias.node, residual.node];
        let (x, w) = (x.primitive.clone(), rounded::<B>(w.primitive, &x.primitive));
        let value = B::affine_onto(residual.primitive, x.clone(), w.clone(), bias.primitive);
        match Backward::<B, 4>::prepare::<C>(AffineBackward, nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => prepared.finish([x, w], value),
            OpsKind::UnTracked(prepared) => prepared.finish(value),
        }
    }

    fn feed_forward(
        residual: FloatTensor<Self>,
        x: FloatTensor<Self>,
        weights: FeedForwardWeights<FloatTensor<Self>>,
        recompute: Recompute,
    ) -> FedForward<FloatTensor<Self>> {
        let FeedForwardWeights {
            w_in,
            bias_in,
            w_out,
            bias_out,
        } = weights;
        let nodes = [
            residual.node,
            x.node,
            w_in.node,
            bias_in.node,
            w_out.node,
            bias_out.node,
        ];
        let x = x.primitive;
        let weights = FeedForwardWeights {
            w_in: rounded::<B>(w_in.primitive, &x),
            bias_in: bias_in.primitive,
            w_out: rounded::<B>(w_out.primitive, &x),
            bias_out: bias_out.primitive,
        };
        let products = [weights.w_in.clone(), weights.w_out.clone()];
        let fed = B::feed_forward(residual.primitive, x.clone(), weights, recompute);
        let inner = Self::from_inner(fed.inner.clone());
        let activated = fed.activated.clone().map(Self::from_inner);
        let out = match FeedForwardBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let out = fed.out.clone();
                prepared.finish((x, products, fed), out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(fed.out),
        };
        FedForward { out, inner, activated }
    }

    fn tanh_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match GeluBackward.prepare::<C>([x.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(x.primitive.clone(), B::tanh_gelu(x.primitive)),
            OpsKind::UnTracked(prepared) => prepared.finish(B::tanh_gelu(x.primitive)),
        }
    }

    fn normalise_rows(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        precision: Precision,
    ) -> Normalised<FloatTensor<Self>> {
        let nodes = [x.node.clone(), weight.node.clone(), bias.node.clone()];
        let value = B::normalise_rows(x.primitive.clone(), weight.primitive.clone(), bias.primitive, precision);
        let statistics = value.statistics.clone().map(|both| both.map(Self::from_inner));
        let out = match LayerNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                prepared.finish((SoFar::of::<C>(&x), weight.primitive, value.statistics), value.out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(value.out),
        };
        Normalised { out, statistics }
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
