//! The gradients of a block's parameters as soon as they are queued, for whoever has work for them while those of the
//! blocks in front are computed.
//!
//! Burn's backward pass returns when all of it is queued, and takes nothing along: like a span's observer, who takes
//! the gradients is known by the thread.

use burn::tensor::backend::Backend;
use burn::tensor::ops::FloatTensor;
use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

/// Takes the gradients of blocks out of a backward pass.
pub trait TakeBlockGradients<B: Backend>: 'static {
    /// Takes those of one block's parameters, in the order of the module [`Block`](crate::block::Block). They are
    /// queued, not computed.
    fn take(&mut self, gradients: Vec<FloatTensor<B>>);
}

type Taker<B> = Rc<RefCell<dyn TakeBlockGradients<B>>>;

thread_local! {
    /// A [`Taker`] of some backend.
    static TAKER: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

/// Runs `pass`. The backward passes in it give `taker` the gradients of each block that is
/// [one operation](crate::Gpt2::blocks_in_one_operation), the last first; their results have none of these. `B` is the
/// backend inside of autodiff.
pub fn take_block_gradients<B, T, R>(taker: T, pass: impl FnOnce() -> R) -> (T, R)
where
    B: Backend,
    T: TakeBlockGradients<B>,
{
    /// Also after a panic, nothing is taken any more.
    struct Scope;
    impl Drop for Scope {
        fn drop(&mut self) {
            TAKER.take();
        }
    }
    let taker = Rc::new(RefCell::new(taker));
    let shared: Taker<B> = taker.clone();
    let scope = Scope;
    TAKER.set(Some(Box::new(shared)));
    let result = pass();
    drop(scope);
    let taker = Rc::into_inner(taker).expect("a backward pass keeps no taker");
    (taker.into_inner(), result)
}

/// Gives `gradients` to the thread's taker; gives them back if there is none.
pub(super) fn give<B, I>(gradients: I) -> Option<I>
where
    B: Backend,
    I: Iterator<Item = FloatTensor<B>>,
{
    let taker = TAKER.with_borrow(|taker| Some(taker.as_ref()?.downcast_ref::<Taker<B>>()?.clone()));
    match taker {
        Some(taker) => {
            taker.borrow_mut().take(gradients.collect());
            None
        }
        None => Some(gradients),
    }
}
