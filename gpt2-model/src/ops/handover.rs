//! A block's gradient as an operand of products, from the backward pass of the block behind it, which has it in registers.
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

/// Leaves the gradient of `node`.
pub(super) fn give<B: Backend>(node: NodeId, gradient: GradOutput<FloatTensor<B>>) {
    HANDED.set(Some((node, Box::new(gradient))));
}

/// The gradient of `node`, if that was the last to be left.
pub(super) fn take<B: Backend>(node: NodeId) -> Option<GradOutput<FloatTensor<B>>> {
    let (of, gradient) = HANDED.take()?;
    let gradient = gradient.downcast().ok().filter(|_| of == node)?;
    Some(*gradient)
}
