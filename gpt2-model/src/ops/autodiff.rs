//! Derivatives of the operations, for any backend that has them.

use super::{ClassifierGradients, ClassifierShape, Gpt2Backend};
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
                let scale = B::float_reshape(upstream.clone(), [1, 1].into());
                grads.register::<B>(parent.id, B::float_mul(derivative, scale));
            }
        }
    }
}

impl<B: Gpt2Backend, C: CheckpointStrategy> Gpt2Backend for Autodiff<B, C> {
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
