//! The sum of a token's and its position's vector, and its derivatives.

use crate::Tensor;
use crate::launch::{array, cubes, cubes_over, empty, empty_of, units};
use burn::tensor::{DType, TensorMetadata};
use burn_cubecl::CubeRuntime;
use cubecl::prelude::*;

#[cube(launch_unchecked)]
fn forward_kernel(
    wte: &Array<f32>,
    wpe: &Array<f32>,
    tokens: &Array<i32>,
    out: &mut Array<f32>,
    past: usize,
    seq: usize,
    width: usize,
) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let (row, column) = (ABSOLUTE_POS / width, ABSOLUTE_POS % width);
    let position = past + row % seq;
    out[ABSOLUTE_POS] = wte[tokens[row] as usize * width + column] + wpe[position * width + column];
}

#[cube(launch_unchecked)]
fn grad_positions_kernel(
    grad_output: &Array<f32>,
    grad_wpe: &mut Array<f32>,
    past: usize,
    batch: usize,
    seq: usize,
    width: usize,
) {
    if ABSOLUTE_POS >= grad_wpe.len() {
        terminate!();
    }
    let (position, column) = (ABSOLUTE_POS / width, ABSOLUTE_POS % width);
    let mut sum = 0.0f32;
    if position >= past && position < past + seq {
        for sequence in 0..batch {
            sum += grad_output[(sequence * seq + position - past) * width + column];
        }
    }
    grad_wpe[ABSOLUTE_POS] = sum;
}

/// For each place of `tokens` the next one with the same token plus one, or 0 where there is none; minus that (and minus one
/// more) where an earlier place has the token too.
#[cube(launch_unchecked)]
fn chain_kernel(tokens: &Array<i32>, chain: &mut Array<i32>) {
    let place = ABSOLUTE_POS;
    if place >= tokens.len() {
        terminate!();
    }
    let token = tokens[place];
    let mut next = place + 1;
    let mut link = 0i32;
    while next < tokens.len() && link == 0 {
        next += 1;
        if tokens[next - 1] == token {
            link = next as i32;
        }
    }
    let mut earlier = 0usize;
    while tokens[earlier] != token {
        earlier += 1;
    }
    if earlier < place {
        link = -link - 1;
    }
    chain[place] = link;
}

/// A cube for every place; the one of a token's first place adds up all of them, so that the order is always the same.
#[cube(launch_unchecked)]
fn grad_tokens_kernel(
    tokens: &Array<i32>,
    chain: &Array<i32>,
    grad_output: &Array<f32>,
    grad_wte: &mut Array<f32>,
    width: usize,
) {
    let first = CUBE_POS;
    if first >= tokens.len() {
        terminate!();
    }
    if chain[first] < 0 {
        terminate!();
    }
    let row = tokens[first] as usize * width;
    let mut column = UNIT_POS as usize;
    while column < width {
        let mut sum = grad_wte[row + column] + grad_output[first * width + column];
        let mut link = chain[first];
        while link != 0 {
            let place = link as usize - 1;
            sum += grad_output[place * width + column];
            // Later places are marked as such.
            link = -chain[place] - 1;
        }
        grad_wte[row + column] = sum;
        column += CUBE_DIM as usize;
    }
}

/// `wte[token] + wpe[past + position]` for each of `tokens`, `[B, T]`: `[B, T, C]`.
pub fn forward<R: CubeRuntime>(wte: &Tensor<R>, wpe: &Tensor<R>, tokens: &Tensor<R>, past: usize) -> Tensor<R> {
    let ([batch, seq], [_, width]) = (tokens.shape().dims(), wte.shape().dims());
    let out = empty(wte, &[batch, seq, width]);
    // SAFETY: no unit goes past the end; tokens are rows of `wte`.
    unsafe {
        forward_kernel::launch_unchecked(
            &wte.client,
            cubes_over(&out),
            units(),
            array(wte),
            array(wpe),
            array(tokens),
            array(&out),
            past,
            seq,
            width,
        );
    }
    out
}

/// Adds the derivative of [`forward`] by `wte` times `grad_output`, `[B, T, C]`, to `grad_wte`, and gives the one by
/// `wpe`, `[positions, C]`.
pub fn backward<R: CubeRuntime>(
    tokens: &Tensor<R>,
    grad_output: &Tensor<R>,
    grad_wte: &Tensor<R>,
    past: usize,
    positions: usize,
) -> Tensor<R> {
    let [batch, seq, width] = grad_output.shape().dims();
    let places = batch * seq;
    let chain = empty_of(tokens, &[places], DType::I32);
    let grad_wpe = empty(grad_output, &[positions, width]);
    let client = &grad_output.client;
    // SAFETY: no unit goes past the end; tokens are rows of `grad_wte`, and each row has one cube.
    unsafe {
        chain_kernel::launch_unchecked(client, cubes_over(&chain), units(), array(tokens), array(&chain));
        grad_tokens_kernel::launch_unchecked(
            client,
            cubes(places),
            units(),
            array(tokens),
            array(&chain),
            array(grad_output),
            array(grad_wte),
            width,
        );
        grad_positions_kernel::launch_unchecked(
            client,
            cubes_over(&grad_wpe),
            units(),
            array(grad_output),
            array(&grad_wpe),
            past,
            batch,
            seq,
            width,
        );
    }
    grad_wpe
}
