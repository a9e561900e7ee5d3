//! One position of each sequence through a block whose earlier keys and values are held, and the logits after it: what
//! generation computes for a token.
//!
//! A row times a matrix is bound by the reading of the matrix, so that a block is five launches, each of which reads what it
//! needs once: each cube of a product computes the LayerNorm in front of it. With `Rounding::Bf16` operands and
//! results are those that `bf16` tensors would hold; in memory they are `f32`, but for keys, values and, where they are kept
//! so, weights.

use crate::launch::{UNITS, array, empty, of_type, units};
use crate::layer_norm::statistics;
use crate::reduce::{max_of_cube, sum_of_cube};
use crate::{LANES, Tensor, gelu};
use burn::tensor::{DType, TensorMetadata, bf16};
use burn_cubecl::CubeRuntime;
use cubecl::prelude::*;

/// Four numbers that are read and written at once.
type Four = Vector<f32, Const<4>>;

/// How many numbers that is.
const FOUR: usize = LANES;

/// Fours of a product's columns to a cube, so that the products of a small model still have a cube for each multiprocessor.
const ACROSS: usize = 4;

/// Fours that a unit asks for before it waits for the first.
const AHEAD: usize = 8;

/// Units that share one row of the embedding.
const ROW_UNITS: usize = 16;

/// Rows of the embedding to a cube: four for each of its units.
const ROWS: usize = FOUR * UNITS / ROW_UNITS;

/// What a masked score is: WGSL has no infinity.
const MASKED: f32 = -1e30;

/// Channels of the widest attention head that is taken.
pub const WIDEST_HEAD: usize = FOUR * UNITS;

/// To what operands and results of products are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// Nothing less than `f32`.
    None,
    /// `bf16`.
    Bf16,
}

impl Rounding {
    /// That of weights, which may be rounded already.
    fn of_weights<R: CubeRuntime>(self, weights: &Tensor<R>) -> Self {
        if weights.dtype == DType::BF16 { Self::None } else { self }
    }
}

/// What happens to the sums of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Epilogue {
    /// They are written.
    Write,
    /// GELU of them is.
    Gelu,
    /// They are added to what is there.
    Add,
}

#[cube]
fn rounded(x: f32, #[comptime] rounding: Rounding) -> f32 {
    if comptime!(rounding == Rounding::Bf16) {
        f32::cast_from(bf16::cast_from(x))
    } else {
        x
    }
}

#[cube]
fn rounded_four(x: Four, #[comptime] rounding: Rounding) -> Four {
    if comptime!(rounding == Rounding::Bf16) {
        Four::cast_from(Vector::<bf16, Const<4>>::cast_from(x))
    } else {
        x
    }
}

/// A cube has `ACROSS` fours of columns; its units share the inner dimension, and add up what they have in a fixed order.
#[cube(launch_unchecked)]
fn linear_kernel<E: Float>(
    x: &Array<f32>,
    gain: &Array<f32>,
    offset: &Array<f32>,
    w: &Array<Vector<E, Const<4>>>,
    bias: &Array<f32>,
    out: &mut Array<f32>,
    inner: usize,
    fours: usize,
    #[comptime] normalises: bool,
    #[comptime] epilogue: Epilogue,
    #[comptime] rounding: Rounding,
    #[comptime] of_weights: Rounding,
) {
    let unit = UNIT_POS as usize;
    let start = CUBE_POS_Y as usize * inner;
    let mut mean = 0.0f32;
    let mut rstd = 1.0f32;
    if comptime!(normalises) {
        let mut shared = SharedMemory::<f32>::new(UNITS);
        let found = statistics(x, start, inner, &mut shared);
        mean = found.mean;
        rstd = found.rstd;
    }
    let column = CUBE_POS_X as usize * ACROSS + unit % ACROSS;
    let mut sum = Four::new(0.0);
    if column < fours {
        let mut i = unit / ACROSS;
        while i < inner {
            let mut factors = Array::<f32>::new(AHEAD);
            let mut weights = Array::<Vector<E, Const<4>>>::new(AHEAD);
            #[unroll]
            for j in 0..AHEAD {
                let at = i + j * comptime!(UNITS / ACROSS);
                // What is past the end is read from the last row, times 0.
                let row = min(at, inner - 1);
                let mut value = x[start + row];
                if comptime!(normalises) {
                    value = (value - mean) * rstd * gain[row] + offset[row];
                }
                factors[j] = select(at < inner, rounded(value, rounding), 0.0f32);
                weights[j] = w[row * fours + column];
            }
            #[unroll]
            for j in 0..AHEAD {
                sum += Four::new(factors[j]) * rounded_four(Four::cast_from(weights[j]), of_weights);
            }
            i += comptime!(AHEAD * UNITS / ACROSS);
        }
    }
    let mut sums = SharedMemory::<Four>::new(UNITS);
    sums[unit] = sum;
    let mut half = UNITS.runtime() / 2;
    while half >= ACROSS {
        sync_cube();
        if unit < half {
            let other = sums[unit + half];
            sums[unit] += other;
        }
        half /= 2;
    }
    if unit < ACROSS && column < fours {
        let four = sums[unit];
        let row = CUBE_POS_Y as usize * fours * FOUR;
        #[unroll]
        for e in 0..FOUR {
            let at = column * FOUR + e;
            let value = four[e] + bias[at];
            if comptime!(epilogue == Epilogue::Add) {
                out[row + at] += value;
            } else if comptime!(epilogue == Epilogue::Gelu) {
                out[row + at] = rounded(gelu::value(rounded(value, rounding)), rounding);
            } else {
                out[row + at] = rounded(value, rounding);
            }
        }
    }
}

/// A cube for each head of each sequence. It writes the new key and value behind the `past` that are held, and goes
/// over all of them, as many at a time as it has units: each unit has a key's score, then a few channels of some values.
#[cube(launch_unchecked)]
fn attention_kernel<E: Float>(
    qkv: &Array<Four>,
    keys: &mut Array<Vector<E, Const<4>>>,
    values: &mut Array<Vector<E, Const<4>>>,
    out: &mut Array<Four>,
    past: usize,
    capacity: usize,
    heads: usize,
    scale: f32,
    #[comptime] wide: usize,
    #[comptime] rounding: Rounding,
) {
    let unit = UNIT_POS as usize;
    let pair = CUBE_POS;
    let (sequence, head) = (pair / heads, pair % heads);
    let held = pair * capacity * wide;
    // Past its channels the query is 0: keys are read some fours at a time.
    let padded = comptime!(wide.next_multiple_of(AHEAD));
    let mut query = SharedMemory::<Four>::new(padded);
    let mut key = SharedMemory::<Four>::new(wide);
    let mut value = SharedMemory::<Four>::new(wide);
    if unit < wide {
        let at = (3 * sequence * heads + head) * wide + unit;
        query[unit] = qkv[at];
        key[unit] = qkv[at + heads * wide];
        value[unit] = qkv[at + 2 * heads * wide];
        keys[held + past * wide + unit] = Vector::cast_from(key[unit]);
        values[held + past * wide + unit] = Vector::cast_from(value[unit]);
    } else if unit < padded {
        query[unit] = Four::new(0.0);
    }
    sync_cube();

    let lanes = comptime!(UNITS / wide);
    let (channel, lane) = (unit % wide, unit / wide);
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let mut weights = SharedMemory::<f32>::new(UNITS);
    let mut most = f32::new(MASKED);
    let mut total = 0.0f32;
    let mut mixed = Four::new(0.0);
    let mut first = 0usize;
    while first <= past {
        let position = first + unit;
        let mut score = f32::new(MASKED);
        if position <= past {
            let mut sum = Four::new(0.0);
            // What this cube wrote it reads from shared memory, which is all that it waits for.
            if position == past {
                for i in 0..wide {
                    sum += query[i] * key[i];
                }
            } else {
                let at = held + position * wide;
                let mut i = 0usize;
                while i < wide {
                    let mut ahead = Array::<Vector<E, Const<4>>>::new(AHEAD);
                    #[unroll]
                    for j in 0..AHEAD {
                        ahead[j] = keys[at + min(i + j, wide - 1)];
                    }
                    #[unroll]
                    for j in 0..AHEAD {
                        sum += query[i + j] * Four::cast_from(ahead[j]);
                    }
                    i += AHEAD;
                }
            }
            score = (sum[0] + sum[1] + sum[2] + sum[3]) * scale;
        }
        let greatest = max(most, max_of_cube(score, &mut shared));
        let mut weight = 0.0f32;
        if position <= past {
            weight = f32::exp(score - greatest);
        }
        weights[unit] = weight;
        let correction = f32::exp(most - greatest);
        total = total * correction + sum_of_cube(weight, &mut shared);
        mixed *= Four::new(correction);
        most = greatest;
        if lane < lanes {
            let end = min(past - first, UNITS);
            let mut i = lane;
            while i < end {
                let mut ahead = Array::<Vector<E, Const<4>>>::new(AHEAD);
                #[unroll]
                for j in 0..AHEAD {
                    let at = min(i + j * lanes, end - 1);
                    ahead[j] = values[held + (first + at) * wide + channel];
                }
                #[unroll]
                for j in 0..AHEAD {
                    let at = i + j * lanes;
                    let weight = select(at < end, weights[min(at, end - 1)], 0.0f32);
                    mixed += Four::new(weight) * Four::cast_from(ahead[j]);
                }
                i += AHEAD * lanes;
            }
            if lane == 0 && past - first < UNITS {
                mixed += Four::new(weights[past - first]) * value[channel];
            }
        }
        first += UNITS;
    }
    let mut sums = SharedMemory::<Four>::new(UNITS);
    sums[unit] = mixed;
    sync_cube();
    if unit < wide {
        let mut sum = sums[unit];
        for lane in 1..lanes {
            sum += sums[lane * wide + unit];
        }
        out[pair * wide + unit] = rounded_four(sum / Four::new(total), rounding);
    }
}

/// A cube has `ROWS` rows of the embedding, `ROW_UNITS` units for four of them.
#[cube(launch_unchecked)]
fn logits_kernel<E: Float>(
    x: &Array<Four>,
    wte: &Array<Vector<E, Const<4>>>,
    logits: &mut Array<f32>,
    wide: usize,
    vocab_size: usize,
    #[comptime] rounding: Rounding,
    #[comptime] of_weights: Rounding,
) {
    let unit = UNIT_POS as usize;
    let first = CUBE_POS_X as usize * ROWS + unit / ROW_UNITS * FOUR;
    let start = CUBE_POS_Y as usize * wide;
    let mut products = Array::<Four>::new(FOUR);
    #[unroll]
    for r in 0..FOUR {
        products[r] = Four::new(0.0);
    }
    let mut i = unit % ROW_UNITS;
    while i < wide {
        let x = rounded_four(x[start + i], rounding);
        #[unroll]
        for r in 0..FOUR {
            // Rows past the end are read from the last one, and not written.
            let row = min(first + r, vocab_size - 1);
            products[r] += x * rounded_four(Four::cast_from(wte[row * wide + i]), of_weights);
        }
        i += ROW_UNITS;
    }
    let mut sums = SharedMemory::<f32>::new(comptime!(FOUR * UNITS));
    #[unroll]
    for r in 0..FOUR {
        let four = products[r];
        sums[unit * FOUR + r] = four[0] + four[1] + four[2] + four[3];
    }
    sync_cube();
    let row = CUBE_POS_X as usize * ROWS + unit;
    if unit < ROWS && row < vocab_size {
        let mut sum = 0.0f32;
        for i in 0..ROW_UNITS {
            sum += sums[(unit / FOUR * ROW_UNITS + i) * FOUR + unit % FOUR];
        }
        logits[CUBE_POS_Y as usize * vocab_size + row] = rounded(sum, rounding);
    }
}

/// A block's parameters: of LayerNorms gain and offset, `[C]`, of products weights, `[in, out]`, and bias.
#[derive(Debug, Clone)]
pub struct Weights<R: CubeRuntime> {
    /// Before the attention.
    pub ln_1: [Tensor<R>; 2],
    /// Query, key and value.
    pub qkv: [Tensor<R>; 2],
    /// After the attention.
    pub attention_out: [Tensor<R>; 2],
    /// Before the feed-forward half.
    pub ln_2: [Tensor<R>; 2],
    /// Into it.
    pub feed_in: [Tensor<R>; 2],
    /// Out of it.
    pub feed_out: [Tensor<R>; 2],
}

/// A block of one position of each sequence: `x`, `[B, C]`, becomes what leaves it. The position's key and value are written
/// to `keys` and `values`, `[B, H, capacity, D]`, behind the `past` that they hold.
pub fn block<R: CubeRuntime>(
    x: &Tensor<R>,
    weights: &Weights<R>,
    [keys, values]: [&Tensor<R>; 2],
    past: usize,
    rounding: Rounding,
) {
    let by = |normal, product, epilogue| Linear {
        normal,
        product,
        epilogue,
        rounding,
    };
    let [rows, width] = x.shape().dims();
    let [_, heads, capacity, head] = keys.shape().dims();
    let qkv = by(Some(&weights.ln_1), &weights.qkv, Epilogue::Write).of(x);
    let mixed = empty(x, &[rows, width]);
    // SAFETY: a cube stays in its head; `past` is below the capacity.
    unsafe {
        of_type!(keys, attention_kernel)(
            &x.client,
            CubeCount::Static((rows * heads) as u32, 1, 1),
            units(),
            array(&qkv),
            array(keys),
            array(values),
            array(&mixed),
            past,
            capacity,
            heads,
            1.0 / (head as f32).sqrt(),
            head / FOUR,
            rounding,
        );
    }
    by(None, &weights.attention_out, Epilogue::Add).onto(&mixed, x);
    let inner = by(Some(&weights.ln_2), &weights.feed_in, Epilogue::Gelu).of(x);
    by(None, &weights.feed_out, Epilogue::Add).onto(&inner, x);
}

/// The logits of the first `vocab_size` rows of `wte`, `[Vp, C]`, after `hidden`, `[B, C]`: `[B, V]`.
pub fn logits<R: CubeRuntime>(hidden: &Tensor<R>, wte: &Tensor<R>, vocab_size: usize, rounding: Rounding) -> Tensor<R> {
    let [rows, width] = hidden.shape().dims();
    let out = empty(hidden, &[rows, vocab_size]);
    // SAFETY: a cube stays in its rows.
    unsafe {
        of_type!(wte, logits_kernel)(
            &hidden.client,
            CubeCount::Static(vocab_size.div_ceil(ROWS) as u32, rows as u32, 1),
            units(),
            array(hidden),
            array(wte),
            array(&out),
            width / FOUR,
            vocab_size,
            rounding,
            rounding.of_weights(wte),
        );
    }
    out
}

/// A product of rows and weights, behind a LayerNorm or not.
struct Linear<'a, R: CubeRuntime> {
    normal: Option<&'a [Tensor<R>; 2]>,
    product: &'a [Tensor<R>; 2],
    epilogue: Epilogue,
    rounding: Rounding,
}

impl<R: CubeRuntime> Linear<'_, R> {
    /// Of `x`, `[B, in]`: `[B, out]`.
    fn of(&self, x: &Tensor<R>) -> Tensor<R> {
        let out = empty(x, &[x.shape()[0], self.product[0].shape()[1]]);
        self.onto(x, &out);
        out
    }

    /// Of `x`, `[B, in]`, written or added to `out`, `[B, out]`.
    fn onto(&self, x: &Tensor<R>, out: &Tensor<R>) {
        let [weight, bias] = self.product;
        let [inner, columns] = weight.shape().dims();
        // A product without a LayerNorm reads neither.
        let [gain, offset] = self.normal.map_or([x, x], |[gain, offset]| [gain, offset]);
        let fours = columns / FOUR;
        // SAFETY: a cube stays in its columns; `inner` is the width of `x`.
        unsafe {
            of_type!(weight, linear_kernel)(
                &x.client,
                CubeCount::Static(fours.div_ceil(ACROSS) as u32, x.shape()[0] as u32, 1),
                units(),
                array(x),
                array(gain),
                array(offset),
                array(weight),
                array(bias),
                array(out),
                inner,
                fours,
                self.normal.is_some(),
                self.epilogue,
                self.rounding,
                self.rounding.of_weights(weight),
            );
        }
    }
}
