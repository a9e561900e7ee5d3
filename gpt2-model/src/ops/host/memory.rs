//! Memory that is written once: filling a result before it is computed would cost as much as a pass over it.

use ndarray::{ArrayViewMut2, RawArrayViewMut};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// A vector of `length` elements, whose chunks of `task` are written in parallel. `fill` is told the number of the chunk and
/// must return the chunk written, all of it.
pub(super) fn written<E: Send>(
    length: usize,
    task: usize,
    fill: impl for<'a> Fn(usize, &'a mut [MaybeUninit<E>]) -> &'a mut [E] + Sync,
) -> Vec<E> {
    written_with(length, task, |i, chunk| (fill(i, chunk), ())).0
}

/// [`written`], and what `fill` returns beside each chunk.
pub(super) fn written_with<E: Send, T: Send>(
    length: usize,
    task: usize,
    fill: impl for<'a> Fn(usize, &'a mut [MaybeUninit<E>]) -> (&'a mut [E], T) + Sync,
) -> (Vec<E>, Vec<T>) {
    let mut out = Vec::with_capacity(length);
    let space = &mut out.spare_capacity_mut()[..length];
    let chunks = space.par_chunks_mut(task).enumerate();
    let beside = chunks.map(|(i, chunk)| {
        let (place, size) = (chunk.as_ptr().addr(), chunk.len());
        let (filled, beside) = fill(i, chunk);
        assert_eq!(
            (filled.as_ptr().addr(), filled.len()),
            (place, size),
            "the chunk, all of it"
        );
        beside
    });
    let beside = beside.collect();
    // SAFETY: each chunk was given back as written, and together they are the first `length` elements.
    unsafe { out.set_len(length) };
    (out, beside)
}

/// The matrix as memory that may be written to once more.
///
/// # Safety
/// Nothing but `f32`s may be written to it.
pub(super) unsafe fn as_uninit(mut matrix: ArrayViewMut2<'_, f32>) -> ArrayViewMut2<'_, MaybeUninit<f32>> {
    let raw: RawArrayViewMut<MaybeUninit<f32>, _> = matrix.raw_view_mut().cast();
    // SAFETY: of one layout; the borrow goes on; the caller guarantees that the elements stay numbers.
    unsafe { raw.deref_into_view_mut() }
}

/// The matrix as written.
///
/// # Safety
/// Every element must have been written.
pub(super) unsafe fn initialised(mut matrix: ArrayViewMut2<'_, MaybeUninit<f32>>) -> ArrayViewMut2<'_, f32> {
    let raw: RawArrayViewMut<f32, _> = matrix.raw_view_mut().cast();
    // SAFETY: of one layout; written, as the caller guarantees; the borrow goes on.
    unsafe { raw.deref_into_view_mut() }
}
