//! Derivatives of the operations, for any backend that has them.

use super::backend::Gpt2Backend;
use super::block::{self, Activations};
use super::block_gradients;
use super::handover;
use super::types::{Attended, BlockShape, BlockWeights, ClassifierGradients, ClassifierShape, Normalised};
use crate::precision::Precision;
use crate::spans::{Operation, Pass, span};
use burn::backend::Autodiff;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::{FloatTensor, FloatTensorOps, IntTensor};
use burn::tensor::{DType, FloatDType, TensorMetadata};
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
        let grad_output = grads.consume::<B>(&ops.node); // [1]
        span(Operation::ClassifierScale, Pass::Backward, || {
            for (parent, derivative) in ops.parents.into_iter().zip(ops.state) {
                if let Some(parent) = parent {
                    grads.register::<B>(parent.id, B::scale(derivative, grad_output.clone()));
                }
            }
        });
    }
}

/// The embedding's backward pass.
#[derive(Debug)]
struct EmbedBackward;

impl<B: Gpt2Backend> Backward<B, 2> for EmbedBackward {
    /// The tables, the tokens and the first position.
    type State = (SoFar<B>, FloatTensor<B>, IntTensor<B>, usize);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad_output = grads.consume::<B>(&ops.node);
        let parents = ids(&ops);
        let (wte, wpe, tokens, past) = ops.state;
        // A tied classifier has its derivative there already: far larger than the few rows that are added here.
        let sum = wte.take(grads);
        let found = span(Operation::Embed, Pass::Backward, || {
            B::embed_backward([wte.value(), wpe], tokens, past, grad_output, sum)
        });
        register::<B, 2>(parents, found, grads);
    }
}

/// The affine map's backward pass.
#[derive(Debug)]
struct AffineBackward;

impl<B: Gpt2Backend> Backward<B, 3> for AffineBackward {
    /// Input and rounded weights.
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad_output = grads.consume::<B>(&ops.node);
        let parents = ids(&ops);
        let [x, w] = ops.state;
        let found = B::affine_backward(x, w, grad_output);
        register::<B, 3>(parents, [found.x, found.w, found.bias], grads);
    }
}

/// A block's backward pass.
#[derive(Debug)]
struct BlockBackward;

impl<B: Gpt2Backend> Backward<B, 13> for BlockBackward {
    /// Input, parameters with rounded weights, what is kept of the activations, and the shape.
    type State = (
        FloatTensor<B>,
        BlockWeights<FloatTensor<B>>,
        Option<Activations<FloatTensor<B>>>,
        BlockShape,
    );

    fn backward(self, ops: Ops<Self::State, 13>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad_output = grads.consume::<B>(&ops.node);
        let operand = handover::take::<B>(ops.node.id);
        let parents = ids(&ops);
        let (x, weights, kept, shape) = ops.state;
        let found = block::derivatives::<B>(x, weights, kept, shape, grad_output, operand);
        if let (Some(input), Some(operand)) = (parents[0], found.operand) {
            handover::give::<B>(input, operand);
        }
        let left = block_gradients::give::<B, _>(found.weights.into_iter());
        register::<B, 13>(
            parents,
            std::iter::once(found.x).chain(left.into_iter().flatten()),
            grads,
        );
    }
}

/// GELU's backward pass keeps its input alone.
#[derive(Debug)]
struct GeluBackward;

impl<B: Gpt2Backend> Backward<B, 1> for GeluBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let [parent] = ops.parents;
        let grad_output = grads.consume::<B>(&ops.node);
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, B::tanh_gelu_backward(ops.state, grad_output));
        }
    }
}

/// LayerNorm's backward pass.
#[derive(Debug)]
struct LayerNormBackward;

impl<B: Gpt2Backend> Backward<B, 3> for LayerNormBackward {
    /// Input, gain and the rows' statistics.
    type State = (FloatTensor<B>, FloatTensor<B>, Option<[FloatTensor<B>; 2]>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad_output = grads.consume::<B>(&ops.node);
        let parents = ids(&ops);
        let (x, weight, statistics) = ops.state;
        let found = span(Operation::LayerNorm, Pass::Backward, || {
            B::normalise_rows_backward(x, weight, statistics, grad_output, None)
        });
        register::<B, 3>(parents, [found.x, found.weight, found.bias], grads);
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
        let grad_output = grads.consume::<B>(&ops.node);
        let (qkv, attended, n_head) = ops.state;
        if let Some(parent) = parent {
            grads.register::<B>(
                parent.id,
                B::causal_attention_backward(qkv, attended, grad_output, n_head),
            );
        }
    }
}

/// The nodes of the operands whose derivatives somebody asks for.
fn ids<S, const N: usize>(ops: &Ops<S, N>) -> [Option<NodeId>; N] {
    ops.parents
        .each_ref()
        .map(|parent| parent.as_ref().map(|parent| parent.id))
}

/// Registers each derivative that somebody asks for.
fn register<B: Backend, const N: usize>(
    parents: [Option<NodeId>; N],
    derivatives: impl IntoIterator<Item = FloatTensor<B>>,
    grads: &mut Gradients,
) {
    for (parent, derivative) in parents.into_iter().zip(derivatives) {
        if let Some(parent) = parent {
            grads.register::<B>(parent, derivative);
        }
    }
}

/// `w` as an operand of products of `dtype`.
fn rounded<B: Gpt2Backend>(w: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if w.dtype() == dtype {
        w
    } else {
        B::round_weights(w, dtype.into())
    }
}

/// Two products' weights and biases with the weights in the products' type: an operand that was kept, or the weights rounded.
fn rounded_pair<B: Gpt2Backend>(
    operation: Operation,
    products: [[FloatTensor<B>; 2]; 2],
    operands: [Option<FloatTensor<B>>; 2],
    precision: Precision,
) -> [[FloatTensor<B>; 2]; 2] {
    let dtype = B::operand_type(precision).into();
    let is_there = products[0][0].dtype() == dtype || operands.iter().all(Option::is_some);
    let [first, second] = products;
    let [kept_first, kept_second] = operands;
    let round = |[w, bias]: [_; 2], kept: Option<_>| [kept.unwrap_or_else(|| rounded::<B>(w, dtype)), bias];
    let both = || [round(first, kept_first), round(second, kept_second)];
    if is_there {
        both()
    } else {
        span(operation, Pass::Forward, both)
    }
}

impl<B: Gpt2Backend, C: CheckpointStrategy> Gpt2Backend for Autodiff<B, C> {
    fn plain_precision(precision: Precision) -> Precision {
        B::plain_precision(precision)
    }

    fn operand_type(precision: Precision) -> FloatDType {
        B::operand_type(precision)
    }

    fn supports_matmul(x: &FloatTensor<Self>, w: &FloatTensor<Self>) -> bool {
        B::supports_matmul(&x.primitive, &w.primitive)
    }

    fn supports_layer_norm(x: &FloatTensor<Self>, precision: Precision) -> bool {
        B::supports_layer_norm(&x.primitive, precision)
    }

    fn supports_attention(qkv: &FloatTensor<Self>, n_head: usize) -> bool {
        B::supports_attention(&qkv.primitive, n_head)
    }

    fn to_host(tensor: FloatTensor<Self>) -> Vec<f32> {
        B::to_host(tensor.primitive)
    }

    fn round_weights(w: FloatTensor<Self>, dtype: FloatDType) -> FloatTensor<Self> {
        let mut rounded = Self::float_cast(w, dtype);
        if dtype == FloatDType::Flex32 {
            // Burn's casts take it for `f32`.
            rounded.primitive = B::round_weights(rounded.primitive, dtype);
        }
        rounded
    }

    fn embed(
        wte: FloatTensor<Self>,
        wpe: FloatTensor<Self>,
        tokens: IntTensor<Self>,
        past: usize,
    ) -> FloatTensor<Self> {
        let nodes = [wte.node.clone(), wpe.node.clone()];
        let value = |wte, wpe, tokens| span(Operation::Embed, Pass::Forward, || B::embed(wte, wpe, tokens, past));
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
        let (x, w) = (x.primitive.clone(), rounded::<B>(w.primitive, x.primitive.dtype()));
        let value = B::affine(x.clone(), w.clone(), bias.primitive);
        match AffineBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish([x, w], value),
            OpsKind::UnTracked(prepared) => prepared.finish(value),
        }
    }

    fn block(
        x: FloatTensor<Self>,
        weights: BlockWeights<FloatTensor<Self>>,
        operands: [Option<FloatTensor<Self>>; 4],
        shape: BlockShape,
    ) -> FloatTensor<Self> {
        let mut nodes = vec![x.node.clone()];
        let weights = weights.map(|parameter| {
            nodes.push(parameter.node);
            parameter.primitive
        });
        let nodes: [_; 13] = nodes.try_into().expect("an input and twelve parameters");
        let [qkv, attention_out, feed_in, feed_out] = operands.map(|operand| operand.map(|operand| operand.primitive));
        let pair = |operation, products, operands| rounded_pair::<B>(operation, products, operands, shape.precision);
        let attention = [weights.qkv, weights.attention_out];
        let [qkv, attention_out] = pair(Operation::AttentionWeights, attention, [qkv, attention_out]);
        let feed_forward = [weights.feed_in, weights.feed_out];
        let [feed_in, feed_out] = pair(Operation::FeedForwardWeights, feed_forward, [feed_in, feed_out]);
        let weights = BlockWeights {
            qkv,
            attention_out,
            feed_in,
            feed_out,
            ..weights
        };
        let (out, activations) = block::value::<B>(x.primitive.clone(), &weights, shape);
        match BlockBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let kept = activations.kept(shape.recompute);
                prepared.finish((x.primitive, weights, kept, shape), out)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(out),
        }
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
        let value = span(Operation::LayerNorm, Pass::Forward, || {
            B::normalise_rows(x.primitive.clone(), weight.primitive.clone(), bias.primitive, precision)
        });
        let statistics = value.statistics.clone().map(|both| both.map(Self::from_inner));
        let out = match LayerNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((x.primitive, weight.primitive, value.statistics), value.out),
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
        operand: Option<FloatTensor<Self>>,
        targets: IntTensor<Self>,
        shape: ClassifierShape,
    ) -> FloatTensor<Self> {
        let nodes = [hidden.node.clone(), wte.node.clone()];
        let (hidden, wte) = (hidden.primitive, wte.primitive);
        let operand = operand.map(|operand| operand.primitive);
        match ClassifierBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let result = span(Operation::Classifier, Pass::Forward, || {
                    B::classifier_gradients(hidden, operand.unwrap_or(wte), targets, shape)
                });
                prepared.finish([result.hidden, result.wte], result.loss)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::classifier_loss(hidden, wte, operand, targets, shape)),
        }
    }

    fn token_losses(
        hidden: FloatTensor<Self>,
        wte: FloatTensor<Self>,
        targets: IntTensor<Self>,
        shape: ClassifierShape,
    ) -> FloatTensor<Self> {
        Self::from_inner(B::token_losses(hidden.primitive, wte.primitive, targets, shape))
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
