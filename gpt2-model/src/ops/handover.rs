//! A block's gradient as an operand of products, from the backward pass of the block behind it, which has it in
//! registers.
//!
//! Burn's backward pass carries one tensor from one operation to the next. What goes besides it is known by the thread,
//! and by the node whose gradient it is.

use super::types::GradOutput;
use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use burn_autodiff::NodeId;
use std::any::Any;
use std::cell::RefCell;

thread_local! {
    /// A [`GradOutput`] of some backend, and its node.
    static HANDED: RefCell<Option<(NodeId, Box<dyn Any>)>> = const { RefCell::new(None) };
}

/// Leaves the gradient of `node`, `[N, C]`, in place of what was left before.
pub(super) fn give<B: Backend>(node: NodeId, gradient: GradOutput<FloatTensor<B>>) {
    HANDED.set(Some((node, Box::new(gradient))));
}

/// The gradient of `node`, if that was the last to be left. Nothing is left after it.
pub(super) fn take<B: Backend>(node: NodeId) -> Option<GradOutput<FloatTensor<B>>> {
    let (of, gradient) = HANDED.take()?;
    let gradient = gradient.downcast().ok().filter(|_| of == node)?;
    Some(*gradient)
}

#[cfg(all(test, feature = "ndarray"))]
mod tests {
    use super::*;
    use burn::tensor::Tensor;
    use burn_ndarray::{NdArray, NdArrayDevice};

    #[test]
    fn a_gradient_is_taken_once_and_by_its_node() {
        type B = NdArray<f32>;
        let [node, other] = [(); 2].map(|()| NodeId::new());
        let gradient = || {
            let value = Tensor::<B, 2>::ones([2, 3], &NdArrayDevice::Cpu);
            GradOutput::from(value.into_primitive().tensor())
        };
        assert!(take::<B>(node).is_none());
        give::<B>(node, gradient());
        assert!(take::<B>(node).is_some());
        assert!(take::<B>(node).is_none());
        give::<B>(node, gradient());
        assert!(take::<B>(other).is_none());
        assert!(take::<B>(node).is_none(), "what was not taken is gone");
    }
}
